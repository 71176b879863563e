"""The galleries: what is configured, what callers change, and what is found in them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from localplane_server.downloads.progress import Document, Validators
from localplane_server.errors import (
    DownloadFailedError,
    GalleryExistsError,
    GalleryNotFoundError,
    InvalidArgumentError,
    ModelNotInGalleryError,
    SourceRefusedError,
)
from localplane_server.gallery.galleries import BUILTIN, MOST_GALLERIES, Galleries
from localplane_server.gallery.source import Patience
from localplane_server.gallery_setting import GallerySetting
from localplane_server.state.gallery_records import GalleryRow

A = GallerySetting("a", "https://a/index.yaml")
B = GallerySetting("B", "https://b/index.yaml", ("https://mirror/b",))


class Records:
    """Keeps what callers change, in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, GalleryRow] = {}

    async def all(self) -> list[GalleryRow]:
        return list(self.rows.values())

    async def put(self, row: GalleryRow) -> None:
        self.rows.pop(row.name.lower(), None)
        self.rows[row.name.lower()] = row

    async def remove(self, name: str) -> None:
        self.rows.pop(name.lower(), None)


class Reader:
    """Has some indexes."""

    def __init__(self) -> None:
        self.indexes: dict[str, str] = {}
        self.held: dict[str, asyncio.Event] = {}

    async def read(self, uri: str, **_: Any) -> Document | None:
        if uri in self.held:
            await self.held[uri].wait()
        if uri not in self.indexes:
            raise DownloadFailedError(uri, "not there")
        return Document(self.indexes[uri].encode(), Validators())


class World:
    """Galleries, and what is around them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = Records()
        self.reader = Reader()
        self.checked: list[str] = []
        self.check: Any = self.take_note
        self.glance_seconds = 10.0

    async def take_note(self, uri: str) -> None:
        self.checked.append(uri)

    async def start(self, *configured: GallerySetting, offline: bool = False) -> Galleries:
        galleries = Galleries(
            configured,
            records=self.records,
            reader=self.reader,
            check=self.check,
            folder=self.folder,
            run=asyncio.create_task,
            offline=offline,
            patience=Patience(wait=10, glance=self.glance_seconds),
        )
        await galleries.load()
        return galleries


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Nothing is configured yet."""
    return World(tmp_path)


def names(galleries: Galleries) -> list[str]:
    return [state.setting.name for state in galleries.states()]


class TestChanges:
    async def test_configured(self, world: World) -> None:
        """The built-in one comes first, unless the settings put it elsewhere."""
        assert ["localplane", "a", "B"] == names(await world.start(A, B))
        assert ["a", "localplane"] == names(await world.start(A, BUILTIN))

    async def test_added(self, world: World) -> None:
        """A gallery that was added is behind the others, also after a restart, and its URLs were looked at."""
        galleries = await world.start(A)
        await galleries.add(B)

        assert ["localplane", "a", "B"] == names(galleries)
        assert [B.url, *B.mirrors] == world.checked
        again = await world.start(A)
        assert [BUILTIN, A, B] == [state.setting for state in again.states()]

    async def test_taken(self, world: World) -> None:
        """Case does not make another name."""
        galleries = await world.start(A)
        with pytest.raises(GalleryExistsError):
            await galleries.add(GallerySetting("A", "https://elsewhere/x"))

        assert [] == world.checked

    async def test_two_at_once(self, world: World) -> None:
        """Of two that add one name at the same time, one is told that it is taken."""
        galleries = await world.start()
        outcomes = await asyncio.gather(galleries.add(B), galleries.add(B), return_exceptions=True)

        assert 1 == sum(isinstance(outcome, GalleryExistsError) for outcome in outcomes)
        assert ["localplane", "B"] == names(galleries)

    async def test_removed(self, world: World) -> None:
        """Whatever was removed stays away, also what is configured or built in, until it is added again."""
        galleries = await world.start(A)
        await galleries.add(B)
        for name in ("b", "A", "LOCALPLANE"):
            await galleries.remove(name)
        assert [] == names(galleries)
        again = await world.start(A)
        assert [] == names(again)
        await again.add(A)
        await again.add(BUILTIN)

        assert ["a", "localplane"] == names(await world.start(A))

    async def test_unknown(self, world: World) -> None:
        """What is not there cannot be removed."""
        with pytest.raises(GalleryNotFoundError):
            await (await world.start()).remove("nope")

    async def test_refused(self, world: World) -> None:
        """What cannot be one is refused with the field; what leads where it may not, too; nothing is kept."""
        galleries = await world.start()
        with pytest.raises(InvalidArgumentError) as caught:
            await galleries.add(GallerySetting("a b", A.url))
        assert "name" == caught.value.field

        async def refuse(uri: str) -> None:
            raise SourceRefusedError(uri, "private")

        world.check = refuse
        galleries = await world.start()
        with pytest.raises(SourceRefusedError):
            await galleries.add(A)
        assert {} == world.records.rows

    async def test_too_many(self, world: World) -> None:
        """There is an end to them."""
        galleries = await world.start()
        for number in range(MOST_GALLERIES - 1):
            await galleries.add(GallerySetting(f"g{number}", f"https://host/{number}"))
        with pytest.raises(InvalidArgumentError, match="already"):
            await galleries.add(A)

    async def test_a_caller_who_leaves(self, world: World) -> None:
        """A change that is being written down when its caller leaves is made as a whole."""
        galleries = await world.start()
        writing, may_go_on = asyncio.Event(), asyncio.Event()
        put = world.records.put

        async def slow(row: GalleryRow) -> None:
            await put(row)
            writing.set()
            await may_go_on.wait()

        world.records.put = slow  # type: ignore[method-assign]
        adding = asyncio.create_task(galleries.add(A))
        await writing.wait()
        adding.cancel()
        may_go_on.set()
        await asyncio.wait([adding])

        assert ["localplane", "a"] == names(galleries)

    async def test_copies_go(self, world: World) -> None:
        """With the last gallery of a URL goes the copy of its index."""
        world.reader.indexes[A.url] = "- name: one\n"
        galleries = await world.start(A)
        await galleries.add(GallerySetting("twin", A.url))
        assert "a" == (await galleries.find("one")).gallery
        # Both galleries keep it, each when it has read it.
        await galleries.offer()
        async with asyncio.timeout(10):
            while len(copies := [*world.folder.iterdir()]) != 1:
                await asyncio.sleep(0.01)
        (copy,) = copies
        await galleries.remove("a")
        assert copy.exists()
        await galleries.remove("twin")

        assert not copy.exists()

    async def test_a_change_that_cannot_be_kept(self, world: World) -> None:
        """Nothing is as if it had been changed."""

        async def fail(row: GalleryRow) -> None:
            raise OSError(row)

        world.records.put = fail  # type: ignore[method-assign]
        galleries = await world.start(A)
        with pytest.raises(OSError, match="B"):
            await galleries.add(B)
        with pytest.raises(OSError, match="a"):
            await galleries.remove("a")

        assert ["localplane", "a"] == names(galleries)


class TestFind:
    @pytest.mark.parametrize(
        ("asked", "found"),
        [
            ("one", "a@one"),
            ("ONE", "a@one"),
            ("b@one", "B@one"),
            ("A@One", "a@one"),
            ("org/two", "B@org/two"),
            ("org__two", "B@org/two"),
            ("b@ORG__two", "B@org/two"),
            ("three@q4", "B@three@q4"),
            ("smollm2", "localplane@smollm2"),
        ],
    )
    async def test_names(self, world: World, asked: str, found: str) -> None:
        """Galleries count in their order, case does not, and / may be written __."""
        world.reader.indexes = {
            A.url: "- {name: one}\n",
            B.url: "- {name: One}\n- {name: org/two}\n- {name: three@q4}\n",
        }
        entry = await (await world.start(A, B)).find(asked)

        assert found.lower() == entry.id.lower()

    @pytest.mark.parametrize("asked", ["", "@", "a@", "a@org/two", "nope", "nope@one", "\0"])
    async def test_not_there(self, world: World, asked: str) -> None:
        """The error has the name as it was given."""
        world.reader.indexes = {A.url: "- {name: one}\n", B.url: "- {name: org/two}\n"}
        with pytest.raises(ModelNotInGalleryError) as caught:
            await (await world.start(A, B)).find(asked)

        assert {"model": asked} == caught.value.metadata

    async def test_unread(self, world: World) -> None:
        """It may be in a gallery that cannot be read, and the error tells of that one."""
        world.reader.indexes = {A.url: "- {name: one}\n"}
        galleries = await world.start(A, B)
        with pytest.raises(ModelNotInGalleryError) as caught:
            await galleries.find("two")

        assert not caught.value.is_offline
        assert "not there" in caught.value.metadata["unread"]
        assert "B" in caught.value.message
        assert "one" == (await galleries.find("one")).name

    async def test_offline(self, world: World) -> None:
        """What may be in a gallery that must not be read now may be there later; what is in none will not."""
        galleries = await world.start(A, offline=True)
        told = []
        for name in ("two", "localplane@two"):
            with pytest.raises(ModelNotInGalleryError) as caught:
                await galleries.find(name)
            told.append(caught.value.is_offline)

        assert [True, False] == told


async def test_removed_while_its_copy_is_written(world: World) -> None:
    """Nothing is left of a gallery that goes as soon as it is there."""
    world.reader.indexes = {A.url: "- {name: one}\n"}
    for _ in range(20):
        galleries = await world.start()
        await galleries.add(A)
        async with asyncio.timeout(10):
            while galleries.states()[-1].index is None:
                await asyncio.sleep(0)
        await galleries.remove("a")

        assert [] == [path for path in world.folder.rglob("*") if path.is_file()]


class TestAtHand:
    async def test_known(self, world: World) -> None:
        """What was read is what would be found; before that, and where there is none, there is nothing."""
        world.reader.indexes = {A.url: "- {name: one}\n", B.url: "- {name: One}\n- {name: two}\n"}
        galleries = await world.start(A, B)
        before = galleries.at_hand("one")
        await galleries.look("one")

        assert before is None
        for name in ("one", "A@ONE", "b@one", "two"):
            assert await galleries.find(name) is galleries.at_hand(name)
        assert galleries.at_hand("three") is None

    async def test_one_that_is_read_later(self, world: World) -> None:
        """As long as a gallery that counts first may have a bare name, nobody knows what that means."""
        world.reader.indexes = {A.url: "- {name: one}\n", B.url: "- {name: one}\n"}
        world.reader.held[A.url] = asyncio.Event()
        world.glance_seconds = 0.05
        galleries = await world.start(A, B)
        await galleries.find("B@one")
        await galleries.find("smollm2")
        await galleries.look("one")
        meanwhile = (galleries.at_hand("one"), galleries.at_hand("B@one"))
        await galleries.look("")
        world.reader.held[A.url].set()
        found = await galleries.find("one")

        assert meanwhile[0] is None
        assert meanwhile[1] is not None
        assert found is galleries.at_hand("one")
        assert "a@one" == found.id

    async def test_one_that_cannot_be_read(self, world: World) -> None:
        """A gallery that could not be read is passed over, as it is when a model is looked for."""
        world.reader.indexes = {B.url: "- {name: one}\n"}
        galleries = await world.start(A, B)
        await galleries.look("one")
        found = galleries.at_hand("one")

        assert found is not None
        assert "B@one" == found.id


class TestOffer:
    async def test_not_waited_for(self, world: World) -> None:
        """A gallery that does not answer is left out until it does, and told to be read meanwhile."""
        world.reader.indexes = {A.url: "- {name: one}\n", B.url: "- {name: two}\n"}
        world.reader.held[A.url] = asyncio.Event()
        world.glance_seconds = 0.05
        galleries = await world.start(A, B)
        await galleries.find("B@two")
        await galleries.find("smollm2")
        offered = [[one.gallery for one in (await galleries.offer()).indexes]]
        reading = [(one.setting.name, one.is_reading) for one in galleries.states()]
        world.reader.held[A.url].set()
        await galleries.find("A@one")
        offered.append([one.gallery for one in (await galleries.offer()).indexes])

        assert [["localplane", "B"], ["localplane", "a", "B"]] == offered
        assert [("localplane", False), ("a", True), ("B", False)] == reading

    async def test_all_that_can_be_read(self, world: World) -> None:
        """One gallery that fails costs the others nothing."""
        world.reader.indexes = {B.url: "- {name: one}\n- {url: bad}\n"}
        offer = await (await world.start(A, B)).offer()

        assert [["smollm2", "minilm"], ["one"]] == [
            [entry.name for entry in index.entries] for index in offer.indexes
        ]

    async def test_revision(self, world: World) -> None:
        """It is the same as long as what is offered is, also after a restart, and another one after a change."""
        world.reader.indexes = {A.url: "- {name: one}\n", B.url: "- {name: one}\n"}
        galleries = await world.start(A)
        first = await galleries.offer()
        assert await galleries.offer() is first
        assert first.revision == (await (await world.start(A)).offer()).revision
        await galleries.add(B)
        second = await galleries.offer()
        await galleries.remove("B")

        assert first.revision != second.revision
        assert first.revision == (await galleries.offer()).revision
