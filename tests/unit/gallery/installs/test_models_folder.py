"""The models folder, with what somebody planted in it."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from localplane_server.errors import InstallFailedError
from localplane_server.gallery.installs.models_folder import ModelsFolder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that nobody may touch, with a file in it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text("secret")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> ModelsFolder:
    root = tmp_path / "models"
    root.mkdir()
    return ModelsFolder(root)


class TestLinks:
    def test_linked_folder(self, folder: ModelsFolder, outside: Path) -> None:
        """A folder that is a link is entered by nobody, wherever it leads."""
        (folder.root / "sub").symlink_to(outside)

        for call in (
            lambda: folder.size("sub/secret"),
            lambda: folder.read_text("sub/secret", most_bytes=100),
            lambda: folder.sha256("sub/secret", lambda _size: None),
        ):
            with pytest.raises(InstallFailedError, match="sub is not a folder of its own"):
                call()

    def test_linked_file(self, folder: ModelsFolder, outside: Path) -> None:
        """A file that is a link counts as none, and is not read."""
        (folder.root / "x").symlink_to(outside / "secret")

        assert folder.size("x") is None
        assert folder.read_text("x", most_bytes=100) is None
        assert folder.sha256("x", lambda _size: None) is None
        assert folder.stat("x") is not None

    def test_linked_root(self, folder: ModelsFolder, tmp_path: Path) -> None:
        """The models folder itself may be a link: that is the operator's."""
        (folder.root / "x").write_text("text")
        (tmp_path / "link").symlink_to(folder.root)

        assert "text" == ModelsFolder(tmp_path / "link").read_text("x", most_bytes=100)

    def test_pipe(self, folder: ModelsFolder) -> None:
        """A pipe in the place of a file holds nobody up."""
        os.mkfifo(folder.root / "x")

        assert folder.size("x") is None
        assert folder.sha256("x", lambda _size: None) is None
        assert folder.read_text("x", most_bytes=100) is None


class TestRead:
    def test_no_file(self, folder: ModelsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        """A folder and a socket in the place of a file are no files, and nothing is left open."""
        monkeypatch.chdir(folder.root)
        Path("x").mkdir()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("y")

        assert folder.read_text("x", most_bytes=100) is None
        assert folder.read_text("y", most_bytes=100) is None
        opened = [one.resolve() for one in Path("/proc/self/fd").iterdir()]
        assert not any(one.is_relative_to(folder.root) for one in opened)

    def test_digest(self, folder: ModelsFolder) -> None:
        """The digest is that of the content, and all of it is told."""
        content = bytes(3_000_000)
        (folder.root / "x").write_bytes(content)
        told: list[int] = []

        assert hashlib.sha256(content).hexdigest() == folder.sha256("x", told.append)
        assert len(content) == sum(told)

    def test_missing(self, folder: ModelsFolder) -> None:
        """What is not there is None, also below a folder that is not there."""
        assert folder.size("a/b") is None
        assert folder.read_text("a/b", most_bytes=1) is None
        assert folder.sha256("x", lambda _size: None) is None

    def test_too_large(self, folder: ModelsFolder) -> None:
        """A text that is too large or none is not read."""
        (folder.root / "x").write_text("12345")
        (folder.root / "y").write_bytes(b"\xff\xfe")

        assert folder.read_text("x", most_bytes=4) is None
        assert "12345" == folder.read_text("x", most_bytes=5)
        assert folder.read_text("y", most_bytes=5) is None

    def test_configurations(self, folder: ModelsFolder) -> None:
        """Configurations and gallery files are told apart."""
        for name in ("b.yaml", "a.yml", "._gallery_a.yaml", ".hidden.yaml", "x.gguf"):
            (folder.root / name).touch()

        assert ["a.yml", "b.yaml"] == list(folder.configurations())
        assert ["._gallery_a.yaml"] == list(folder.gallery_files())

    def test_no_folder(self, tmp_path: Path) -> None:
        """Without a models folder there are no configurations."""
        assert [] == list(ModelsFolder(tmp_path / "none").configurations())


def test_empty_folders(folder: ModelsFolder) -> None:
    """Folders that are empty go, up to the first that is not, and never the models folder."""
    (folder.root / "a" / "b" / "c").mkdir(parents=True)
    (folder.root / "a" / "x").touch()

    folder.remove_empty_folders("a/b/c/gone")
    folder.remove_empty_folders("gone")

    assert ["a"] == [one.name for one in folder.root.iterdir()]
    assert ["x"] == [one.name for one in (folder.root / "a").iterdir()]
