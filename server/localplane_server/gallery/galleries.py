"""The galleries that models come from: the configured ones, with what callers changed of them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from localplane_server.errors import (
    GalleryExistsError,
    GalleryNotFoundError,
    InvalidArgumentError,
    ModelNotInGalleryError,
)
from localplane_server.gallery.blocking import uninterrupted
from localplane_server.gallery.entry import GalleryEntry
from localplane_server.gallery.index import Index, key_of
from localplane_server.gallery.index_cache import IndexCache
from localplane_server.gallery.source import (
    GallerySource,
    IndexReader,
    Patience,
    Run,
    SourceState,
)
from localplane_server.gallery_setting import (
    BUILTIN_GALLERY,
    BUILTIN_URL,
    GallerySetting,
    WrongGalleryError,
    check_gallery,
)
from localplane_server.state.gallery_records import GalleryRow

MOST_GALLERIES = 100
CHECK_SECONDS = 3.0
"""How long it may take to find out whether a URL leads where it may not."""

BUILTIN = GallerySetting(BUILTIN_GALLERY, BUILTIN_URL)


class GalleryRecords(Protocol):
    """Where changes of the galleries are kept. Implemented in `localplane_server.state`."""

    async def all(self) -> Sequence[GalleryRow]:
        """Return them, the oldest first."""

    async def put(self, row: GalleryRow) -> None:
        """Keep what became of a gallery, behind the others."""

    async def remove(self, name: str) -> None:
        """Forget what became of a gallery."""


class CheckSource(Protocol):
    """Tells where a URL may not lead. Implemented by `localplane_server.downloads`."""

    async def __call__(self, uri: str, /) -> None:
        """Raise SourceRefusedError if nothing may be fetched from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What all galleries offer together."""

    indexes: tuple[Index, ...]
    """What was read, in the order of the galleries."""
    revision: str
    """Another one whenever anything of it is another."""


class Galleries:
    """The galleries, in the order in which a model is looked for in them.

    The built-in one comes first, then the configured ones, then what callers added. Nothing is
    fetched before somebody asks for a model.

    Args:
        configured: Galleries of the settings.
        records: Keeps what callers change.
        reader: Fetches indexes.
        check: Refuses URLs that lead where they may not.
        folder: For the last good copies of indexes.
        run: Runs what outlives the call that began it.
        offline: Whether nothing is to be fetched from elsewhere.
        patience: How long things may take.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        configured: Iterable[GallerySetting],
        *,
        records: GalleryRecords,
        reader: IndexReader,
        check: CheckSource,
        folder: Path,
        run: Run,
        offline: bool = False,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._configured = _with_builtin(configured)
        self._records = records
        self._reader = reader
        self._check = check
        self._cache = IndexCache(folder)
        self._run = run
        self._offline = offline
        self._patience = patience or Patience()
        self._clock = clock
        self._sources: dict[str, GallerySource] = {}
        self._offer = Offer(indexes=(), revision="")
        # Held while a change is written down, so that two changes do not cross.
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Read what callers changed. To be called once, before anything else."""
        for setting in self._configured:
            self._sources[setting.name.lower()] = self._source(setting)
        for row in await self._records.all():
            # Behind the others, also when it takes the place of a configured one.
            self._sources.pop(row.name.lower(), None)
            if row.url is not None:
                setting = GallerySetting(row.name, row.url, row.mirrors)
                self._sources[row.name.lower()] = self._source(setting)

    def close(self) -> None:
        """Stop fetching."""
        for source in self._sources.values():
            source.close()

    def states(self) -> list[SourceState]:
        """Return what is known of each gallery."""
        return [source.state() for source in self._sources.values()]

    async def add(self, setting: GallerySetting) -> None:
        """Add a gallery for good, and begin to read it.

        Raises:
            InvalidArgumentError: If it cannot be one, or there are too many.
            SourceRefusedError: If it is where nothing may be fetched from.
            GalleryExistsError: If there is one of this name.
        """
        try:
            check_gallery(setting)
        except WrongGalleryError as error:
            message = f"cannot add gallery: {error}"
            raise InvalidArgumentError(message, field=error.field) from error
        key = setting.name.lower()
        if key in self._sources:
            raise GalleryExistsError(setting.name)
        if not setting.is_builtin:
            for url in (setting.url, *setting.mirrors):
                await self._check_source(url)
        async with self._changing:
            if key in self._sources:
                raise GalleryExistsError(setting.name)
            if len(self._sources) >= MOST_GALLERIES:
                message = f"cannot add gallery: there are {MOST_GALLERIES} already"
                raise InvalidArgumentError(message)
            source = self._source(setting)
            await uninterrupted(self._keep(key, source))
        source.begin()

    async def remove(self, name: str) -> None:
        """Remove a gallery for good.

        Raises:
            GalleryNotFoundError: If there is none of this name.
        """
        key = name.lower()
        async with self._changing:
            source = self._sources.get(key)
            if source is None:
                raise GalleryNotFoundError(name)
            await uninterrupted(self._drop(key, source))
        await source.end()
        url = source.setting.url
        if all(url != one.setting.url for one in self._sources.values()):
            await asyncio.to_thread(self._cache.remove, url)

    async def find(self, name: str) -> GalleryEntry:
        """Return the entry that is meant by `gallery@name` or by a bare name.

        Case does not matter, and `/` may be written `__`. Of galleries that have a bare name the
        first one, in their order, is meant. A gallery that was never read is waited for.

        Raises:
            ModelNotInGalleryError: If there is none. The error tells of galleries that could have
                it and cannot be read.
        """
        sources, key = self._meant(name)
        unread = []
        is_offline = False
        for source in sources:
            index = await source.index()
            if index is None:
                unread.append(f"{source.setting.name} ({source.state().error or 'not read yet'})")
                is_offline |= self._offline and not source.setting.url.startswith("file:")
            elif key in index.by_key:
                return index.by_key[key]
        raise ModelNotInGalleryError(name, "; ".join(unread), is_offline=is_offline)

    def at_hand(self, name: str) -> GalleryEntry | None:
        """Return the entry that `find` would return, or None when there is none or a gallery is still to be read."""
        sources, key = self._meant(name)
        for source in sources:
            state = source.state()
            if state.index is not None and key in state.index.by_key:
                return state.index.by_key[key]
            if state.index is None and not state.error:
                return None
        return None

    async def look(self, name: str) -> None:
        """Read the galleries that could have a name for `at_hand`, as far as that can be done within a second."""
        if not name:
            return
        sources, _ = self._meant(name)
        await asyncio.gather(*(source.glance() for source in sources))

    async def offer(self) -> Offer:
        """Return what the galleries offer, as far as it can be had within a second: what comes later is there then."""
        sources = list(self._sources.values())
        indexes = [source.index_at_hand() for source in sources]
        if None in indexes:
            indexes = list(await asyncio.gather(*(source.glance() for source in sources)))
        read = tuple(index for index in indexes if index is not None)
        before = self._offer.indexes
        if len(read) != len(before) or any(a is not b for a, b in zip(read, before, strict=True)):
            self._offer = Offer(indexes=read, revision=_revision(read))
        return self._offer

    def _meant(self, name: str) -> tuple[list[GallerySource], str]:
        """Return where a name is looked for, in order, and its key there."""
        gallery, at, rest = name.partition("@")
        if at and (source := self._sources.get(gallery.lower())) is not None:
            return [source], key_of(rest)
        return list(self._sources.values()), key_of(name)

    async def _keep(self, key: str, source: GallerySource) -> None:
        setting = source.setting
        await self._records.put(GalleryRow(setting.name, setting.url, setting.mirrors))
        self._sources[key] = source

    async def _drop(self, key: str, source: GallerySource) -> None:
        name = source.setting.name
        if any(setting.name.lower() == key for setting in self._configured):
            await self._records.put(GalleryRow(name, None))
        else:
            await self._records.remove(name)
        del self._sources[key]

    async def _check_source(self, url: str) -> None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._check(url)
        except TimeoutError:
            # It is looked at again whenever something is fetched from there.
            return

    def _source(self, setting: GallerySetting) -> GallerySource:
        return GallerySource(
            setting,
            reader=self._reader,
            cache=self._cache,
            run=self._run,
            patience=self._patience,
            offline=self._offline,
            clock=self._clock,
        )


def _with_builtin(configured: Iterable[GallerySetting]) -> tuple[GallerySetting, ...]:
    settings = tuple(configured)
    return settings if BUILTIN in settings else (BUILTIN, *settings)


def _revision(indexes: Iterable[Index]) -> str:
    digest = hashlib.sha256()
    for index in indexes:
        digest.update(f"{index.gallery}\0{index.url}\0{index.sha256}\0".encode())
    return digest.hexdigest()
