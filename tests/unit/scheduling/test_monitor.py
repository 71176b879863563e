"""The monitor's samples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from localplane_server import events
from localplane_server.scheduling.monitor import Monitor
from localplane_server.supervision.devices import DeviceReading, DeviceUse
from localplane_server.supervision.sampling import Sampler, TreeSample


class Backends:
    """Stands for the scheduler: backends whose process is this one."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.measured: list[str] = []
        self.devices: list[Any] = []
        self.told: list[Any] = []

    def actors(self) -> list[Any]:
        return [
            SimpleNamespace(
                backend=SimpleNamespace(model=str(pid), pid=pid, tree_in=lambda _: [os.getpid()]),
            )
            for pid in self.pids
        ]

    def note_memory(
        self, model: str, rss_bytes: int, devices: Any = None, told: Any = None
    ) -> None:
        """Remember of whom it was told."""
        self.measured.append(model)
        self.devices.append(devices)
        self.told.append(told)


class Interrupted(Sampler):
    """Has something happen while it samples."""

    def __init__(self, meanwhile: Any) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    async def sample(
        self, trees: Mapping[Any, Sequence[int]], *, with_pss: bool = False
    ) -> dict[Any, TreeSample]:
        """Sample, and then let it happen."""
        samples = await super().sample(trees, with_pss=with_pss)
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return samples


async def test_backend_that_comes_while_others_are_sampled() -> None:
    """It is sampled for whoever asks for it, and the round that began without it leaves that alone."""
    backends = Backends()
    backends.pids = [1]

    async def another_comes() -> None:
        backends.pids = [1, 2]
        await monitor.sample()

    scheduler: Any = backends
    monitor = Monitor(scheduler, Interrupted(another_comes), events.Events())

    await monitor.sample()

    seen: list[Any] = [SimpleNamespace(pid=1), SimpleNamespace(pid=2), SimpleNamespace(pid=3)]
    assert [True, True, False] == [monitor.last_sample(one) is not None for one in seen]
    # Those of the inner round, then those of the outer one: nobody twice for one sample.
    assert ["1", "2", "1"] == backends.measured


async def test_backend_that_is_gone() -> None:
    """What was known of it goes with it."""
    backends: Any = Backends()
    backends.pids = [1]
    monitor = Monitor(backends, Sampler(), events.Events())
    await monitor.sample()
    backends.pids = []

    await monitor.sample()

    gone: Any = SimpleNamespace(pid=1)
    assert monitor.last_sample(gone) is None


async def test_memory_of_devices() -> None:
    """The scheduler hears what the tree takes on devices; of a reading that has failed, that it was not seen."""
    backends: Any = Backends()
    backends.pids = [1]
    use = DeviceUse(pid=os.getpid(), name="gpu", address="0", used_bytes=7, total_bytes=9)
    problems: list[str] = []
    told = {"0"}

    async def read() -> DeviceReading:
        uses = (use, replace(use, pid=1, used_bytes=100))
        return DeviceReading(
            uses=uses,
            sampled_at=datetime.now(UTC),
            problems=tuple(problems),
            told=frozenset(told),
        )

    monitor = Monitor(backends, Sampler(), events.Events(), devices=read)
    await monitor.sample()
    ((device,),) = backends.devices
    assert ("0", 7, 9) == (device.device, device.used_bytes, device.total_bytes)
    problems.append("another: it hangs")
    await monitor.sample()
    told.clear()
    await monitor.sample()

    assert [(device,), None] == backends.devices[1:]
    assert [None, {"0"}, None] == backends.told
