"""Memory of devices, by the processes that use it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """What one process uses of one device."""

    pid: int
    """The process."""
    name: str
    """Name of the device."""
    address: str | None
    """Its address on the PCI bus."""
    used_bytes: int | None
    """Memory that the process uses there. None when the driver does not tell."""
    total_bytes: int | None
    """All memory of the device. None when the driver does not tell."""

    @property
    def device(self) -> str:
        """What the device is known by."""
        return known_as(self.name, self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """What all processes use of all devices, at one moment."""

    uses: tuple[DeviceUse, ...]
    """Each process on each device."""
    sampled_at: datetime
    """When, in UTC."""
    problems: tuple[str, ...] = ()
    """Why devices, or all of them, are missing."""
    told: frozenset[str] = frozenset()
    """Devices of which every process is known as of now, by what they are known by. Where there is no problem: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """What a process tree uses of one device."""

    name: str
    """Name of the device."""
    address: str | None
    """Its address on the PCI bus."""
    used_bytes: int | None
    """Memory that the tree uses there. None when that of any process is not known."""
    total_bytes: int | None
    """All memory of the device."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Why a figure is None, by the figure's name."""

    @property
    def device(self) -> str:
        """What the device is known by."""
        return known_as(self.name, self.address)


class ReadDevices(Protocol):
    """How devices are read. It does not wait long for them."""

    async def __call__(self) -> DeviceReading:
        """Return what was read, now or a moment ago."""


def known_as(name: str, address: str | None) -> str:
    """Return what a device is known by: its address, or its name where the driver tells no address."""
    return address or name


NOT_TOLD = "the driver does not tell it"


def memory_of(reading: DeviceReading, pids: Collection[int]) -> tuple[DeviceMemory, ...]:
    """Return what processes use together, for each device that lists any of them."""
    by_device: dict[tuple[str, str | None], list[DeviceUse]] = {}
    for use in reading.uses:
        if use.pid in pids:
            by_device.setdefault((use.name, use.address), []).append(use)
    return tuple(_summed(uses) for uses in by_device.values())


def _summed(uses: list[DeviceUse]) -> DeviceMemory:
    known = [use.used_bytes for use in uses if use.used_bytes is not None]
    used = sum(known) if len(known) == len(uses) else None
    first = uses[0]
    figures = {"address": first.address, "used": used, "total": first.total_bytes}
    return DeviceMemory(
        name=first.name,
        address=first.address,
        used_bytes=used,
        total_bytes=first.total_bytes,
        unknown={name: NOT_TOLD for name, value in figures.items() if value is None},
    )
