"""NVIDIA's library, played by a stand-in."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import pytest

from fake_nvml import FakeNvml, process
from localplane_server.resources.figures import Source, Vendor
from localplane_server.resources.nvml import Nvml, NvmlUnavailableError, load_pynvml


def test_device() -> None:
    """Every figure of the library is told; zero is a figure; the address is as sysfs writes it."""
    fake = FakeNvml()
    (device,) = Nvml(lambda: fake).read()

    assert (Source.NVML, Vendor.NVIDIA) == (device.source, device.vendor)
    assert ("NVIDIA GeForce RTX 4090", "0000:0a:00.0") == (device.name, device.address)
    assert (24 << 30, 1 << 30) == (device.memory_total, device.memory_used)
    assert (0.0, 0.0) == (device.utilization_percent, device.temperature_celsius)
    assert ("nvidia", "580.65.06") == (device.driver, device.driver_version)
    assert {} == device.unknown


def test_what_a_device_does_not_support() -> None:
    """Some devices have no memory or sensor of their own: null, in the library's words."""
    fake = FakeNvml()
    fake.unsupported = {"memory", "rates", "temperature", "pci"}
    (device,) = Nvml(lambda: fake).read()

    assert (None, None, None) == (device.memory_total, device.memory_used, device.address)
    names = ("memory_total", "memory_used", "utilization_percent", "temperature_celsius", "address")
    assert dict.fromkeys(names, "Not Supported") == device.unknown


def test_processes() -> None:
    """Each process has what it uses, once, even when it both computes and draws; unknown is not zero."""
    fake = FakeNvml()
    fake.computing = [process(1, 100), process(2, None), process(3, 7)]
    fake.drawing = [process(3, 7), process(4, 0)]
    uses, told, problems = Nvml(lambda: fake).uses()

    assert [(1, 100), (2, None), (3, 7), (4, 0)] == [(use.pid, use.used_bytes) for use in uses]
    assert {("NVIDIA GeForce RTX 4090", "0000:0a:00.0", 24 << 30)} == {
        (use.name, use.address, use.total_bytes) for use in uses
    }
    assert (frozenset({"0000:0a:00.0"}), []) == (told, problems)


def test_processes_that_are_not_told() -> None:
    """A device that does not list its processes is named, with the library's words."""
    fake = FakeNvml()
    fake.computing = [process(1, 100)]
    fake.unsupported = {"processes"}

    problems = ["NVIDIA GeForce RTX 4090: Not Supported"]
    assert ([], frozenset(), problems) == Nvml(lambda: fake).uses()


def test_device_that_is_lost() -> None:
    """A device that fell off its bus is named, and hides no other; it is looked for anew each time."""
    fake = FakeNvml()
    fake.lost = 2
    fake.computing = [process(1, 100)]
    nvml = Nvml(lambda: fake)
    uses, told, problems = nvml.uses()

    assert ([1], frozenset({"0000:0a:00.0"})) == ([use.pid for use in uses], told)
    assert ["device 1: GPU is lost", "device 2: GPU is lost"] == problems
    assert ["NVIDIA GeForce RTX 4090"] == [one.name for one in nvml.read()]
    assert (2, 1) == (fake.opened, fake.closed)


def test_every_device_is_lost() -> None:
    """Where no device is left, it is said why."""
    fake = FakeNvml()
    fake.present, fake.lost = 0, 1
    nvml = Nvml(lambda: fake)
    with pytest.raises(NvmlUnavailableError, match="GPU is lost"):
        nvml.read()

    assert ([], frozenset(), ["device 0: GPU is lost"]) == nvml.uses()


def test_processes_of_a_device_without_memory() -> None:
    """What else a device does not tell is null."""
    fake = FakeNvml()
    fake.computing = [process(1, 100)]
    fake.unsupported = {"memory", "pci"}
    ((use,), _, _) = Nvml(lambda: fake).uses()

    assert (None, None, 100) == (use.address, use.total_bytes, use.used_bytes)


def test_processes_without_a_library() -> None:
    """Without the library there is a reason."""
    fake = FakeNvml()
    fake.failure = "NVML Shared Library Not Found"
    with pytest.raises(NvmlUnavailableError, match="Shared Library Not Found"):
        Nvml(lambda: fake).uses()


def test_opened_once_and_closed() -> None:
    """Reading again does not open again; closing closes once, and only what was opened."""
    fake = FakeNvml()
    nvml = Nvml(lambda: fake)
    nvml.close()
    nvml.read()
    nvml.read()
    nvml.close()
    nvml.close()

    assert (1, 1) == (fake.opened, fake.closed)


def test_library_missing() -> None:
    """Without the library there is a reason and no fault, and the next call tries again."""
    fake = FakeNvml()
    fake.failure = "NVML Shared Library Not Found"
    nvml = Nvml(lambda: fake)
    with pytest.raises(NvmlUnavailableError, match="Shared Library Not Found"):
        nvml.read()
    fake.failure = None

    assert 1 == len(nvml.read())


def test_driver_goes_away() -> None:
    """A driver that is replaced under the running library is found again."""
    fake = FakeNvml()
    nvml = Nvml(lambda: fake)
    nvml.read()
    fake.failure = "Driver/library version mismatch"
    with pytest.raises(NvmlUnavailableError, match="mismatch"):
        nvml.read()
    fake.failure = None
    nvml.read()

    assert (2, 1) == (fake.opened, fake.closed)


def test_module_missing() -> None:
    """Without the Python module the reason names what to install."""

    def load() -> Any:
        raise ModuleNotFoundError("No module named 'pynvml'")

    with pytest.raises(NvmlUnavailableError, match="nvidia-ml-py"):
        Nvml(load).read()


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no driver the module, which is large, is not imported."""
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    with pytest.raises(NvmlUnavailableError, match="driver is not there: libof-nobody"):
        Nvml(lambda: load_pynvml("libof-nobody.so.1")).read()

    assert "pynvml" not in sys.modules


def test_real_module() -> None:
    """The real module has every name that is used, and works or says why not, whatever the machine has."""
    pynvml = pytest.importorskip("pynvml")
    names = [name for name in dir(FakeNvml) if name.lower().startswith("nvml")]
    assert [] == [name for name in names if not hasattr(pynvml, name)]

    with contextlib.suppress(NvmlUnavailableError):
        assert all(device.source is Source.NVML for device in Nvml().read())
