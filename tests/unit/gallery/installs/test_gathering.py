"""Files of a recipe come side by side, wholly or not at all, and tell how far they are."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bert_checkpoint import checkpoint, converted
from localplane_server.downloads.progress import FileFacts, FileProgress, Phase, StagedFile
from localplane_server.errors import DownloadFailedError, SourceRefusedError
from localplane_server.gallery.entry import GalleryFile
from localplane_server.gallery.installs import archives, gathering
from localplane_server.gallery.installs.download_places import DownloadPlaces
from localplane_server.gallery.installs.gathering import Gathered, Gatherer, Told
from localplane_server.gallery.installs.models_folder import ModelsFolder
from localplane_server.jobs.progress import MOST_PERCENT, FileStage, JobProgress
from staged_source import StagedSource, digest
from workshop import packed


class SlowSource(StagedSource):
    """A source whose files come piece by piece, when they are told to."""

    def __init__(self, staging: Path) -> None:
        super().__init__(staging)
        self.coming: list[str] = []
        """URIs of files that come at the moment."""
        self.most = 0
        """How many came at a time."""
        self.changed = asyncio.Condition()
        self.allowed: dict[str, int] = {}
        """How many tenths of each may come; all of what is not named."""
        self.fails: set[str] = set()
        self.cancelled: list[str] = []

    async def fetch(
        self,
        uri: str,
        *,
        sha256: str = "",
        report: Callable[[FileProgress], None] = lambda _progress: None,
    ) -> StagedFile:
        content = self._content(uri)
        self.coming.append(uri)
        self.most = max(self.most, len(self.coming))
        try:
            await self._tell()
            for tenth in range(1, 11):
                async with self.changed:
                    await self.changed.wait_for(
                        lambda tenth=tenth: self.allowed.get(uri, 10) >= tenth  # type: ignore[misc]
                    )
                if uri in self.fails:
                    raise DownloadFailedError(uri, "it broke")
                done = len(content) * tenth // 10
                report(FileProgress(Phase.DOWNLOADING, done, len(content)))
                await asyncio.sleep(0)
            staged = await super().fetch(uri, sha256=sha256)
            report(FileProgress(Phase.DONE, len(content), len(content)))
        except asyncio.CancelledError:
            self.cancelled.append(uri)
            raise
        else:
            return staged
        finally:
            self.coming.remove(uri)
            await self._tell()

    async def allow(self, uri: str, tenths: int) -> None:
        self.allowed[uri] = tenths
        await self._tell()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(is_so)

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()


class Bench:
    """Gathers files from a slow source."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        self.models.mkdir()
        self.folder = folder
        self.source = SlowSource(folder / "staging")
        self.places = DownloadPlaces(3)
        self.told: list[JobProgress] = []

    def files(self, *contents: bytes, prefix: str = "f") -> list[GalleryFile]:
        """Have files, and return what a recipe says of them."""
        found = []
        for number, content in enumerate(contents):
            uri = f"https://host/{prefix}{number}"
            sha256 = self.source.offer(uri, content)
            found.append(GalleryFile(filename=f"{prefix}{number}", uri=uri, sha256=sha256))
        return found

    async def gather(self, files: list[GalleryFile], name: str = "preparing") -> Gathered:
        preparing = self.folder / name
        preparing.mkdir()
        gatherer = Gatherer(ModelsFolder(self.models), self.source, self.places)
        return await gatherer.gather(files, preparing, Told(files, self.told.append))

    def check_told(self) -> None:
        """What is told never goes back and never says that all is done."""
        done = [one.done_bytes for one in self.told]
        percent = [one.percent for one in self.told]
        assert sorted(done) == done
        assert sorted(percent) == percent
        assert max(percent) == MOST_PERCENT
        for before, after in zip(self.told, self.told[1:], strict=False):
            known = {one.name: one.done_bytes for one in before.files}
            assert all(one.done_bytes >= known.get(one.name, 0) for one in after.files)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A place to gather files in."""
    return Bench(tmp_path)


CONTENTS = [bytes([number]) * 1000 * (number + 1) for number in range(8)]


class TestSideBySide:
    async def test_all(self, bench: Bench) -> None:
        """So many at a time as there are places; all come, in the order of the recipe, with exact sums."""
        files = bench.files(*CONTENTS)

        gathered = await bench.gather(files)

        assert 3 == bench.source.most
        assert [one.filename for one in files] == list(gathered.fetched)
        assert CONTENTS == [path.read_bytes() for path in gathered.fetched.values()]
        assert sum(map(len, CONTENTS)) == gathered.fetched_bytes
        last = bench.told[-1]
        assert gathered.fetched_bytes == last.done_bytes == last.total_bytes
        bench.check_told()

    async def test_by_file(self, bench: Bench) -> None:
        """While several come, of each is told how far it is, and those that wait are told to wait."""
        files = bench.files(*[bytes(1000)] * 4)
        for number, tenths in enumerate((2, 5, 7)):
            bench.source.allowed[files[number].uri] = tenths
        task = asyncio.create_task(bench.gather(files))
        await bench.source.until(lambda: 3 == len(bench.source.coming))
        async with asyncio.timeout(10):
            while [200, 500, 700, 0] != [one.done_bytes for one in bench.told[-1].files]:
                await asyncio.sleep(0)

        told = bench.told[-1]
        assert (1400, 4000, 35.0) == (told.done_bytes, told.total_bytes, told.percent)
        assert [FileStage.DOWNLOADING] * 3 + [FileStage.QUEUED] == [one.stage for one in told.files]
        for one in files:
            await bench.source.allow(one.uri, 10)
        await task
        bench.check_told()

    async def test_shared_limit(self, bench: Bench) -> None:
        """The places are those of all installations, and a large one does not keep a small one waiting."""
        large = bench.files(*[bytes(100)] * 9, prefix="large")
        small = bench.files(b"x" * 100, prefix="small")
        for one in large:
            bench.source.allowed[one.uri] = 0
        first = asyncio.create_task(bench.gather(large, "one"))
        await bench.source.until(lambda: 3 == len(bench.source.coming))
        second = asyncio.create_task(bench.gather(small, "two"))
        async with asyncio.timeout(10):
            while ("downloading", "small0") != (
                bench.told[-1].phase,
                bench.told[-1].files[0].name,
            ):
                await asyncio.sleep(0)
            for _ in range(5):
                await asyncio.sleep(0)  # and it waits for a place

        await bench.source.allow(large[0].uri, 10)
        await second
        for one in large:
            await bench.source.allow(one.uri, 10)
        await first

        assert 3 == bench.source.most

    async def test_one_place(self, bench: Bench) -> None:
        """With one place, one comes after the other."""
        bench.places = DownloadPlaces(1)

        await bench.gather(bench.files(*CONTENTS))

        assert 1 == bench.source.most


class TestFailure:
    async def test_first(self, bench: Bench) -> None:
        """The first that fails is the error; those that come are ended, those that wait do not begin."""
        files = bench.files(*[bytes(1000)] * 5)
        for one in files[:3]:
            bench.source.allowed[one.uri] = 5
        bench.source.fails = {files[1].uri}
        bench.source.allowed[files[1].uri] = 0
        task = asyncio.create_task(bench.gather(files))
        await bench.source.until(lambda: 3 == len(bench.source.coming))

        await bench.source.allow(files[1].uri, 10)

        with pytest.raises(DownloadFailedError, match="f1: it broke"):
            await task
        assert [files[0].uri, files[2].uri] == sorted(bench.source.cancelled)
        assert [] == bench.source.coming
        assert [] == bench.source.fetched

    async def test_whole_stays(self, bench: Bench) -> None:
        """What was whole before stays staged for the next time."""
        files = bench.files(b"a" * 100, b"b" * 100)
        bench.source.allowed[files[1].uri] = 0
        bench.source.fails = {files[1].uri}
        task = asyncio.create_task(bench.gather(files))
        async with asyncio.timeout(10):
            while [files[0].uri] != bench.source.fetched:
                await asyncio.sleep(0)

        await bench.source.allow(files[1].uri, 10)

        with pytest.raises(DownloadFailedError):
            await task
        staged = [one.read_bytes() for one in (bench.folder / "staging").iterdir()]
        assert [b"a" * 100] == staged
        assert list((bench.folder / "staging").iterdir()) == bench.source.given_back
        assert [] == bench.source.discarded

    async def test_no_facts(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Servers that never tell about files do not keep anybody from fetching them."""
        monkeypatch.setattr(gathering, "MOST_LOOK_SECONDS", 0.01)

        async def facts(_uri: str, **_known: str) -> FileFacts:
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(bench.source, "facts", facts)

        async with asyncio.timeout(10):
            gathered = await bench.gather(bench.files(*[b"x"] * 20))
        assert 20 == len(gathered.fetched)

    async def test_refused(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """If one file may not be fetched, nobody goes on asking about the others."""
        files = bench.files(*[b"x"] * 3)
        asked = []

        async def facts(uri: str, **_known: str) -> FileFacts:
            asked.append(uri)
            if len(asked) == len(files):
                raise SourceRefusedError(uri, "it is not allowed")
            try:
                await asyncio.Event().wait()
            finally:
                asked.remove(uri)
            raise AssertionError

        monkeypatch.setattr(bench.source, "facts", facts)

        with pytest.raises(SourceRefusedError):
            await bench.gather(files)
        assert [files[-1].uri] == asked

    async def test_cancelled(self, bench: Bench) -> None:
        """Cancelling ends all of them, and whoever waits for a place gets it afterwards."""
        files = bench.files(*[bytes(1000)] * 5)
        for one in files:
            bench.source.allowed[one.uri] = 3
        task = asyncio.create_task(bench.gather(files))
        await bench.source.until(lambda: 3 == len(bench.source.coming))
        other = asyncio.create_task(bench.gather(bench.files(b"x", prefix="other"), "other"))

        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        await other
        assert 3 == len(bench.source.cancelled)


class TestShares:
    """Whatever else there is to do than to fetch has its share of the whole."""

    def converting(self, bench: Bench) -> list[GalleryFile]:
        sources = tuple(
            GalleryFile(
                filename=name,
                uri=f"https://host/{name}",
                sha256=bench.source.offer(f"https://host/{name}", content),
                size_bytes=len(content),
            )
            for name, content in checkpoint().items()
        )
        made = converted()
        file = GalleryFile(
            filename="made.gguf",
            uri=sources[0].uri,
            sha256=digest(made),
            size_bytes=len(made),
            convert="bert-gguf",
            title="tiny",
            sources=sources,
        )
        return [file]

    async def test_conversion(self, bench: Bench) -> None:
        """While a file is made, it is told how far that is; what it is made of comes side by side."""
        files = self.converting(bench)

        await bench.gather(files)

        assert 3 == bench.source.most
        bench.check_told()
        made, total = len(converted()), bench.told[-1].total_bytes or 0
        at_work = [one for one in bench.told if one.phase == "converting"]
        assert at_work[0].percent < 100 * (total - made) / total + 1
        assert FileStage.CONVERTING in {one.files[0].stage for one in at_work}
        assert "made.gguf" == at_work[1].current_file

    async def test_made_before(self, bench: Bench) -> None:
        """Of a file that is there nothing is told of what it would be made of."""
        (bench.models / "made.gguf").write_bytes(converted())

        await bench.gather(self.converting(bench))

        assert ["made.gguf"] == [one.name for one in bench.told[-1].files]
        bench.check_told()

    async def test_late_size(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Shares are right, too, if only the download itself tells how large an archive is."""

        async def unknown(uri: str, *, sha256: str = "") -> FileFacts:
            return FileFacts(None, uri, sha256)

        monkeypatch.setattr(bench.source, "facts", unknown)
        uri = "https://host/x.tar.gz"
        sha256 = bench.source.offer(uri, packed({"a": bytes(1000)}))

        await bench.gather([GalleryFile(filename="x.tar.gz", uri=uri, sha256=sha256)])

        bench.check_told()

    async def test_wrong_size(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """What comes counts, not what a server said before."""

        async def wrong(uri: str, **_known: str) -> FileFacts:
            return FileFacts(5000, uri)

        monkeypatch.setattr(bench.source, "facts", wrong)

        await bench.gather(bench.files(bytes(1000), bytes(9000)))

        assert [1000, 9000] == [one.done_bytes for one in bench.told[-1].files]
        assert [1000, 9000] == [one.total_bytes for one in bench.told[-1].files]
        done = [one.done_bytes for one in bench.told]
        assert sorted(done) == done

    async def test_wheel_that_nobody_can_look_into(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file never has more bytes than it is large, though the wheel that comes has."""

        async def unknown(uri: str, **_known: str) -> FileFacts:
            assert sorted(bench.source.needed) == sorted(uris)
            return FileFacts(None, uri, wheel="https://host/a.whl")

        async def fetch(
            uri: str, *, report: Callable[[FileProgress], None], **_: str
        ) -> StagedFile:
            assert sorted(bench.source.needed) == sorted(uris)
            for done in (1000, 9000):
                report(FileProgress(Phase.DOWNLOADING, done, 9000))
            return await StagedSource.fetch(bench.source, uri)

        monkeypatch.setattr(bench.source, "facts", unknown)
        monkeypatch.setattr(bench.source, "fetch", fetch)
        uris = [f"pypi://a==1/{name}" for name in "xy"]
        for uri in uris:
            bench.source.offer(uri, bytes(100))

        await bench.gather([GalleryFile(filename=uri[-1], uri=uri) for uri in uris])

        bench.check_told()
        for told in bench.told:
            assert all(one.done_bytes <= (one.total_bytes or 0) for one in told.files)
        assert (200, 200) == (bench.told[-1].done_bytes, bench.told[-1].total_bytes)
        assert [] == bench.source.needed

    async def test_unpacking(self, bench: Bench, few: None) -> None:
        """While an archive is unpacked, it is told how much of it was; that is half of the work, and no more bytes."""
        content = packed({"a": random.Random(1).randbytes(1 << 20), "b": bytes(500_000)})  # noqa: S311
        uri = "https://host/x.tar.gz"
        sha256 = bench.source.offer(uri, content)

        await bench.gather([GalleryFile(filename="x.tar.gz", uri=uri, sha256=sha256)])

        bench.check_told()
        at_work = [one for one in bench.told if one.phase == "unpacking"]
        assert len(content) == at_work[0].done_bytes == at_work[-1].total_bytes
        assert 50 == at_work[0].percent
        assert "contents of x.tar.gz" == at_work[1].current_file
        assert len({one.percent for one in at_work}) > 3

    @pytest.fixture
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have little written at a time, and so told often."""
        monkeypatch.setattr(archives, "CHUNK_BYTES", 10_000)


def test_unused(bench: Any) -> None:
    """A gatherer without files does nothing."""
    assert Gathered() == asyncio.run(bench.gather([]))
