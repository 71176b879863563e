"""Names that strangers choose and that become files."""

from __future__ import annotations

import pytest

from localplane_server.errors import InvalidArgumentError, InvalidModelNameError
from localplane_server.gallery.installs.file_names import (
    LONGEST_MODEL_NAME,
    LONGEST_PART,
    check_backend_name,
    check_file_name,
    check_sha256,
    check_template_name,
    gallery_file,
    installed_name,
)

HOSTILE = [
    "",
    " ",
    "/etc/passwd",
    "../outside",
    "a/../../outside",
    "..",
    ".",
    "a/.",
    "a//b",
    "a/",
    "a\\b",
    "..\\outside",
    "a\0b",
    "a\nb",
    "a\x7fb",
    "\ud800",
    ".hidden",
    "a/.hidden",
    ".localplane/x",
    "._gallery_x.yaml",
    "x" * (LONGEST_PART + 1),
    "a/" * 20 + "b",
    "/".join(["x" * 200] * 6),
]


class TestFileName:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile(self, name: str) -> None:
        """A name that leads elsewhere, is hidden, or that no file can have is refused, and the field is told."""
        with pytest.raises(InvalidArgumentError) as caught:
            check_file_name(name, field="files[3].filename")

        assert "files[3].filename" == caught.value.field

    @pytest.mark.parametrize("name", ["x.yaml", "other.YML", "x.yml"])
    def test_configuration(self, name: str) -> None:
        """A file that would be a model's configuration is refused: it would be a model of its own."""
        with pytest.raises(InvalidArgumentError, match="configuration"):
            check_file_name(name, field="files")

    @pytest.mark.parametrize(
        "name", ["x.gguf", "llama-cpp/models/x/x.gguf", "a b.bin", "ü.gguf", "a..b", "sub/x.yaml"]
    )
    def test_usable(self, name: str) -> None:
        """Names that galleries have are taken as they are."""
        assert name == check_file_name(name, field="files")

    def test_error_is_harmless(self) -> None:
        """The error shows a hostile name cut short and without what a terminal would obey."""
        with pytest.raises(InvalidArgumentError) as caught:
            check_file_name("\x1b[2J/../" + "x" * 5000, field="files")

        assert "\x1b" not in caught.value.message
        assert len(caught.value.message) < 300

    def test_template(self) -> None:
        """A prompt template is a file, too."""
        assert "chat" == check_template_name("chat", field="t")
        with pytest.raises(InvalidArgumentError):
            check_template_name("../chat", field="t")


class TestInstalledName:
    @pytest.mark.parametrize(
        "name",
        ["", " ", "..", ".x", "\\", "a\0b", "a\nb", "\ud800", "x" * (LONGEST_MODEL_NAME + 1)],
    )
    def test_hostile(self, name: str) -> None:
        """A name that no file can have, or a hidden one, is refused."""
        with pytest.raises(InvalidModelNameError):
            installed_name(name)

    def test_slashes(self) -> None:
        """A slash becomes two underscores, so that no name is a path."""
        assert "org__model" == installed_name("org/model")

    def test_parent(self) -> None:
        """What would lead elsewhere is a hidden file after that, and refused."""
        with pytest.raises(InvalidModelNameError):
            installed_name("../x")

    def test_files_fit(self) -> None:
        """The longest name leaves space for what is written beside it."""
        name = installed_name("x" * LONGEST_MODEL_NAME)

        assert len(gallery_file(name)) < LONGEST_PART


@pytest.mark.parametrize("name", ["/bin/sh", "../run", "a b", "a.b", "", "x\n", "x/y"])
def test_backend_is_no_path(name: str) -> None:
    """A backend is a name, whatever it is joined to."""
    with pytest.raises(InvalidArgumentError):
        check_backend_name(name, field="backend")


def test_sha256() -> None:
    """A digest is 64 hexadecimal digits, in small letters from then on."""
    assert "ab" * 32 == check_sha256("AB" * 32, field="sha256")
    assert "" == check_sha256("", field="sha256")
    for wrong in ("x" * 64, "ab", "ab" * 33):
        with pytest.raises(InvalidArgumentError):
            check_sha256(wrong, field="sha256")
