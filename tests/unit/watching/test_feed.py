"""Following what changes."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localplane_server.errors import DrainingError, TooManyRequestsError
from localplane_server.watching.feed import Batch, BatchKind, Feed
from localplane_server.watching.revision import Revision

Watch = AsyncGenerator[Batch[str, int]]


class Replica:
    """What a watcher knows, by the one rule that the API states."""

    def __init__(self) -> None:
        self.state: dict[str, int] = {}
        self.place: Revision | None = None

    def take(self, batch: Batch[str, int]) -> None:
        if batch.kind is not BatchKind.CHANGES:
            self.state.clear()
        self.state |= batch.changed
        for key in batch.removed:
            self.state.pop(key, None)
        self.place = batch.revision


async def nothing_comes(watch: Watch) -> None:
    """Fail when a watcher is told something, and end it."""
    reading = asyncio.ensure_future(anext(watch))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not reading.done()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


class TestBatches:
    async def test_snapshot_then_changes(self) -> None:
        """First everything there is, in the order in which it changed; then each change."""
        feed = Feed[str, int](epoch="e")
        feed.put("b", 1)
        feed.put("a", 1)
        async with aclosing(feed.watch()) as watch:
            first = await anext(watch)
            feed.put("a", 2)
            second = await anext(watch)
            feed.remove("b")
            third = await anext(watch)

        assert BatchKind.SNAPSHOT is first.kind
        assert ([("b", 1), ("a", 1)], "e-2") == (list(first.changed.items()), str(first.revision))
        assert (BatchKind.CHANGES, {"a": 2}, []) == (second.kind, second.changed, second.removed)
        assert ({}, ["b"], "e-4") == (third.changed, third.removed, str(third.revision))

    async def test_first_batch_comes_at_once(self) -> None:
        """A watcher knows that it watches even where there is nothing."""
        feed = Feed[str, int]()
        async with aclosing(feed.watch()) as watch:
            first = await anext(watch)
        async with aclosing(feed.watch(first.revision)) as watch:
            again = await anext(watch)

        assert (BatchKind.SNAPSHOT, {}) == (first.kind, first.changed)
        assert (BatchKind.CHANGES, {}, []) == (again.kind, again.changed, again.removed)

    async def test_what_is_the_same_is_no_change(self) -> None:
        """Neither an equal value nor the removal of nothing wakes anybody."""
        feed = Feed[str, int]()
        feed.put("a", 1)
        async with aclosing(feed.watch()) as watch:
            before = (await anext(watch)).revision
            feed.put("a", 1)
            feed.remove("b")
            await nothing_comes(watch)

        assert before == feed.revision

    async def test_changes_are_joined(self) -> None:
        """A thousand changes of one value are one to who reads after them."""
        feed = Feed[str, int]()
        async with aclosing(feed.watch()) as watch:
            await anext(watch)
            for number in range(1000):
                feed.put("a", number)
            feed.put("b", 0)
            feed.remove("b")
            batch = await anext(watch)

        assert ({"a": 999}, ["b"]) == (batch.changed, batch.removed)

    async def test_selection(self) -> None:
        """Who watches a few hears of those alone, and his place moves on all the same."""
        feed = Feed[str, int](remembered_removals=1)
        feed.put("a", 1)
        feed.put("other", 1)
        async with aclosing(feed.watch(select={"a"}.__contains__)) as watch:
            assert {"a": 1} == (await anext(watch)).changed
            feed.put("other", 2)
            feed.remove("other")
            await nothing_comes(watch)


class TestResume:
    def test_where_it_was(self) -> None:
        """Only what changed since, removals included."""
        feed = Feed[str, int]()
        for key in "abc":
            feed.put(key, 1)
        place = feed.revision
        feed.put("b", 2)
        feed.remove("c")
        batch = feed.since(place)

        assert (BatchKind.CHANGES, {"b": 2}, ["c"]) == (batch.kind, batch.changed, batch.removed)

    @pytest.mark.parametrize("place", [Revision("other", 1), Revision("e", 3)])
    def test_another_life(self, place: Revision) -> None:
        """A revision of another epoch, or one that was not yet, gets everything anew."""
        feed = Feed[str, int](epoch="e")
        feed.put("a", 1)
        batch = feed.since(place)

        assert (BatchKind.RESYNC, {"a": 1}) == (batch.kind, batch.changed)

    def test_too_old(self) -> None:
        """So does one from before the removals that are remembered; the first that still is does not."""
        feed = Feed[str, int](remembered_removals=2)
        places = []
        for key in "abc":
            feed.put(key, 1)
            places.append(feed.revision)
            feed.remove(key)

        assert BatchKind.RESYNC is feed.since(places[0]).kind
        assert (BatchKind.CHANGES, ["b", "c"]) == (
            feed.since(places[1]).kind,
            feed.since(places[1]).removed,
        )

    def test_epochs_differ(self) -> None:
        """Each life of a feed has a name of its own."""
        assert Feed[str, int]().revision.epoch != Feed[str, int]().revision.epoch


class TestSlowWatchers:
    async def test_resync(self) -> None:
        """One that read nothing for too long is told so and given everything."""
        feed = Feed[str, int](remembered_removals=10)
        async with aclosing(feed.watch()) as slow, aclosing(feed.watch()) as quick:
            await anext(slow)
            await anext(quick)
            for number in range(100):
                feed.put(f"k{number}", number)
                await anext(quick)
                feed.remove(f"k{number}")
                assert [f"k{number}"] == (await anext(quick)).removed
            feed.put("last", 1)
            batch = await anext(slow)

            assert (BatchKind.RESYNC, {"last": 1}) == (batch.kind, batch.changed)
            feed.put("last", 2)
            assert BatchKind.CHANGES is (await anext(slow)).kind

    async def test_memory(self) -> None:
        """A hundred that never read cost the feed nothing however much is published."""
        feed = Feed[str, int](remembered_removals=100)
        watches = [feed.watch() for _ in range(100)]
        for watch in watches:
            await anext(watch)

        def publish(keys: range) -> None:
            for number in keys:
                feed.put(f"k{number % 500}", number)
                feed.remove(f"k{(number + 250) % 500}")

        publish(range(2_000))
        with traced() as grown:
            publish(range(2_000, 100_000))
            size = grown()
        for watch in watches:
            await watch.aclose()

        assert size < 200_000


@contextmanager
def traced() -> Iterator[type]:
    """Measure by how many bytes the memory grows."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    try:
        yield lambda: tracemalloc.get_traced_memory()[0] - before  # type: ignore[misc]  # it is called
    finally:
        tracemalloc.stop()


class TestEnds:
    async def test_limit(self) -> None:
        """One more than may watch is refused, and let in once another has gone."""
        feed = Feed[str, int](most_watchers=1)
        async with aclosing(feed.watch()) as first:
            await anext(first)
            with pytest.raises(TooManyRequestsError) as caught:
                await anext(feed.watch())
        async with aclosing(feed.watch()) as second:
            await anext(second)

            assert {"limit": "1"} == caught.value.metadata
            assert 1 == feed.watchers
        assert 0 == feed.watchers

    async def test_cancelled(self) -> None:
        """A watcher whose task is cancelled leaves nothing behind."""
        feed = Feed[str, int]()

        async def follow() -> None:
            async with aclosing(feed.watch()) as watch:
                async for _ in watch:
                    pass

        task = asyncio.create_task(follow())
        while not feed.watchers:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))

        assert task.cancelled()
        assert 0 == feed.watchers

    async def test_close(self) -> None:
        """All who watch are told that the service stops, whether they wait or not; nobody else may begin."""
        feed = Feed[str, int]()
        waiting, suspended = feed.watch(), feed.watch()
        await anext(suspended)
        await anext(waiting)
        reading = asyncio.ensure_future(anext(waiting))
        await asyncio.sleep(0)
        feed.close()

        for one in (reading, anext(suspended), anext(feed.watch())):
            with pytest.raises(DrainingError):
                await one
        assert 0 == feed.watchers


KEYS = st.sampled_from("abcd")
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.integers(0, 2)),
    st.tuples(st.just("remove"), KEYS),
    st.tuples(st.just("read"), st.integers(0, 2)),
    st.tuples(st.just("cut"), st.integers(0, 2)),
    st.tuples(st.just("restart")),
)


@settings(deadline=None, max_examples=300)
@given(steps=st.lists(STEPS, max_size=60), remembered=st.integers(0, 3))
def test_any_interleaving(steps: list[tuple[object, ...]], remembered: int) -> None:
    """However publishing, reading, cuts and restarts follow each other: who has read all knows what there is.

    And whatever a watcher was told last is the whole truth of that revision.
    """
    asyncio.run(_interleave(steps, remembered))


async def _interleave(steps: list[tuple[object, ...]], remembered: int) -> None:
    feed = Feed[str, int](remembered_removals=remembered)
    source: dict[str, int] = {}
    truths = {feed.revision: dict(source)}
    replicas = [Replica() for _ in range(3)]
    watches: list[Watch | None] = [None, None, None]

    async def read(number: int) -> None:
        replica = replicas[number]
        watch = watches[number]
        if watch is None:
            watch = watches[number] = feed.watch(replica.place)
            replica.take(await anext(watch))
        elif replica.place != feed.revision:
            replica.take(await anext(watch))
        assert replica.place == feed.revision
        assert truths[feed.revision] == replica.state

    async def cut(number: int) -> None:
        watch, watches[number] = watches[number], None
        if watch is not None:
            await watch.aclose()

    for name, *values in steps:
        match name, values:
            case "put", [str(key), int(value)]:
                feed.put(key, value)
                source[key] = value
            case "remove", [str(key)]:
                feed.remove(key)
                source.pop(key, None)
            case "read", [int(number)]:
                await read(number)
            case "cut", [int(number)]:
                await cut(number)
            case "restart", []:
                for number in range(3):
                    await cut(number)
                feed = Feed[str, int](remembered_removals=remembered)
                source.clear()
        truths.setdefault(feed.revision, dict(source))
        assert truths[feed.revision] == source
    for number in range(3):
        await read(number)
        assert source == replicas[number].state
        await cut(number)
    assert 0 == feed.watchers
