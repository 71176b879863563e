"""Changes to the models folder. What is left of them when the process is killed: see tests/faults."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localplane_server.errors import InstallFailedError
from localplane_server.gallery.installs.models_folder import ModelsFolder
from localplane_server.gallery.installs.publication import FOLDER_NAME, Publication, recover


@pytest.fixture
def folder(tmp_path: Path) -> ModelsFolder:
    root = tmp_path / "models"
    root.mkdir()
    return ModelsFolder(root)


@pytest.fixture
def stage(tmp_path: Path) -> Callable[[str], Path]:
    """Makes staged files."""
    (tmp_path / "staging").mkdir()

    def stage(content: str) -> Path:
        path = tmp_path / "staging" / f"{len(list((tmp_path / 'staging').iterdir()))}.part"
        path.write_text(content)
        path.chmod(0o600)
        return path

    return stage


def content(folder: ModelsFolder) -> dict[str, str]:
    """Return all files below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder.root)): path.read_text()
        for path in sorted(folder.root.rglob("*"))
        if path.is_file()
    }


def publish(folder: ModelsFolder, describe: Callable[[Publication], None]) -> None:
    with Publication(folder) as publication:
        describe(publication)
        publication.commit()


class TestCommit:
    def test_everything(self, folder: ModelsFolder, stage: Callable[[str], Path]) -> None:
        """Files come, are replaced and go, staged files are used up, and nothing else is left."""
        (folder.root / "old.yaml").write_text("old")
        (folder.root / "sub").mkdir()
        (folder.root / "sub" / "gone").write_text("gone")
        weights = stage("weights")

        with Publication(folder) as publication:
            publication.add("a/b/x.gguf", weights)
            publication.write("old.yaml", "new")
            publication.remove("sub/gone")
            publication.remove("never/there")
            publication.commit()

        assert {"a/b/x.gguf": "weights", "old.yaml": "new"} == content(folder)
        assert not weights.exists()
        assert not (folder.root / "sub").exists()
        assert 0o644 == (folder.root / "a/b/x.gguf").stat().st_mode & 0o777

    def test_nothing_before(self, folder: ModelsFolder, stage: Callable[[str], Path]) -> None:
        """Without a commit nothing changes, and what was staged stays for the next time."""
        weights = stage("weights")

        with Publication(folder) as publication:
            publication.add("x.gguf", weights)
            publication.write("x.yaml", "text")

        assert {} == content(folder)
        assert "weights" == weights.read_text()

    def test_staged_elsewhere(
        self,
        folder: ModelsFolder,
        stage: Callable[[str], Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A file that cannot be linked, being on another disk, is copied."""

        def link(*_: Any, **__: Any) -> None:
            raise OSError(errno.EXDEV, "another disk")

        monkeypatch.setattr(os, "link", link)
        (folder.root / "x.gguf").write_text("old")
        weights = stage("weights")

        with Publication(folder) as publication:
            publication.add("x.gguf", weights)
            publication.commit()

        assert {"x.gguf": "weights"} == content(folder)
        assert not weights.exists()

    def test_staged_file_gone(self, folder: ModelsFolder, stage: Callable[[str], Path]) -> None:
        """A staged file that somebody else took is told at once, and nothing changes."""
        weights = stage("weights")
        weights.unlink()

        def describe(publication: Publication) -> None:
            publication.write("x.yaml", "text")
            publication.add("x.gguf", weights)

        with pytest.raises(FileNotFoundError):
            publish(folder, describe)

        assert {} == content(folder)


class TestFailure:
    @pytest.mark.parametrize("obstacle", ["folder", "file_as_folder", "link_as_folder"])
    def test_taken_back(
        self,
        folder: ModelsFolder,
        stage: Callable[[str], Path],
        obstacle: str,
        tmp_path: Path,
    ) -> None:
        """When one change is not possible, those before it are taken back."""
        before = {"kept.yaml": "old", "gone": "gone"}
        for name, text in before.items():
            (folder.root / name).write_text(text)
        if obstacle == "folder":
            (folder.root / "sub" / "x").mkdir(parents=True)
        elif obstacle == "file_as_folder":
            (folder.root / "sub").write_text("file")
            before["sub"] = "file"
        else:
            (folder.root / "sub").symlink_to(tmp_path)
        weights = stage("weights")

        def describe(publication: Publication) -> None:
            publication.add("new/x.gguf", weights)
            publication.write("kept.yaml", "new")
            publication.remove("gone")
            publication.write("sub/x", "text")

        with pytest.raises((IsADirectoryError, InstallFailedError)):
            publish(folder, describe)

        assert before == content(folder)
        assert not (folder.root / "new").exists()
        assert not (tmp_path / "x").exists()
        assert "weights" == weights.read_text()

    def test_disk(
        self,
        folder: ModelsFolder,
        stage: Callable[[str], Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """When the disk fails at a rename, the changes before it are taken back."""
        (folder.root / "a.yaml").write_text("old")
        rename = os.rename

        def failing(source: str, target: str, **options: Any) -> None:
            if target == "b.yaml":
                raise OSError(errno.EIO, "the disk fails")
            rename(source, target, **options)

        monkeypatch.setattr(os, "rename", failing)

        def describe(publication: Publication) -> None:
            publication.write("a.yaml", "new")
            publication.write("b.yaml", "new")

        with pytest.raises(OSError, match="the disk fails"):
            publish(folder, describe)

        assert {"a.yaml": "old"} == content(folder)

    @pytest.mark.parametrize(("module", "call"), [(os, "unlink"), (shutil, "rmtree")])
    def test_disk_after_all_is_made(
        self,
        folder: ModelsFolder,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        module: Any,
        call: str,
    ) -> None:
        """When the disk fails once all is in place, it is in place: that is logged, and cleared away later."""
        (folder.root / "a.yaml").write_text("old")

        working = getattr(module, call)

        def failing(path: str, **options: Any) -> None:
            if path.endswith(".partial"):
                working(path, **options)
            raise OSError(errno.EIO, "the disk fails")

        def describe(publication: Publication) -> None:
            publication.write("a.yaml", "new")
            publication.write("b.yaml", "new")

        with monkeypatch.context() as patch:
            patch.setattr(module, call, failing)
            publish(folder, describe)
        left = content(folder)
        recover(folder)

        assert {"a.yaml": "new", "b.yaml": "new"}.items() <= left.items()
        assert len(left) > 2
        assert "the disk fails" in caplog.text
        assert {"a.yaml": "new", "b.yaml": "new"} == content(folder)


class TestLinks:
    def test_file(self, folder: ModelsFolder, tmp_path: Path) -> None:
        """A link in the place of a file is replaced, or removed, itself."""
        outside = tmp_path / "outside"
        outside.write_text("untouched")
        for name in ("replaced", "removed"):
            (folder.root / name).symlink_to(outside)

        with Publication(folder) as publication:
            publication.write("replaced", "new")
            publication.remove("removed")
            publication.commit()

        assert {"replaced": "new"} == content(folder)
        assert not (folder.root / "replaced").is_symlink()
        assert "untouched" == outside.read_text()

    def test_folder_of_changes(self, folder: ModelsFolder, tmp_path: Path) -> None:
        """Where changes are prepared nobody can have them written elsewhere."""
        (tmp_path / "outside").mkdir()
        (folder.root / FOLDER_NAME).symlink_to(tmp_path / "outside")

        with pytest.raises(InstallFailedError), Publication(folder):
            pass

        assert [] == list((tmp_path / "outside").iterdir())


class TestRecover:
    def test_nothing(self, folder: ModelsFolder, tmp_path: Path) -> None:
        """Where nothing was interrupted, nothing happens, also without a models folder."""
        assert [] == recover(folder)
        assert [] == recover(ModelsFolder(tmp_path / "none"))

    def test_work_of_others(self, folder: ModelsFolder) -> None:
        """What somebody is still working on is left alone."""
        with Publication(folder) as publication:
            publication.write("x.yaml", "text")

            assert [] == recover(folder)

            publication.commit()

        assert {"x.yaml": "text"} == content(folder)

    def test_hidden_folder_goes(self, folder: ModelsFolder) -> None:
        """The hidden folder does not stay behind."""
        with Publication(folder) as publication:
            publication.write("x.yaml", "text")
            publication.commit()

        recover(folder)

        assert ["x.yaml"] == [one.name for one in folder.root.iterdir()]
