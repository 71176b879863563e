"""The backends folder, as it should be and as it can be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from localplane_server.supervision.installed import InstalledBackends
from localplane_server.supervision.programs import BackendMetadata, BackendSource

SCRIPT = "#!/bin/sh\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty backends folder."""
    root = tmp_path / "backends"
    root.mkdir()
    return root


def add(root: Path, name: str, metadata: Any = None, *, run: str | None = SCRIPT) -> Path:
    folder = root / name
    folder.mkdir()
    if run is not None:
        (folder / "run.sh").write_text(run)
        (folder / "run.sh").chmod(0o755)
    if metadata is not None:
        text = metadata if isinstance(metadata, str) else json.dumps(metadata)
        (folder / "metadata.json").write_text(text)
    return folder


def scanned(root: Path) -> InstalledBackends:
    installed = InstalledBackends(root)
    installed.refresh()
    return installed


def names(root: Path) -> list[str]:
    return [one.name for one in scanned(root).programs]


class TestGood:
    def test_plain(self, root: Path) -> None:
        """A folder with a `run.sh` is a backend; it runs in its folder."""
        folder = add(root, "kokoro")
        [found] = scanned(root).programs

        assert ("kokoro", (str(folder / "run.sh"),), folder, None, ()) == (
            found.name,
            found.argv,
            found.cwd,
            found.metadata,
            found.aliases,
        )
        assert BackendSource.INSTALLED is found.source

    def test_metadata(self, root: Path) -> None:
        """What an installation wrote is kept; keys that are not known are nobody's business here."""
        written = {
            "alias": "whisper",
            "name": "whisper",
            "gallery_url": "https://gallery.example/index.yaml",
            "installed_at": "2025-08-01T10:00:00Z",
            "digest": ["new", "in", "LocalAI"],
        }
        add(root, "cpu-whisper", written)
        [found] = scanned(root).programs
        del written["digest"]

        assert BackendMetadata(**{"meta_backend_for": "", **written}) == found.metadata  # type: ignore[arg-type]
        assert ("whisper",) == found.aliases

    def test_meta_backend(self, root: Path) -> None:
        """A name that stands for a backend starts that one, in its folder."""
        target = add(root, "cpu-whisper", {"alias": "speech"})
        add(root, "whisper", {"meta_backend_for": "cpu-whisper", "name": "whisper"}, run=None)
        concrete, meta = scanned(root).programs

        assert ("whisper", (str(target / "run.sh"),), target, ()) == (
            meta.name,
            meta.argv,
            meta.cwd,
            meta.aliases,
        )
        assert concrete.argv == meta.argv
        assert () == scanned(root).problems

    def test_link_inside(self, root: Path) -> None:
        """A link to another backend of the folder is one more name for it."""
        add(root, "one")
        (root / "two").symlink_to("one")

        assert ["one", "two"] == names(root)

    def test_folder_that_is_a_link(self, root: Path, tmp_path: Path) -> None:
        """The folder itself may lie elsewhere."""
        add(root, "one")
        (tmp_path / "link").symlink_to(root)

        assert ["one"] == names(tmp_path / "link")

    def test_beside_the_backends(self, root: Path) -> None:
        """Files, and what is hidden, are no backends and no problem."""
        (root / "README.md").write_text("x")
        add(root, ".staging")

        assert ((), ()) == (scanned(root).programs, scanned(root).problems)

    def test_no_folder(self, tmp_path: Path) -> None:
        """Without a folder there are no backends, and it may come later."""
        installed = scanned(tmp_path / "backends")
        before = installed.programs, installed.problems
        (tmp_path / "backends").mkdir()
        add(tmp_path / "backends", "late")

        assert ((), ()) == before
        assert installed.refresh(at_once=True)
        assert ["late"] == [one.name for one in installed.programs]


class TestBroken:
    @pytest.mark.parametrize(
        ("metadata", "cause"),
        [
            ("{", "is not JSON"),
            ("[" * 5000, "is not JSON"),
            ("", "is not JSON"),
            ([], "is not a JSON object"),
            ({"alias": 1}, "alias in its metadata.json is not text"),
            ({"alias": "../llama"}, "alias in its metadata.json is no name of a backend"),
            ({"alias": "a\0b"}, "alias in its metadata.json is no name of a backend"),
            ({"meta_backend_for": "/bin/sh"}, "meta_backend_for in its metadata.json is no name"),
            ({"meta_backend_for": ".."}, "meta_backend_for in its metadata.json is no name"),
            ({"meta_backend_for": "nobody"}, "stands for nobody, which is no backend here"),
            ({"meta_backend_for": "bad"}, "stands for bad, which is no backend here"),
            ({"meta_backend_for": "meta"}, "stands for meta, which is no backend here"),
            ({"meta_backend_for": "good/../good"}, "meta_backend_for in its metadata.json is no"),
            ({"name": "x" * 65536}, "larger than 65536 bytes"),
        ],
    )
    def test_metadata(self, root: Path, metadata: Any, cause: str) -> None:
        """An entry whose metadata cannot be meant is told and left out; the others are there."""
        add(root, "good")
        add(root, "meta", {"meta_backend_for": "good"}, run=None)
        add(root, "bad", metadata)
        installed = scanned(root)
        [problem] = installed.problems

        assert ["good", "meta"] == [one.name for one in installed.programs]
        assert "bad" == problem.name
        assert cause in problem.message

    @pytest.mark.parametrize("name", ["a b", "-c", "ü", "a\nb", "a\\b", "b" * 129, "$(reboot)"])
    def test_name(self, root: Path, name: str) -> None:
        """A folder that is called like no backend is told of."""
        add(root, name)

        assert [name] == [problem.name for problem in scanned(root).problems]
        assert [] == names(root)

    def test_name_without_text(self, root: Path) -> None:
        """So is one whose name is no text at all; its bytes are shown."""
        os.mkdir(os.fsencode(root) + b"/b\xff")  # noqa: PTH102 - pathlib takes only text

        assert ["b\\xff"] == [problem.name for problem in scanned(root).problems]

    def test_no_program(self, root: Path) -> None:
        """Without a `run.sh` there is nothing to start."""
        add(root, "empty", run=None)
        (add(root, "folder", run=None) / "run.sh").mkdir()
        os.mkfifo(add(root, "pipe", run=None) / "run.sh")

        assert [(name, "has no run.sh") for name in ("empty", "folder", "pipe")] == list(
            scanned(root).problems
        )

    def test_not_executable(self, root: Path) -> None:
        """One that may not be executed is not, and is not changed either."""
        path = add(root, "plain") / "run.sh"
        path.chmod(0o644)

        assert [("plain", "its run.sh is not executable")] == list(scanned(root).problems)
        assert 0o644 == path.stat().st_mode & 0o777

    def test_metadata_that_is_no_file(self, root: Path) -> None:
        """A pipe in the place of a file holds nobody up."""
        os.mkfifo(add(root, "pipe") / "metadata.json")

        assert ["pipe"] == names(root)


class TestOutside:
    """Nothing outside the folder is read or run, whatever links lead there."""

    @pytest.fixture
    def outside(self, tmp_path: Path) -> Path:
        folder = tmp_path / "outside"
        folder.mkdir()
        (folder / "run.sh").write_text(SCRIPT)
        (folder / "run.sh").chmod(0o755)
        (folder / "metadata.json").write_text('{"alias": "stolen"}')
        return folder

    def test_folder(self, root: Path, outside: Path) -> None:
        """Not a whole entry."""
        (root / "evil").symlink_to(outside)

        assert [("evil", "links out of the backends folder")] == list(scanned(root).problems)
        assert [] == names(root)

    @pytest.mark.parametrize("file", ["run.sh", "metadata.json"])
    def test_file(self, root: Path, outside: Path, file: str) -> None:
        """Nor a file of one."""
        folder = add(root, "evil")
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(outside / file)

        assert [("evil", f"its {file} links out of the backends folder")] == list(
            scanned(root).problems
        )
        assert [] == names(root)

    def test_neighbour_with_the_same_beginning(self, root: Path, tmp_path: Path) -> None:
        """Nor a folder whose path only begins like that of the folder."""
        (tmp_path / "backends-evil").mkdir()
        add(tmp_path / "backends-evil", "x")
        (root / "evil").symlink_to(tmp_path / "backends-evil" / "x")

        assert [("evil", "links out of the backends folder")] == list(scanned(root).problems)

    def test_links_to_nothing_and_in_circles(self, root: Path) -> None:
        """Links that end nowhere are told of."""
        (root / "dead").symlink_to("nowhere")
        (root / "round").symlink_to("round")

        assert [("dead", "links to no folder"), ("round", "links to no folder")] == list(
            scanned(root).problems
        )

    def test_swapped_later(self, root: Path, outside: Path) -> None:
        """A program that becomes such a link later is seen before the next start."""
        folder = add(root, "good")
        installed = scanned(root)
        (folder / "run.sh").unlink()
        (folder / "run.sh").symlink_to(outside / "run.sh")

        assert installed.refresh(at_once=True)
        assert () == installed.programs


class TestChanges:
    def test_nothing_changed(self, root: Path) -> None:
        """Looking again at what is the same reads nothing again."""
        add(root, "one")
        installed = scanned(root)

        assert not installed.refresh(at_once=True)

    @pytest.mark.parametrize("change", ["add", "remove", "chmod", "metadata"])
    def test_changed(self, root: Path, change: str) -> None:
        """Whatever changes the outcome is seen."""
        folder = add(root, "one", {"alias": "a"})
        installed = scanned(root)
        match change:
            case "add":
                add(root, "two")
            case "remove":
                (folder / "run.sh").unlink()
            case "chmod":
                (folder / "run.sh").chmod(0o600)
            case _:
                (folder / "metadata.json").write_text('{"alias": "other"}')

        assert installed.refresh(at_once=True)

    def test_is_not_looked_at_all_the_time(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Lists that are asked for often read the folder once a second."""
        installed = scanned(root)
        add(root, "one")

        assert not installed.refresh()
        monkeypatch.setattr("localplane_server.supervision.installed.LOOK_SECONDS", 0.0)
        assert installed.refresh()

    def test_problems_are_logged_once(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A folder that stays broken does not fill the log."""
        add(root, "bad", run=None)
        installed = scanned(root)
        installed.reload()

        assert 1 == len(caplog.records)
