"""What there is to run models on, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from localplane_server.resources.drm import read_cards
from localplane_server.resources.figures import (
    AcceleratorFigures,
    CpuFigures,
    DiskFigures,
    MemoryFigures,
    Resources,
    Source,
    Vendor,
)
from localplane_server.resources.machine import Processors, read_disks, read_memory
from localplane_server.resources.nvml import Nvml, NvmlUnavailableError
from localplane_server.resources.probe import Probe

SAMPLE_SECONDS = 5.0
"""Time between two samples of the processors."""
PATIENCE_SECONDS = 2.0
"""How long a part may take. What takes longer is missing from the answer."""

NOT_IN_TIME = "not answered in time"

T = TypeVar("T")


class Inventory:
    """Reads the resources. Nothing of it blocks the event loop, and no part waits for another.

    Args:
        folders: Folders whose disks are read, by what they are for.
        processors: Reads the processors.
        memory: Reads the memory.
        nvml: Reads NVIDIA's devices.
        cards: Reads the devices in sysfs.
        patience_seconds: How long a part may take.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        *,
        processors: Processors | None = None,
        memory: Callable[[], MemoryFigures] = read_memory,
        nvml: Nvml | None = None,
        cards: Callable[[], list[AcceleratorFigures]] = read_cards,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._folders = dict(folders)
        self._processors = processors or Processors()
        self._memory = memory
        self._nvml = nvml or Nvml()
        self._cards = cards
        self._disk_probe = Probe(
            "disks", lambda: read_disks(self._folders), patience_seconds=patience_seconds
        )
        self._accelerator_probe = Probe(
            "accelerators", self._read_accelerators, patience_seconds=patience_seconds
        )

    async def run(self) -> None:
        """Sample the processors for ever, so that their share is always of the last few seconds."""
        while True:
            await asyncio.to_thread(self._processors.sample)
            await asyncio.sleep(SAMPLE_SECONDS)

    async def read(self) -> Resources:
        """Read everything. What does not answer in time is missing, and `unknown` says so."""
        unknown: dict[str, str] = {}
        reading_disks = _in_time(self._disk_probe)
        reading_devices = _in_time(self._accelerator_probe)
        disks, devices = await asyncio.gather(reading_disks, reading_devices)
        if disks is None:
            disks = self._unread_disks()
            unknown["disks"] = NOT_IN_TIME
        if devices is None:
            devices = (), None
            unknown["accelerators"] = NOT_IN_TIME
        accelerators, without_nvml = devices
        if without_nvml is not None:
            unknown["nvml"] = without_nvml
        # What the kernel knows of itself waits for no device.
        cpu, memory = await asyncio.to_thread(self._read_machine)
        return Resources(
            cpu=cpu,
            memory=memory,
            disks=disks,
            accelerators=accelerators,
            sampled_at=datetime.now(UTC),
            unknown=unknown,
        )

    def close(self) -> None:
        """Give NVIDIA's library back."""
        self._nvml.close()

    def _read_machine(self) -> tuple[CpuFigures, MemoryFigures]:
        self._processors.sample()
        return self._processors.read(), self._memory()

    def _read_accelerators(self) -> tuple[tuple[AcceleratorFigures, ...], str | None]:
        without_nvml = None
        try:
            devices = self._nvml.read()
        except NvmlUnavailableError as error:
            devices, without_nvml = [], str(error)
        known = {one.address for one in devices}
        for card in self._cards():
            # NVML knows more of the same device; without it, sysfs at least tells that it is there.
            if not (card.vendor is Vendor.NVIDIA and card.address in known):
                devices.append(card)
        return tuple(devices), without_nvml

    def _unread_disks(self) -> tuple[DiskFigures, ...]:
        names = ("total", "free", "filesystem")
        return tuple(
            DiskFigures(
                source=Source.NOBODY,
                purpose=purpose,
                path=path,
                total=None,
                free=None,
                filesystem=None,
                unknown=dict.fromkeys(names, NOT_IN_TIME),
            )
            for purpose, path in self._folders.items()
        )


async def _in_time(probe: Probe[T]) -> T | None:
    try:
        return await probe()
    except TimeoutError:
        return None
