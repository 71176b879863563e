"""Reading what processes use of devices, without waiting for a driver."""

from __future__ import annotations

import threading

from localplane_server.resources.device_uses import NOT_IN_TIME, DeviceUses
from localplane_server.resources.nvml import Nvml, NvmlUnavailableError
from localplane_server.supervision.devices import DeviceUse

USE = DeviceUse(pid=1, name="GPU", address=None, used_bytes=5, total_bytes=None)


class FakeNvml(Nvml):
    """Answers, fails or hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.failure: str | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()

    def uses(self) -> tuple[list[DeviceUse], frozenset[str], list[str]]:
        self.calls += 1
        self.may_answer.wait()
        if self.failure:
            raise NvmlUnavailableError(self.failure)
        return [USE], frozenset({"GPU"}), []


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_once_a_second() -> None:
    """Whoever asks within a second gets the same reading."""
    nvml, clock = FakeNvml(), Clock()
    uses = DeviceUses(nvml, patience_seconds=10, now=clock)
    first = await uses()
    clock.now = 0.9
    assert first is await uses()
    clock.now = 1.0
    await uses()

    assert (USE,) == first.uses
    assert 2 == nvml.calls


async def test_no_library() -> None:
    """Without the library there is a reason and no device."""
    nvml = FakeNvml()
    nvml.failure = "NVML Shared Library Not Found"
    reading = await DeviceUses(nvml, patience_seconds=10)()

    assert ((), ("NVML Shared Library Not Found",)) == (reading.uses, reading.problems)


async def test_driver_that_hangs() -> None:
    """A driver that hangs is said to, then what was read before is told; what comes late is used."""
    nvml, clock = FakeNvml(), Clock()
    nvml.may_answer.clear()
    uses = DeviceUses(nvml, patience_seconds=0.01, now=clock)
    assert (NOT_IN_TIME,) == (await uses()).problems

    nvml.may_answer.set()
    patient = DeviceUses(nvml, patience_seconds=10, now=clock)
    before = await patient()
    nvml.may_answer.clear()
    patient._probe._patience_seconds = 0.01
    clock.now = 5.0
    late = await patient()
    # It is not of now: what it does not list may have come since.
    assert (before.uses, before.sampled_at) == (late.uses, late.sampled_at)
    assert (frozenset({"GPU"}), frozenset(), (NOT_IN_TIME,)) == (
        before.told,
        late.told,
        late.problems,
    )
    nvml.may_answer.set()
