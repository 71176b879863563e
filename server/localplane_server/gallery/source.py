"""One gallery: its index, and how it is kept up to date."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from localplane_server.downloads.addresses import shown
from localplane_server.downloads.progress import Document, Validators
from localplane_server.errors import LocalplaneError
from localplane_server.gallery.blocking import uninterrupted
from localplane_server.gallery.builtin import builtin_index
from localplane_server.gallery.index import (
    MOST_INDEX_BYTES,
    Index,
    UnreadableIndexError,
    parse_index,
)
from localplane_server.gallery.index_cache import IndexCache, IndexCopy
from localplane_server.gallery_setting import GallerySetting, WrongGalleryError, check_gallery

log = logging.getLogger(__name__)

MOST_REFERENCE_BYTES = 4096
"""Size of a file that holds nothing but the URL of the index."""


class IndexReader(Protocol):
    """Where indexes come from. Implemented by `localplane_server.downloads`."""

    async def read(
        self, uri: str, *, most_bytes: int, validators: Validators | None = None
    ) -> Document | None:
        """Fetch a document; None when it is still what the validators stand for."""


class Run(Protocol):
    """How to run what outlives the call that began it."""

    def __call__(self, coroutine: Coroutine[Any, Any, None], /) -> asyncio.Task[None]:
        """Run a coroutine in a task of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long things last and may take, in seconds."""

    fresh: float = 3600.0
    """How old an index may get before it is fetched again."""
    failed: float = 600.0
    """How long a source that failed is left alone."""
    fetch: float = 60.0
    """How long one source may take."""
    wait: float = 5.0
    """How long an installation waits for an index of which there is no copy."""
    glance: float = 1.0
    """How long whoever asks what there is waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """What is known of a gallery."""

    setting: GallerySetting
    index: Index | None
    """What it offers. None when it was never read."""
    read_at: datetime | None
    """When that was fetched or confirmed last. None when it came with the package, too."""
    source: str
    """URL that it came from. Empty when there is none."""
    error: str
    """Why it could not be read when that was tried last. Empty when it could."""
    is_reading: bool
    """Whether it is being read now."""


class GallerySource:
    """Reads the index of one gallery: at first from the last good copy, and again when it gets old.

    Whoever asks gets what there is at once, and waits, for a little while, only when there is nothing
    yet. Fetching is done once for all who ask, and goes on when they leave.

    Args:
        setting: The gallery.
        reader: Fetches indexes.
        cache: Keeps the last good copy.
        run: Runs the fetching.
        patience: How long things may take.
        offline: Whether nothing is to be fetched from elsewhere.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        setting: GallerySetting,
        *,
        reader: IndexReader,
        cache: IndexCache,
        run: Run,
        patience: Patience,
        offline: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.setting = setting
        """The gallery."""
        self._reader = reader
        self._cache = cache
        self._run = run
        self._patience = patience
        self._offline = offline
        self._clock = clock
        self._index: Index | None = None
        self._copy: IndexCopy | None = None
        self._error = ""
        self._has_looked = False
        self._next_try = 0.0
        self._began = 0.0
        self._failed_until: dict[str, float] = {}
        self._causes: dict[str, str] = {}
        self._refresh: asyncio.Task[None] | None = None

    def state(self) -> SourceState:
        """Return what is known now."""
        return SourceState(
            setting=self.setting,
            index=self._index,
            read_at=self._copy.fetched_at if self._copy else None,
            source=self._copy.source if self._copy else "",
            error=self._error,
            is_reading=self._refresh is not None,
        )

    def index_at_hand(self) -> Index | None:
        """Return the index if nobody need wait for it; fetching it again begins if it is old."""
        if self._index is not None:
            self._begin_refresh()
        return self._index

    async def index(self) -> Index | None:
        """Return the index, the last good copy of it, or None when it cannot be had in time."""
        return await self._index_within(self._patience.wait)

    async def glance(self) -> Index | None:
        """Return the index as `index` does, for one who would rather have none than wait. Reading it goes on."""
        return await self._index_within(self._patience.glance)

    async def _index_within(self, seconds: float) -> Index | None:
        self._begin_refresh()
        if self._index is None and self._refresh is not None:
            # Those who come later wait no longer than the first: a slow gallery holds up nobody twice.
            left = self._began + seconds - self._clock()
            if left > 0:
                await asyncio.wait([self._refresh], timeout=left)
        return self._index

    async def end(self) -> None:
        """Stop fetching, and return once nothing is written any more."""
        refresh = self._refresh
        self.close()
        if refresh is not None:
            await asyncio.wait([refresh])

    def close(self) -> None:
        """Stop fetching."""
        if self._refresh is not None:
            self._refresh.cancel()

    def begin(self) -> None:
        """Begin to read the index, if it was not read lately."""
        self._begin_refresh()

    def _begin_refresh(self) -> None:
        if self._refresh is None and self._clock() >= self._next_try:
            self._began = self._clock()
            self._refresh = self._run(self._refreshed())
            self._refresh.add_done_callback(self._refresh_ended)

    def _refresh_ended(self, _: asyncio.Task[None]) -> None:
        self._refresh = None

    async def _refreshed(self) -> None:
        # Set at first: whatever goes wrong below, it is not tried again at once.
        self._next_try = self._clock() + self._patience.failed
        if self.setting.is_builtin:
            self._index = await asyncio.to_thread(builtin_index)
            self._next_try = float("inf")
            return
        if not self._has_looked:
            await self._look_at_copy()
            self._has_looked = True
        if self._copy is not None and self._age() < self._patience.fresh:
            self._next_try = self._clock() + self._patience.fresh - self._age()
            return
        if await self._fetched():
            self._error = ""
            self._next_try = self._clock() + self._patience.fresh
            return
        self._error = "; ".join(self._causes.values())
        log.warning(
            "cannot read a gallery", extra={"gallery": self.setting.name, "cause": self._error}
        )

    def _age(self) -> float:
        if self._copy is None:
            return float("inf")
        age = (datetime.now(UTC) - self._copy.fetched_at).total_seconds()
        # A clock that was set back makes no copy fresh for ever.
        return age if age >= 0 else float("inf")

    async def _look_at_copy(self) -> None:
        copy = await asyncio.to_thread(self._cache.read, self.setting.url)
        if copy is None:
            return
        try:
            self._index = await self._parsed(copy.content)
            self._copy = copy
        except UnreadableIndexError as error:
            log.warning(
                "a copy of a gallery's index cannot be used",
                extra={"gallery": self.setting.name, "cause": str(error)},
            )

    async def _fetched(self) -> bool:
        """Fetch the index from the first source that has it, and tell whether one had."""
        for url in (self.setting.url, *self.setting.mirrors):
            if self._clock() < self._failed_until.get(url, 0.0):
                continue
            try:
                await self._fetch(url)
            except (LocalplaneError, UnreadableIndexError, TimeoutError, OSError) as error:
                self._failed_until[url] = self._clock() + self._patience.failed
                self._causes[url] = f"{shown(url)}: {_cause(error, self._patience.fetch)}"
            else:
                self._causes.clear()
                self._failed_until.clear()
                return True
        return False

    async def _fetch(self, url: str) -> None:
        if self._offline and not url.startswith("file:"):
            raise UnreadableIndexError("the service is offline")
        async with asyncio.timeout(self._patience.fetch):
            copy = self._copy
            known = copy.validators if copy is not None and copy.source == url else None
            where = await self._referred(url)
            document = await self._reader.read(where, most_bytes=MOST_INDEX_BYTES, validators=known)
        now = datetime.now(UTC)
        if document is None:
            if copy is None:
                raise UnreadableIndexError("the server says that it is unchanged, and nobody asked")
            kept = IndexCopy(
                content=copy.content,
                source=url,
                validators=copy.validators,
                fetched_at=now,
            )
        else:
            if not document.content.strip():
                # Somebody who means that there is nothing writes [].
                raise UnreadableIndexError("it is empty")
            index = await self._parsed(document.content)
            kept = IndexCopy(
                content=document.content,
                source=url,
                validators=document.validators,
                fetched_at=now,
            )
            self._index = index
        self._copy = kept
        # Whoever removes the gallery removes the copy after that.
        await uninterrupted(asyncio.to_thread(self._cache.write, self.setting.url, kept))

    async def _parsed(self, content: bytes) -> Index:
        """Parse an index, unless it is the one that is there."""
        setting, before = self.setting, self._index

        def parse() -> Index:
            if before is not None and before.is_of(content):
                return before
            return parse_index(content, gallery=setting.name, url=setting.url)

        return await asyncio.to_thread(parse)

    async def _referred(self, url: str) -> str:
        """Return where the index is: elsewhere, if the path ends in `.ref` and holds a URL."""
        if not url.partition("?")[0].endswith(".ref"):
            return url
        document = await self._reader.read(url, most_bytes=MOST_REFERENCE_BYTES)
        where = document.content.decode(errors="replace").strip() if document else ""
        try:
            check_gallery(GallerySetting("referred", where))
        except WrongGalleryError as error:
            raise UnreadableIndexError(f"it refers to no index: {error}") from error
        if self._offline or (where.startswith("file:") and not url.startswith("file:")):
            raise UnreadableIndexError("it refers to where it may not lead")
        return where


def _cause(error: Exception, seconds: float) -> str:
    if isinstance(error, LocalplaneError):
        return error.message
    if isinstance(error, TimeoutError):
        return f"it took longer than {seconds:g} seconds"
    return str(error) or type(error).__name__
