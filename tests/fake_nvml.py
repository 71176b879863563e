"""NVIDIA's library, played by a stand-in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    """As the module names it."""


class FakeNvml:
    """The part of `pynvml` that is used, with one device, and some that are lost."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        self.failure: str | None = None
        self.present, self.lost = 1, 0
        self.unsupported: set[str] = set()
        self.computing: list[Any] = []
        self.drawing: list[Any] = []
        self.opened = 0
        self.closed = 0

    def nvmlInit(self) -> None:  # noqa: N802 - the library's name, like those below
        if self.failure:
            raise NVMLError(self.failure)
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.closed += 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        if self.failure:
            raise NVMLError(self.failure)
        return "580.65.06"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.present + self.lost

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index >= self.present:
            raise NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, _handle: int) -> bytes:  # noqa: N802
        return b"NVIDIA GeForce RTX 4090"

    def nvmlDeviceGetPciInfo(self, _handle: int) -> Any:  # noqa: N802
        return self._answer("pci", SimpleNamespace(busId="00000000:0A:00.0"))

    def nvmlDeviceGetMemoryInfo(self, _handle: int) -> Any:  # noqa: N802
        return self._answer("memory", SimpleNamespace(total=24 << 30, used=1 << 30))

    def nvmlDeviceGetUtilizationRates(self, _handle: int) -> Any:  # noqa: N802
        return self._answer("rates", SimpleNamespace(gpu=0, memory=3))

    def nvmlDeviceGetTemperature(self, _handle: int, _sensor: int) -> Any:  # noqa: N802
        return self._answer("temperature", 0)

    def nvmlDeviceGetComputeRunningProcesses(self, _handle: int) -> Any:  # noqa: N802
        return self._answer("processes", self.computing)

    def nvmlDeviceGetGraphicsRunningProcesses(self, _handle: int) -> Any:  # noqa: N802
        return self._answer("processes", self.drawing)

    def _answer(self, what: str, answer: Any) -> Any:
        if what in self.unsupported:
            raise NVMLError("Not Supported")
        return answer


def process(pid: int, used: int | None) -> Any:
    """Return a process as the library lists it."""
    return SimpleNamespace(pid=pid, usedGpuMemory=used)
