"""Installing models into a folder, from a source in memory.

One module, longer than others: all of it is about one class.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bert_checkpoint import checkpoint, converted
from localplane_server.errors import (
    AlreadyExistsError,
    ArchiveRefusedError,
    DigestMismatchError,
    DownloadFailedError,
    InstallFailedError,
    InsufficientStorageError,
    InvalidArgumentError,
    LocalplaneError,
)
from localplane_server.gallery.entry import GalleryFile
from localplane_server.gallery.installs import installation
from localplane_server.gallery.installs.request import InstallRequest
from localplane_server.jobs.progress import FileStage, JobProgress
from staged_source import digest
from workshop import Workshop, packed


def configuration(workshop: Workshop, name: str) -> Any:
    return yaml.safe_load((workshop.root / f"{name}.yaml").read_text())


class TestInstall:
    async def test_everything(self, workshop: Workshop) -> None:
        """Files, configuration and gallery file are there, the model is listed, and nothing is left over."""
        done = await workshop.install(**workshop.model("tiny"))

        assert ["._gallery_tiny.yaml", "tiny.gguf", "tiny.yaml"] == workshop.files()
        assert b"GGUF weights" == (workshop.root / "tiny.gguf").read_bytes()
        assert ["tiny"] == workshop.models()
        assert [] == workshop.staged()
        assert ("tiny", "llama", 12) == (done.name, done.backend, done.fetched_bytes)
        assert set(workshop.files()) == set(done.files)
        assert not done.was_loaded

    async def test_sub_folder(self, workshop: Workshop) -> None:
        """A file may be in a folder below the models folder."""
        file = workshop.file("llama-cpp/models/x/x.gguf", b"GGUF")

        await workshop.install(config_file={"name": "x"}, files=[file])

        assert "llama-cpp/models/x/x.gguf" in workshop.files()

    async def test_two_of_one_artifact(self, workshop: Workshop) -> None:
        """Two files of one artifact are told apart by their names."""
        uri = "oci://ghcr.io/o/m:1"
        for name in ("a.gguf", "b.gguf"):
            workshop.source.offer(f"{uri}#?{name}", name.encode())

        await workshop.install(
            config_file={"name": "x"},
            files=[{"filename": f"x/{name}", "uri": uri} for name in ("a.gguf", "b.gguf")],
        )

        assert b"a.gguf" == (workshop.root / "x/a.gguf").read_bytes()
        assert b"b.gguf" == (workshop.root / "x/b.gguf").read_bytes()

    async def test_without_configuration(self, workshop: Workshop) -> None:
        """Without configuration and overrides there is only the gallery file, and no model."""
        workshop.source.offer("https://host/base.yaml", b"name: base")

        await workshop.install(url="https://host/base.yaml", files=[workshop.file("x.bin", b"x")])

        assert ["._gallery_base.yaml", "x.bin"] == workshop.files()
        assert [] == workshop.models()

    async def test_templates(self, workshop: Workshop) -> None:
        """Prompt templates are written under their own names."""
        workshop.source.offer(
            "https://host/base.yaml",
            b"name: base\nconfig_file: 'backend: llama'\n"
            b"prompt_templates: [{name: chat, content: 'say {{.Input}}'}]",
        )

        await workshop.install(url="https://host/base.yaml")

        assert "say {{.Input}}" == (workshop.root / "chat.tmpl").read_text()

    async def test_progress(self, workshop: Workshop) -> None:
        """What is told never goes back, counts all files, and ends with everything done."""
        request = workshop.model("tiny", b"GGUF" * 1000)
        request["files"].append(workshop.file("more.bin", b"x" * 1000))

        await workshop.install(**request)

        told = workshop.told
        assert sorted(one.done_bytes for one in told) == [one.done_bytes for one in told]
        assert (5000, 5000) == (told[-1].done_bytes, told[-1].total_bytes)
        assert {FileStage.DONE} == {one.stage for one in told[-1].files}
        phases = list(dict.fromkeys(one.phase for one in told))
        assert ["resolving", "verifying", "downloading", "publishing"] == phases


class TestAgain:
    async def test_whole(self, workshop: Workshop) -> None:
        """A file that is there and whole is not fetched again."""
        await workshop.install(**workshop.model("tiny"))
        fetched = list(workshop.source.fetched)

        done = await workshop.install(**workshop.model("tiny", context_size=64))

        assert fetched == workshop.source.fetched
        assert ("tiny.gguf",) == done.kept
        assert 64 == configuration(workshop, "tiny")["context_size"]

    async def test_damaged(self, workshop: Workshop) -> None:
        """A file with another digest is replaced."""
        await workshop.install(**workshop.model("tiny"))
        (workshop.root / "tiny.gguf").write_bytes(b"GGUF damaged")

        await workshop.install(**workshop.model("tiny"))

        assert b"GGUF weights" == (workshop.root / "tiny.gguf").read_bytes()

    async def test_no_digest(self, workshop: Workshop) -> None:
        """A file of which nobody says what it should be is kept."""
        (workshop.root / "tiny.gguf").write_bytes(b"GGUF mine")
        request = workshop.model("tiny")
        request["files"][0]["sha256"] = ""

        await workshop.install(**request)

        assert b"GGUF mine" == (workshop.root / "tiny.gguf").read_bytes()

    async def test_superseded(self, workshop: Workshop) -> None:
        """Files that only an earlier installation of the name needed go; those that others need stay."""
        for name in ("tiny", "other"):
            request = workshop.model(name)
            request["files"].append(workshop.file("shared.bin", b"shared"))
            await workshop.install(**request)

        new = workshop.model("tiny")
        new["files"] = [workshop.file("new.gguf", b"GGUF new")]
        new["config_file"]["parameters"]["model"] = "new.gguf"
        done = await workshop.install(**new)

        assert ("tiny.gguf",) == done.removed
        assert {"new.gguf", "shared.bin", "other.gguf"} <= set(workshop.files())
        assert "tiny.gguf" not in workshop.files()

    async def test_loaded(self, workshop: Workshop) -> None:
        """A model that is loaded is unloaded, once what the next call is to load is in place."""
        await workshop.install(**workshop.model("tiny"))
        workshop.loaded.models["tiny"] = 1000
        unload = workshop.loaded.unload
        seen: list[int] = []

        async def watched(model: str) -> int | None:
            seen.append(configuration(workshop, "tiny").get("context_size", 0))
            return await unload(model)

        workshop.loaded.unload = watched  # type: ignore[method-assign]

        done = await workshop.install(**workshop.model("tiny", context_size=64))

        assert done.was_loaded
        assert [64] == seen
        assert ["tiny"] == workshop.loaded.unloaded

    async def test_not_unloaded(
        self,
        workshop: Workshop,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """What is in place is installed, even if nothing can be cleared up afterwards."""

        async def failing(*_given: Any, **_options: Any) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(workshop.loaded, "unload", failing)
        monkeypatch.setattr(workshop.source, "discard", failing)

        done = await workshop.install(**workshop.model("tiny"))

        assert not done.was_loaded
        assert ["tiny"] == workshop.models()
        assert 2 == len(caplog.records)


class TestArchives:
    async def test_unpacked(self, workshop: Workshop) -> None:
        """An archive is unpacked beside itself, stays, and what came out of it is written down."""
        archive = packed({"voice.onnx": b"voice", "sub/notes.json": b"{}"})
        done = await workshop.install(
            config_file={"name": "v", "parameters": {"model": "voices/voice.onnx"}},
            files=[workshop.file("voices/v.tar.gz", archive)],
        )

        assert {"voices/v.tar.gz", "voices/voice.onnx", "voices/sub/notes.json"} < set(done.files)
        assert b"voice" == (workshop.root / "voices/voice.onnx").read_bytes()
        assert [] == workshop.staged()

    async def test_again(self, workshop: Workshop) -> None:
        """What is missing of an archive that is there comes back, without a download."""
        file = workshop.file("v.tar.gz", packed({"voice.onnx": b"voice", "x": b"x"}))
        await workshop.install(config_file={"name": "v"}, files=[file])
        (workshop.root / "voice.onnx").unlink()

        done = await workshop.install(config_file={"name": "v"}, files=[file])

        assert b"voice" == (workshop.root / "voice.onnx").read_bytes()
        assert ("v.tar.gz", "x") == done.kept
        assert ["https://host/v.tar.gz"] == workshop.source.fetched

    async def test_file_of_another(self, workshop: Workshop) -> None:
        """An archive does not replace what another model's configuration names."""
        await workshop.install(**workshop.model("tiny"))
        file = workshop.file("v.tar.gz", packed({"tiny.gguf": b"other"}))

        with pytest.raises(AlreadyExistsError, match="a file of tiny"):
            await workshop.install(config_file={"name": "v"}, files=[file])

        assert b"GGUF weights" == (workshop.root / "tiny.gguf").read_bytes()
        assert "v.tar.gz" not in workshop.files()

    async def test_refused(self, workshop: Workshop) -> None:
        """An archive that is refused leaves nothing behind."""
        file = workshop.file("v.tar.gz", packed({"ok": b"x", "../x": b"x"}))

        with pytest.raises(ArchiveRefusedError):
            await workshop.install(config_file={"name": "v"}, files=[file])

        assert [] == workshop.files()
        assert not (workshop.staging.parent / "x").exists()


class TestFailure:
    """Whatever goes wrong: everything is as it was."""

    @pytest.fixture(autouse=True)
    async def before(self, workshop: Workshop) -> None:
        await workshop.install(**workshop.model("tiny"))

    @pytest.fixture(autouse=True)
    async def unchanged(self, workshop: Workshop, before: None) -> Any:
        texts = {name: (workshop.root / name).read_bytes() for name in workshop.files()}
        yield
        assert texts == {name: (workshop.root / name).read_bytes() for name in workshop.files()}
        assert ["tiny"] == workshop.models()
        assert [] == workshop.loaded.unloaded

    def changed(self, workshop: Workshop) -> dict[str, Any]:
        return workshop.model("tiny", b"GGUF new weights", context_size=64)

    async def test_no_source(self, workshop: Workshop) -> None:
        """The second of two files cannot be had."""
        request = self.changed(workshop)
        request["files"].append({"filename": "x", "uri": "https://host/none"})

        with pytest.raises(DownloadFailedError):
            await workshop.install(**request)

    async def test_wrong_digest(self, workshop: Workshop) -> None:
        """A file is not what it should be."""
        request = self.changed(workshop)
        request["files"][0]["sha256"] = digest(b"something else")

        with pytest.raises(DigestMismatchError):
            await workshop.install(**request)

    async def test_folder_in_place(self, workshop: Workshop) -> None:
        """There is a folder in the place of a file."""
        (workshop.root / "x.bin").mkdir()
        request = self.changed(workshop)
        request["files"].append(workshop.file("x.bin", b"x"))

        with pytest.raises(InstallFailedError, match="a folder in the place"):
            await workshop.install(**request)

    async def test_linked_folder(self, workshop: Workshop, tmp_path: Path) -> None:
        """A folder on the way is a link that leads elsewhere."""
        outside = tmp_path / "outside"
        outside.mkdir()
        (workshop.root / "sub").symlink_to(outside)
        request = self.changed(workshop)
        request["files"].append(workshop.file("sub/x.bin", b"x"))

        with pytest.raises(InstallFailedError, match="not a folder of its own"):
            await workshop.install(**request)

        assert [] == list(outside.iterdir())
        (workshop.root / "sub").unlink()

    @pytest.mark.parametrize(
        ("number", "error"),
        [(errno.ENOSPC, InsufficientStorageError), (errno.EIO, InstallFailedError)],
    )
    async def test_disk(
        self,
        workshop: Workshop,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        error: type[LocalplaneError],
    ) -> None:
        """The disk fails when the configuration is to be renamed into its place, last of all."""
        rename = os.rename

        def failing(source: str, target: str, **options: Any) -> None:
            if target == "tiny.yaml":
                raise OSError(number, os.strerror(number))
            rename(source, target, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", failing)
            with pytest.raises(error, match=os.strerror(number)):
                await workshop.install(**self.changed(workshop))

    async def test_cancelled(self, workshop: Workshop) -> None:
        """It is cancelled while a file comes in."""
        workshop.source.stalls_at = "https://host/tiny.gguf"
        task = asyncio.create_task(workshop.install(**self.changed(workshop)))
        await workshop.source.has_stalled.wait()

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_name_of_another(self, workshop: Workshop) -> None:
        """Another configuration has a model of the name, or of an alias like it."""
        other = workshop.root / "other.yaml"
        other.write_text("name: served\naliases: [known]\nbackend: llama\n")
        workshop.catalog.reload()
        for name in ("served", "known"):
            with pytest.raises(AlreadyExistsError, match=r"other\.yaml has a model of the name"):
                await workshop.install(**workshop.model(name))
            with pytest.raises(AlreadyExistsError, match=f"has a model of the name {name}"):
                await workshop.install(
                    name="mine", config_file={"backend": "llama", "aliases": ["my", name]}
                )
        other.unlink()
        workshop.catalog.reload()

    async def test_written_by_hand(self, workshop: Workshop) -> None:
        """Somebody wrote a configuration of the name. It stays, whether or not it can be used."""
        mine = workshop.root / "mine.yaml"
        for text in ("name: mine\nbackend: llama\n", "name: [broken"):
            mine.write_text(text)
            workshop.catalog.reload()
            with pytest.raises(AlreadyExistsError, match=r"mine\.yaml was not installed"):
                await workshop.install(**workshop.model("mine"))
            assert text == mine.read_text()
        mine.unlink()
        workshop.catalog.reload()

    async def test_wrong_configuration(self, workshop: Workshop) -> None:
        """The configuration could not be used once it is there."""
        with pytest.raises(InvalidArgumentError, match="context_size"):
            await workshop.install(id="", config_file={"name": "tiny", "context_size": "many"})


class TestTogether:
    async def test_not_turned_back(
        self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Cancelled while its files are put in place, it ends as if it had not been."""
        make = workshop.changes.make
        task: asyncio.Task[Any]

        async def cancelled_meanwhile(describe: Any, *, model: str) -> None:
            task.cancel()
            await make(describe, model=model)

        monkeypatch.setattr(workshop.changes, "make", cancelled_meanwhile)
        task = asyncio.create_task(workshop.install(**workshop.model("tiny")))

        await asyncio.wait((task,))

        assert ["tiny"] == workshop.models()
        assert not workshop.root.joinpath(".localplane", "x").exists()

    async def test_same_files(self, workshop: Workshop) -> None:
        """Models that share files are installed at the same time."""
        requests = []
        for number in range(10):
            request = workshop.model(f"m{number}")
            request["files"].append(workshop.file("shared.bin", b"shared"))
            requests.append(request)

        await asyncio.gather(*(workshop.install(**one) for one in requests))

        assert [f"m{number}" for number in range(10)] == workshop.models()
        assert b"shared" == (workshop.root / "shared.bin").read_bytes()
        assert [] == workshop.staged()

    async def test_staged_file_taken(
        self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A staged file that another installation took meanwhile is fetched again."""
        fetch = workshop.source.fetch
        taken: list[str] = []

        async def stolen(uri: str, **options: Any) -> Any:
            staged = await fetch(uri, **options)
            if not taken:
                staged.path.unlink()
                taken.append(uri)
            return staged

        monkeypatch.setattr(workshop.source, "fetch", stolen)

        await workshop.install(**workshop.model("tiny"))

        assert ["tiny"] == workshop.models()
        assert 2 == len(workshop.source.fetched)

    async def test_cancelled_before_again(
        self, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Cancelled while its files are put in place, which fails, it does not fetch them again."""
        make = workshop.changes.make
        task: asyncio.Task[Any]

        async def taken_meanwhile(describe: Any, *, model: str) -> None:
            for path in workshop.staged():
                os.unlink(path)  # noqa: PTH108 - of few bytes
            task.cancel()
            await make(describe, model=model)

        monkeypatch.setattr(workshop.changes, "make", taken_meanwhile)
        task = asyncio.create_task(workshop.install(**workshop.model("tiny")))

        await asyncio.wait((task,))

        assert task.cancelled()
        assert ["https://host/tiny.gguf"] == workshop.source.fetched

    async def test_same_model(self, workshop: Workshop) -> None:
        """One that turns out to be the model that another installs waits for it, and says so; then a deletion does."""
        url = "https://host/tiny.yaml"
        workshop.source.offer(url, b"name: tiny\nbackend: whisper\n")
        request = workshop.model("tiny")
        request["files"].append(workshop.file("slow.bin", b"slow"))
        workshop.source.stalls_at = "https://host/slow.bin"
        first = asyncio.create_task(workshop.install(**request))
        await workshop.source.has_stalled.wait()
        told: list[JobProgress] = []
        second = asyncio.create_task(
            workshop.installer.install(InstallRequest(config_url=url), told.append)
        )
        await reached(lambda: [one.phase for one in told] == ["resolving", "waiting"])
        third = asyncio.create_task(workshop.remover.delete("tiny", told.append))
        await reached(lambda: workshop.turns._wanted == {"tiny": 3})
        before = workshop.files()
        workshop.source.go_on.set()
        async with asyncio.timeout(10):
            backends = [(await first).backend, (await second).backend]
            removed = (await third).removed

        assert [] == before
        assert ["llama", "whisper"] == backends
        assert ("._gallery_tiny.yaml", "tiny.yaml") == removed
        assert [] == workshop.models()


class TestConversion:
    @pytest.fixture
    def made(self) -> bytes:
        """What comes out of a checkpoint."""
        return converted()

    def add(self, workshop: Workshop, sha256: str) -> None:
        sources = tuple(
            GalleryFile(
                filename=name,
                uri=f"https://host/{name}",
                sha256=workshop.source.offer(f"https://host/{name}", content),
            )
            for name, content in checkpoint().items()
        )
        workshop.gallery.add(
            "sentences",
            config_file={"backend": "llama", "embeddings": True},
            files=(
                GalleryFile(
                    filename="made.gguf",
                    uri=sources[0].uri,
                    sha256=sha256,
                    convert="bert-gguf",
                    title="tiny",
                    sources=sources,
                ),
            ),
        )

    async def test_made(self, workshop: Workshop, made: bytes) -> None:
        """A file is made of what is fetched for it, and its sources are thrown away."""
        self.add(workshop, digest(made))

        await workshop.install(id="sentences")

        assert made == (workshop.root / "made.gguf").read_bytes()
        assert [] == workshop.staged()
        told = workshop.told[-1]
        assert told.done_bytes == told.total_bytes

    async def test_there(self, workshop: Workshop, made: bytes) -> None:
        """One that is there is neither made nor fetched again."""
        self.add(workshop, digest(made))
        await workshop.install(id="sentences")
        fetched = len(workshop.source.fetched)

        await workshop.install(id="sentences")

        assert fetched == len(workshop.source.fetched)

    async def test_something_else(self, workshop: Workshop) -> None:
        """When something else comes out, nothing is installed."""
        self.add(workshop, digest(b"something else"))

        with pytest.raises(InstallFailedError, match="comes out with SHA-256"):
            await workshop.install(id="sentences")

        assert [] == workshop.files()


async def reached(is_so: Callable[[], bool]) -> None:
    """Return once something is so."""
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0)


async def test_discard(workshop: Workshop) -> None:
    """What was fetched of an installation that was cancelled is thrown away by its address and digest."""
    request = workshop.model("tiny")

    await workshop.installer.discard(InstallRequest.from_json(request))

    assert [("https://host/tiny.gguf", digest(b"GGUF weights"))] == workshop.source.discarded


async def test_discard_of_what_is_known(workshop: Workshop) -> None:
    """What was being fetched is known: nothing is looked up again when that is thrown away."""
    url = "https://host/tiny.yaml"
    workshop.source.offer(url, b"name: tiny\nbackend: llama\n")
    request = {"config_url": url, "files": [workshop.file("tiny.gguf", b"GGUF weights")]}
    workshop.source.stalls_at = "https://host/tiny.gguf"
    task = asyncio.create_task(workshop.install(**request))
    await workshop.source.has_stalled.wait()
    task.cancel()
    await asyncio.wait((task,))

    await workshop.installer.discard(InstallRequest.from_json(request))

    assert [url] == workshop.source.read_documents
    assert ["https://host/tiny.gguf"] == [uri for uri, _ in workshop.source.discarded]


async def test_discard_does_not_wait(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation is cancelled since its source does not answer: nobody waits for that once more."""

    async def silent(_uri: str, **_options: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(workshop.source, "read", silent)
    monkeypatch.setattr(installation, "LOOK_SECONDS", 0.01)
    request = InstallRequest(config_url="https://host/tiny.yaml")

    async with asyncio.timeout(10):
        await workshop.installer.discard(request)

    assert [] == workshop.source.discarded


async def test_forgotten_once_it_failed(workshop: Workshop) -> None:
    """An installation that was stopped and cannot be taken up again is nothing to remember."""
    url = "https://host/tiny.yaml"
    workshop.source.offer(url, b"name: tiny\nbackend: llama\n")
    request = {"config_url": url, "files": [workshop.file("tiny.gguf", b"GGUF weights")]}
    workshop.source.stalls_at = "https://host/tiny.gguf"
    task = asyncio.create_task(workshop.install(**request))
    await workshop.source.has_stalled.wait()
    task.cancel()
    await asyncio.wait((task,))
    remembered = len(workshop.installer._stopped)
    del workshop.source.contents[url]

    with pytest.raises(DownloadFailedError):
        await workshop.install(**request)

    assert (1, 0) == (remembered, len(workshop.installer._stopped))
