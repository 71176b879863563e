"""What can be followed: values by key, with a revision for each change.

A feed keeps no queue of messages, for nobody. It keeps the values in the order in which they last changed, and the
removals of late. Where a watcher stands is one number, and what it misses are the values behind that number, each once
and as it is now. So a watcher that is slow holds up nobody, takes no memory, and finds many changes of one value joined
to one. Only removals are forgotten; a watcher from before the oldest one that is still remembered is given everything
anew.
"""

from __future__ import annotations

import enum
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from localplane_server.errors import DrainingError, TooManyRequestsError
from localplane_server.watching.revision import Revision
from localplane_server.watching.signal import Signal

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST_WATCHERS = 256
"""Watchers of one feed. Each holds a call, and over REST a connection."""
REMEMBERED_REMOVALS = 1024
"""Removals that can be told to who was away meanwhile."""


class BatchKind(enum.Enum):
    """How a batch is to be read."""

    SNAPSHOT = "snapshot"
    """Everything there is, at the begin."""
    RESYNC = "resync"
    """Everything there is, in place of what was known: it is not known any more what changed since."""
    CHANGES = "changes"
    """What changed since the batch before, or since the place where the watcher had been."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Generic[K, V]):
    """What a watcher is told at once. Taking all batches in turn gives the state of the feed."""

    kind: BatchKind
    """Whether it replaces what was known."""
    revision: Revision
    """Where the watcher stands after it."""
    changed: dict[K, V]
    """New and changed values, in the order in which they changed."""
    removed: list[K]
    """Keys that are gone, in that order. Some may never have been told of."""


class Feed(Generic[K, V]):
    """Values that can be followed. It belongs to one event loop; publishing never waits."""

    def __init__(
        self,
        *,
        epoch: str | None = None,
        most_watchers: int = MOST_WATCHERS,
        remembered_removals: int = REMEMBERED_REMOVALS,
    ) -> None:
        """Begin empty.

        Args:
            epoch: Names this life of the feed, in digits and small letters. Default: random.
            most_watchers: How many may watch at once.
            remembered_removals: How many removals are remembered.
        """
        self._epoch = epoch or secrets.token_hex(6)
        self._most_watchers = most_watchers
        self._remembered_removals = remembered_removals
        self._number = 0
        # Both by the time of the change, the last one last.
        self._values: OrderedDict[K, tuple[int, V]] = OrderedDict()
        self._removed: OrderedDict[K, int] = OrderedDict()
        self._forgotten = 0
        self._watchers = 0
        self._signal = Signal()
        self._is_closed = False

    @property
    def revision(self) -> Revision:
        """Where the feed stands."""
        return Revision(self._epoch, self._number)

    @property
    def watchers(self) -> int:
        """How many watch."""
        return self._watchers

    def get(self, key: K) -> V | None:
        """Return a value, or None when there is none."""
        found = self._values.get(key)
        return found[1] if found else None

    def put(self, key: K, value: V) -> None:
        """Publish a value. One that equals the present one is no change."""
        present = self._values.get(key)
        if present is not None and present[1] == value:
            return
        self._number += 1
        self._removed.pop(key, None)
        self._values[key] = (self._number, value)
        self._values.move_to_end(key)
        self._signal.set()

    def remove(self, key: K) -> None:
        """Publish that a value is gone. One that is not there is no change."""
        if self._values.pop(key, None) is None:
            return
        self._number += 1
        self._removed[key] = self._number
        while len(self._removed) > self._remembered_removals:
            _, self._forgotten = self._removed.popitem(last=False)
        self._signal.set()

    def since(
        self, revision: Revision | None, select: Callable[[K], bool] | None = None
    ) -> Batch[K, V]:
        """Return what leads from a revision to now.

        Args:
            revision: Where the watcher stands. None: nowhere yet.
            select: Which keys to tell of. Default: all.
        """
        if revision is None:
            return self._everything(BatchKind.SNAPSHOT, select)
        is_known = revision.epoch == self._epoch and revision.number <= self._number
        if not is_known or revision.number < self._forgotten:
            return self._everything(BatchKind.RESYNC, select)
        changed: dict[K, V] = {}
        for key, (number, value) in reversed(self._values.items()):
            if number <= revision.number:
                break
            if select is None or select(key):
                changed[key] = value
        removed: list[K] = []
        for key, number in reversed(self._removed.items()):
            if number <= revision.number:
                break
            if select is None or select(key):
                removed.append(key)
        return Batch(
            kind=BatchKind.CHANGES,
            revision=self.revision,
            changed=dict(reversed(changed.items())),
            removed=removed[::-1],
        )

    async def watch(
        self, after: Revision | None = None, *, select: Callable[[K], bool] | None = None
    ) -> AsyncGenerator[Batch[K, V]]:
        """Yield what there is, then what changes, until the feed is closed.

        The first batch comes at once, also when it has nothing in it; later ones always have something.

        Args:
            after: Where the watcher stood when it last watched. Default: nowhere.
            select: Which keys to tell of. Default: all.

        Raises:
            DrainingError: If the feed is closed, now or later.
            TooManyRequestsError: If too many watch already.
        """
        self._check_open()
        if self._watchers >= self._most_watchers:
            message = f"cannot watch: there are {self._watchers} watchers, which is the most"
            raise TooManyRequestsError(message, limit=str(self._most_watchers))
        self._watchers += 1
        try:
            batch = self.since(after, select)
            yield batch
            place = batch.revision
            while True:
                while self._number == place.number:
                    self._check_open()
                    await self._signal.wait()
                self._check_open()
                batch = self.since(place, select)
                place = batch.revision
                if batch.changed or batch.removed or batch.kind is not BatchKind.CHANGES:
                    yield batch
        finally:
            self._watchers -= 1

    def close(self) -> None:
        """End all watching, now and from now on: the service stops."""
        self._is_closed = True
        self._signal.set()

    def _check_open(self) -> None:
        if self._is_closed:
            raise DrainingError("the service is stopping")

    def _everything(self, kind: BatchKind, select: Callable[[K], bool] | None) -> Batch[K, V]:
        values = self._values.items()
        return Batch(
            kind=kind,
            revision=self.revision,
            changed={key: value for key, (_, value) in values if select is None or select(key)},
            removed=[],
        )
