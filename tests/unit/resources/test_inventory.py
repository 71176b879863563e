"""The resources, put together; and readings that hang."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from localplane_server.resources.figures import AcceleratorFigures, Source, Vendor
from localplane_server.resources.inventory import Inventory
from localplane_server.resources.nvml import Nvml, NvmlUnavailableError
from localplane_server.resources.probe import Probe


def figures(source: Source, vendor: Vendor, address: str) -> AcceleratorFigures:
    return AcceleratorFigures(source=source, vendor=vendor, name="it", address=address)


class FakeNvml(Nvml):
    """Answers with given devices, or not at all."""

    def __init__(self, devices: list[AcceleratorFigures] | None) -> None:
        super().__init__()
        self._devices = devices

    def read(self) -> list[AcceleratorFigures]:
        if self._devices is None:
            raise NvmlUnavailableError("NVML Shared Library Not Found")
        return list(self._devices)


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """What a reading may hang on; let go at the end."""
    event = threading.Event()
    yield event
    event.set()


async def test_everything(tmp_path: Path) -> None:
    """One entry for each folder; a device that both sources know is told once, by the one that knows more."""
    nvidia = figures(Source.NVML, Vendor.NVIDIA, "0000:01:00.0")
    same = figures(Source.SYSFS, Vendor.NVIDIA, "0000:01:00.0")
    amd = figures(Source.SYSFS, Vendor.AMD, "0000:03:00.0")
    inventory = Inventory(
        {"data": tmp_path, "models": tmp_path}, nvml=FakeNvml([nvidia]), cards=lambda: [same, amd]
    )
    resources = await inventory.read()

    assert (nvidia, amd) == resources.accelerators
    assert ["data", "models"] == [disk.purpose for disk in resources.disks]
    assert resources.cpu.count > 0
    assert resources.memory.total >= resources.memory.available > 0
    assert {} == resources.unknown


async def test_without_nvml(tmp_path: Path) -> None:
    """Without NVIDIA's library its devices still show, from sysfs, and the reason is told."""
    card = figures(Source.SYSFS, Vendor.NVIDIA, "0000:01:00.0")
    inventory = Inventory({"data": tmp_path}, nvml=FakeNvml(None), cards=lambda: [card])
    resources = await inventory.read()

    assert (card,) == resources.accelerators
    assert {"nvml": "NVML Shared Library Not Found"} == resources.unknown


async def test_a_driver_that_hangs(tmp_path: Path, hang: threading.Event) -> None:
    """The rest is answered in time; asking again does not start another reading."""
    began: list[None] = []

    def cards() -> list[AcceleratorFigures]:
        began.append(None)
        hang.wait()
        return []

    inventory = Inventory({"data": tmp_path}, nvml=FakeNvml([]), cards=cards, patience_seconds=0.05)
    first = await inventory.read()
    second = await inventory.read()

    assert {"accelerators": "not answered in time"} == first.unknown == second.unknown
    assert first.disks[0].total is not None
    assert 1 == len(began)


async def test_a_disk_that_hangs(
    tmp_path: Path, hang: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is still listed, with the reason for what is missing."""
    monkeypatch.setattr("psutil.disk_usage", lambda _: hang.wait() and SimpleNamespace())
    inventory = Inventory({"data": tmp_path}, nvml=FakeNvml([]), cards=list, patience_seconds=0.05)
    resources = await inventory.read()

    (disk,) = resources.disks
    assert ("data", None, Source.NOBODY) == (disk.purpose, disk.free, disk.source)
    assert "not answered in time" == disk.unknown["free"] == resources.unknown["disks"]


async def test_samples_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of the processors is there without anybody having asked before."""
    monkeypatch.setattr("localplane_server.resources.machine.MIN_WINDOW_SECONDS", 0.0)
    monkeypatch.setattr("localplane_server.resources.inventory.SAMPLE_SECONDS", 0.0)
    inventory = Inventory({"data": tmp_path}, nvml=FakeNvml([]), cards=list)
    sampling = asyncio.create_task(inventory.run())
    async with asyncio.timeout(10):
        while (percent := (await inventory.read()).cpu.percent) is None:
            await asyncio.sleep(0)
    sampling.cancel()

    assert 0 <= percent <= 100


class TestProbe:
    async def test_shared(self, hang: threading.Event) -> None:
        """Callers at the same time share one reading; one that goes away takes nothing with it."""
        readings: list[int] = []

        def read() -> int:
            readings.append(1)
            hang.wait()
            return len(readings)

        probe: Probe[int] = Probe("test", read)
        callers = [asyncio.ensure_future(probe()) for _ in range(3)]
        await asyncio.sleep(0)
        callers[0].cancel()
        hang.set()

        assert [1, 1] == await asyncio.gather(*callers[1:])
        assert 2 == await probe()

    async def test_failure(self) -> None:
        """What the reading raises, the caller gets."""

        def read() -> Any:
            raise ValueError("a fault")

        with pytest.raises(ValueError, match="a fault"):
            await Probe("test", read)()

    async def test_thread_does_not_keep_the_process(self, hang: threading.Event) -> None:
        """A reading that hangs would otherwise hold up the end of the service."""
        threads: list[threading.Thread] = []

        def read() -> None:
            threads.append(threading.current_thread())
            hang.wait()

        with pytest.raises(TimeoutError):
            await Probe("test", read, patience_seconds=0.05)()

        assert threads[0].daemon
