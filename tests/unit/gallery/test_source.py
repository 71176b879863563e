"""How the index of a gallery is kept up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from localplane_server.downloads.progress import Document, Validators
from localplane_server.errors import DownloadFailedError
from localplane_server.gallery.index_cache import IndexCache
from localplane_server.gallery.source import GallerySource, Patience, SourceState
from localplane_server.gallery_setting import BUILTIN_GALLERY, BUILTIN_URL, GallerySetting

URL, MIRROR = "https://host/index.yaml", "https://mirror/index.yaml"
ONE, TWO = b"- name: one\n", b"- name: one\n- name: two\n"
PATIENCE = Patience(fresh=100, failed=10, fetch=30, wait=0.05)

Answer = Callable[[Validators | None], Awaitable[Document | None]]


class Reader:
    """Answers as it is told, and knows what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Validators | None]] = []

    async def read(
        self, uri: str, *, most_bytes: int, validators: Validators | None = None
    ) -> Document | None:
        self.asked.append((uri, validators))
        answer = self.answers.get(uri, DownloadFailedError(uri, "not there"))
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            return Document(ONE, Validators())
        if isinstance(answer, bytes):
            return Document(answer, Validators())
        if validators == answer.validators:
            return None
        found: Document = answer
        return found


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class World:
    """A source, and what is around it."""

    def __init__(self, folder: Path) -> None:
        self.reader = Reader()
        self.clock = Clock()
        self.folder = folder
        self.source = self.new()

    def new(self, setting: GallerySetting | None = None, **options: Any) -> GallerySource:
        """Make a source, as another start of the service does."""
        self.source = GallerySource(
            setting or GallerySetting("g", URL, (MIRROR,)),
            reader=self.reader,
            cache=IndexCache(self.folder),
            run=asyncio.create_task,
            clock=self.clock,
            **{"patience": PATIENCE, "offline": False, **options},
        )
        return self.source

    async def names(self) -> list[str] | None:
        """What it offers, once whatever goes on has ended."""
        await self.source.index()
        await self.settled()
        index = self.source.index_at_hand()
        return None if index is None else [entry.name for entry in index.entries]

    async def settled(self) -> None:
        """Wait until nothing goes on."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)

    @property
    def state(self) -> SourceState:
        return self.source.state()

    def asked(self) -> list[str]:
        """What was fetched since this was asked last."""
        urls = [url for url, _ in self.reader.asked]
        self.reader.asked.clear()
        return urls


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A source that was never read."""
    return World(tmp_path)


async def test_read_once(world: World) -> None:
    """An index is fetched when it is first asked for, and kept for as long as it is fresh."""
    world.reader.answers[URL] = ONE

    assert world.state.index is None
    assert ["one"] == await world.names()
    assert ["one"] == await world.names()
    assert [URL] == world.asked()
    assert (URL, "") == (world.state.source, world.state.error)


async def test_old_index_is_given_at_once(world: World) -> None:
    """Whoever asks for an old one gets it, while it is fetched again."""
    world.reader.answers[URL] = ONE
    await world.names()
    gate = world.reader.answers[URL] = asyncio.Event()
    world.clock.seconds += 101
    world.source._copy = None  # as if it had been fetched long ago by the calendar, too

    index = await asyncio.wait_for(world.source.index(), 1)
    assert index is not None
    assert ["one"] == [entry.name for entry in index.entries]
    gate.set()
    await world.settled()
    assert [URL, URL] == world.asked()


async def test_conditional(world: World) -> None:
    """The server is asked whether it changed; if not, the very same index stays."""
    world.reader.answers[URL] = Document(ONE, Validators('"1"', "then"))
    await world.names()
    before = world.source.index_at_hand()
    read_at = world.state.read_at
    world.clock.seconds += 101
    world.reader.asked.clear()
    # The copy is as old as the calendar says.
    copy = world.source._copy
    assert copy is not None
    object.__setattr__(copy, "fetched_at", copy.fetched_at.replace(year=2020))
    await world.names()

    assert [(URL, Validators('"1"', "then"))] == world.reader.asked
    assert world.source.index_at_hand() is before
    assert world.state.read_at is not None
    assert read_at is not None
    assert world.state.read_at >= read_at


async def test_mirrors_in_their_order(world: World) -> None:
    """A mirror takes over when the source fails, and the source is then left alone for a while."""
    world.reader.answers[MIRROR] = ONE

    assert ["one"] == await world.names()
    assert [URL, MIRROR] == world.asked()
    assert (MIRROR, "") == (world.state.source, world.state.error)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (DownloadFailedError("x", "it broke off"), "it broke off"),
        (b"<!doctype html><html>", "web page"),
        (b"\n", "it is empty"),
        (b"a: [", "no YAML"),
    ],
)
async def test_failure(world: World, answer: object, cause: str) -> None:
    """A source that fails is told with the cause, left alone for a while, and tried again after it."""
    world.reader.answers[URL] = answer

    assert await world.names() is None
    assert cause in world.state.error
    assert MIRROR in world.state.error
    assert await world.names() is None
    assert [URL, MIRROR] == world.asked()

    world.clock.seconds += 11
    world.reader.answers[URL] = TWO
    assert ["one", "two"] == await world.names()
    assert "" == world.state.error


async def test_last_good_copy(world: World) -> None:
    """After a restart, and while nothing can be fetched, there is what was there before."""
    world.reader.answers[URL] = TWO
    await world.names()
    world.reader.answers.clear()
    world.asked()
    world.new()

    assert ["one", "two"] == await world.names()
    assert [] == world.asked(), "it is fresh"

    world.new(patience=Patience(fresh=0, failed=10, fetch=30, wait=5))
    assert ["one", "two"] == await world.names()
    assert [URL, MIRROR] == world.asked()
    assert "not there" in world.state.error
    assert URL == world.state.source


async def test_damage_does_not_replace_a_good_copy(world: World) -> None:
    """What comes and is no index leaves the one before, here and on disk."""
    world.reader.answers[URL] = ONE
    await world.names()
    world.new(patience=Patience(fresh=0, failed=10, fetch=30, wait=5))
    world.reader.answers[URL] = b"<html>"
    assert ["one"] == await world.names()
    assert "web page" in world.state.error
    world.new()

    assert ["one"] == await world.names()


async def test_slow(world: World) -> None:
    """Nobody waits long for what takes long; those who ask later wait no more; it comes all the same."""
    gate = world.reader.answers[URL] = asyncio.Event()
    assert await world.source.index() is None
    world.clock.seconds += 1
    assert await asyncio.wait_for(world.source.index(), 1) is None
    assert [URL] == world.asked()
    gate.set()

    assert ["one"] == await world.names()


async def test_single_flight(world: World) -> None:
    """All who ask at the same time wait for one fetch, which goes on when one of them leaves."""
    world.new(patience=Patience(wait=30))
    gate = world.reader.answers[URL] = asyncio.Event()
    callers = [asyncio.create_task(world.source.index()) for _ in range(20)]
    while not world.reader.asked:
        await asyncio.sleep(0)
    callers[0].cancel()
    gate.set()
    found = await asyncio.gather(*callers[1:])

    assert [URL] == world.asked()
    assert all(index is found[0] is not None for index in found)


async def test_too_slow(world: World) -> None:
    """A source that never answers is given up, and the mirror asked."""
    world.new(patience=Patience(fetch=0.01, wait=30))
    world.reader.answers[URL] = asyncio.Event()
    world.reader.answers[MIRROR] = ONE

    assert ["one"] == await world.names()


async def test_glance(world: World) -> None:
    """Who only looks what there is does not wait for a source that stalls; reading goes on, and is told."""
    world.new(patience=Patience(wait=30, glance=0.01))
    gate = world.reader.answers[URL] = asyncio.Event()

    assert await world.source.glance() is None
    assert (True, "") == (world.state.is_reading, world.state.error)
    gate.set()
    assert ["one"] == await world.names()
    assert not world.state.is_reading
    assert world.state.index is await world.source.glance()


async def test_offline(world: World) -> None:
    """Nothing is fetched, and the error says why; a copy is used, however old."""
    world.reader.answers[URL] = ONE
    world.new(offline=True)
    assert await world.names() is None
    assert "offline" in world.state.error
    assert [] == world.asked()

    world.new()
    await world.names()
    world.asked()
    world.new(offline=True, patience=Patience(fresh=0))
    assert ["one"] == await world.names()
    assert [] == world.asked()


async def test_offline_files(world: World) -> None:
    """A file of this machine is no other machine."""
    world.reader.answers["file:///models/index.yaml"] = ONE
    world.new(GallerySetting("g", "file:///models/index.yaml"), offline=True)

    assert ["one"] == await world.names()


async def test_builtin(world: World) -> None:
    """What comes with the package is there without fetching."""
    world.new(GallerySetting(BUILTIN_GALLERY, BUILTIN_URL), offline=True)

    names = await world.names()
    assert names is not None
    assert {"smollm2", "minilm"} <= set(names)
    assert [] == world.asked()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"https://host/real.yaml\n", ""),
        (b"file:///etc/passwd", "may not lead"),
        (b"", "refers to no index"),
        (b"ftp://host/x", "refers to no index"),
        (b"https://u:p@host/x", "refers to no index"),
        (b"builtin://localplane", "refers to no index"),
        (b"\xff\xfe", "refers to no index"),
    ],
)
async def test_references(world: World, content: bytes, cause: str) -> None:
    """A URL that ends in .ref holds the URL of the index, which must be one."""
    reference = "https://host/index.ref?x=1"
    world.reader.answers |= {
        reference: content,
        "https://host/real.yaml": ONE,
        "file:///etc/passwd": ONE,
    }
    world.new(GallerySetting("g", reference))
    names = await world.names()

    assert (["one"] if not cause else None) == names
    assert cause in world.state.error


async def test_closed(world: World) -> None:
    """A stop ends what is being fetched."""
    world.reader.answers[URL] = asyncio.Event()
    await world.source.index()
    world.source.close()
    await world.settled()

    assert world.state.index is None


async def test_query_is_not_told(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is in the query of a URL, which may be a key, is in no error and no line of the log."""
    url = f"{URL}?key=secret"
    (tmp_path / "no-folder").write_text("")
    world.folder = tmp_path / "no-folder"
    world.new(GallerySetting("g", url))
    world.reader.answers[url] = DownloadFailedError(URL, "not there")
    await world.names()
    assert f"{URL}: " in world.state.error

    world.reader.answers[url] = ONE
    world.clock.seconds += 1000
    assert ["one"] == await world.names()
    told = [str(vars(record)) for record in caplog.records]
    assert 2 <= len(told)
    assert "secret" not in "".join([world.state.error, *told])
