"""The models folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localplane_server.errors import InvalidModelNameError, ModelNotFoundError
from localplane_server.models import catalog as catalog_module
from localplane_server.models.catalog import Defaults, ModelCatalog


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "chat.yaml").write_text(
        "name: chat\naliases: [gpt-4]\nparameters: {model: weights.gguf}\n"
    )
    (tmp_path / "weights.gguf").write_bytes(b"GGUF....")
    (tmp_path / "loose.gguf").write_bytes(b"GGUF....")
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "._gallery_chat.yaml").write_text("name: hidden")
    (tmp_path / "sub dir").mkdir()
    (tmp_path / "sub dir" / "deep one.gguf").write_bytes(b"GGUF....")
    return tmp_path


class TestListing:
    def test_configured_and_loose(self, folder: Path) -> None:
        """A file that a configuration uses is not a model of its own; text files are none at all."""
        catalog = ModelCatalog(folder)

        assert ["chat"] == [model.name for model in catalog.configured()]
        assert ["loose.gguf"] == [model.name for model in catalog.loose()]

    def test_used_files_on_request(self, folder: Path) -> None:
        """Asked for, files that configurations use are listed too."""
        names = [model.name for model in ModelCatalog(folder).loose(exclude_configured=False)]

        assert ["loose.gguf", "weights.gguf"] == names

    def test_missing_folder(self, tmp_path: Path) -> None:
        """A folder that is not there yet has no models, and no problems."""
        catalog = ModelCatalog(tmp_path / "none")

        assert ([], [], ()) == (catalog.configured(), catalog.loose(), catalog.problems)

    def test_new_files_are_seen(self, folder: Path) -> None:
        """What is installed while the service runs is there without a reload."""
        catalog = ModelCatalog(folder)
        assert ["chat"] == [model.name for model in catalog.configured()]

        (folder / "new.yaml").write_text("name: new")

        assert ["chat", "new"] == [model.name for model in catalog.configured()]

    def test_changed_files_are_seen_on_reload(self, folder: Path) -> None:
        """An edit in place is taken when asked for."""
        catalog = ModelCatalog(folder)
        assert "chat" == catalog.get("chat").name
        (folder / "chat.yaml").write_text("name: other")

        catalog.reload()

        assert ["other"] == [model.name for model in catalog.configured()]


class TestNames:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("chat", "chat"),
            ("gpt-4", "chat"),
            ("weights.gguf", "chat"),
            ("loose.gguf", "loose.gguf"),
            ("sub dir/deep one.gguf", "sub dir/deep one.gguf"),
            ("sub dir__deep one.gguf", "sub dir/deep one.gguf"),
        ],
    )
    def test_found(self, folder: Path, name: str, expected: str) -> None:
        """Name, alias, file, file in a folder, and the slash written as `__`."""
        assert expected == ModelCatalog(folder).get(name).name

    @pytest.mark.parametrize(
        "name",
        [
            "nope",
            "Chat",
            "../loose.gguf",
            "sub dir/../loose.gguf",
            "/etc/passwd",
            "notes.txt",
            "._gallery_chat.yaml",
            "sub dir",
            "sub dir/.hidden",
            "sub dir//deep one.gguf",
            "sub dir/./deep one.gguf",
        ],
    )
    def test_not_found(self, folder: Path, name: str) -> None:
        """A name is no path: nothing outside the folder, nothing hidden, no folder, no other case."""
        (folder / "sub dir" / ".hidden").write_bytes(b"GGUF")

        with pytest.raises(ModelNotFoundError):
            ModelCatalog(folder).get(name)

    def test_link_that_leads_out_of_the_folder(self, tmp_path: Path, folder: Path) -> None:
        """A planted link in a subfolder opens nothing outside."""
        outside = tmp_path.parent / "outside.gguf"
        outside.write_bytes(b"GGUF")
        (folder / "sub dir" / "link.gguf").symlink_to(outside)

        with pytest.raises(ModelNotFoundError):
            ModelCatalog(folder).get("sub dir/link.gguf")

    def test_file_of_two_configurations(self, folder: Path) -> None:
        """A file that two configurations use means neither: it is a model by itself."""
        (folder / "other.yaml").write_text("name: other\nparameters: {model: weights.gguf}\n")

        assert "weights.gguf" == ModelCatalog(folder).get("weights.gguf").name

    def test_bad_name(self, folder: Path) -> None:
        """A name that cannot be one is told apart from one that is not there."""
        with pytest.raises(InvalidModelNameError):
            ModelCatalog(folder).get("\0")


class TestChanges:
    def test_files_that_change_in_place_are_seen(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A copy that was seen while it was empty, and an edit, are taken without a reload."""
        monkeypatch.setattr(catalog_module, "LOOK_SECONDS", -1.0)
        (folder / "copy.gguf").touch()
        catalog = ModelCatalog(folder)
        assert "" == catalog.get("copy.gguf").backend

        (folder / "copy.gguf").write_bytes(b"GGUF....")
        (folder / "chat.yaml").write_text("name: chat\ndescription: edited\n")

        assert "llama" == catalog.get("copy.gguf").backend
        assert "edited" == catalog.get("chat").description


class TestProblems:
    def test_name_that_is_not_text(self, folder: Path) -> None:
        """A file whose name no answer could carry is reported and skipped."""
        (folder / os.fsdecode(b"caf\xe9.gguf")).write_bytes(b"GGUF")
        catalog = ModelCatalog(folder)

        assert [r"caf\xe9.gguf"] == [problem.file for problem in catalog.problems]
        assert ["loose.gguf"] == [model.name for model in catalog.loose()]

    def test_a_bad_file_is_reported_and_the_rest_works(self, folder: Path) -> None:
        """One bad file never hides the others."""
        (folder / "bad.yaml").write_text("name: [")
        (folder / "twin.yaml").write_text("name: chat")
        (folder / "thief.yaml").write_text("name: thief\naliases: [chat]")
        catalog = ModelCatalog(folder)

        assert ["bad.yaml", "thief.yaml", "twin.yaml"] == [p.file for p in catalog.problems]
        assert ["chat", "thief"] == [model.name for model in catalog.configured()]
        assert "weights.gguf" == catalog.get("chat").file


class TestDefaults:
    def test_gaps_are_filled(self, folder: Path) -> None:
        """What neither the file nor the configuration says comes from the settings."""
        model = ModelCatalog(folder, defaults=Defaults(threads=3, context_size=99)).get("chat")

        assert (3, 99, "llama") == (model.threads, model.context_size, model.backend)

    def test_first_for_a_use_case(self, folder: Path) -> None:
        """Without a name, the first configured model for the use case is meant."""
        (folder / "embed.yaml").write_text("name: an-embedder\nembeddings: true\n")
        catalog = ModelCatalog(folder)
        text = catalog.first_for(("chat",))
        vectors = catalog.first_for(("embeddings",), embeddings=True)

        assert ("chat", "an-embedder") == (text and text.name, vectors and vectors.name)
