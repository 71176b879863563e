"""NVIDIA's devices, as NVIDIA's own library sees them."""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from localplane_server.resources.figures import AcceleratorFigures, Source, Vendor
from localplane_server.supervision.devices import DeviceUse


class NvmlUnavailableError(Exception):
    """The library cannot be used here, which is no fault: most machines have no device of NVIDIA. Says why."""


LIBRARY = "libnvidia-ml.so.1"
"""The library itself; it comes with the driver."""


def load_pynvml(library: str = LIBRARY) -> Any:
    """Import the module that calls the library. It is large, so it is left alone where there is nothing to call.

    Raises:
        ImportError: If the module is missing.
        NvmlUnavailableError: If the library is.
    """
    if "pynvml" not in sys.modules:
        try:
            ctypes.CDLL(library)
        except OSError as error:
            raise NvmlUnavailableError(f"NVIDIA's driver is not there: {error}") from error
    return importlib.import_module("pynvml")


class Nvml:
    """Reads NVIDIA's devices. Needs the driver's library, which comes with the driver.

    Args:
        load: Returns the module `pynvml`, when somebody asks.
    """

    def __init__(self, load: Callable[[], Any] = load_pynvml) -> None:
        self._load = load
        self._module: Any = None
        self._is_open = False

    def read(self) -> list[AcceleratorFigures]:
        """Read all devices.

        Raises:
            NvmlUnavailableError: If the library is missing or does not work. The next call tries again.
        """
        with self._opened() as nvml:
            driver = _text(nvml.nvmlSystemGetDriverVersion())
            return [self._device(handle, driver) for handle in self._handles()]

    def uses(self) -> tuple[list[DeviceUse], list[str]]:
        """Read what each process uses of each device, and why devices are missing.

        Raises:
            NvmlUnavailableError: If the library is missing or does not work. The next call tries again.
        """
        uses: list[DeviceUse] = []
        problems: list[str] = []
        with self._opened() as nvml:
            for handle in self._handles():
                name = _text(nvml.nvmlDeviceGetName(handle))
                try:
                    used = self._used_by_pid(handle)
                except nvml.NVMLError as error:
                    problems.append(f"{name}: {error}")
                    continue
                address, total = self._address(handle), self._total(handle)
                uses += [
                    DeviceUse(
                        pid=pid, name=name, address=address, used_bytes=bytes_, total_bytes=total
                    )
                    for pid, bytes_ in used.items()
                ]
        return uses, problems

    def close(self) -> None:
        """Give the library back."""
        if self._is_open:
            self._is_open = False
            try:
                self._module.nvmlShutdown()
            except self._module.NVMLError:
                return  # there is nothing left to give back

    @contextmanager
    def _opened(self) -> Generator[Any]:
        nvml = self._imported()
        try:
            if not self._is_open:
                nvml.nvmlInit()
                self._is_open = True
            yield nvml
        except nvml.NVMLError as error:
            # The driver may have been replaced under the library: start anew next time.
            self.close()
            raise NvmlUnavailableError(str(error)) from error

    def _handles(self) -> Iterator[Any]:
        for index in range(self._module.nvmlDeviceGetCount()):
            yield self._module.nvmlDeviceGetHandleByIndex(index)

    def _used_by_pid(self, handle: Any) -> dict[int, int | None]:
        nvml = self._module
        used: dict[int, int | None] = {}
        for read in (
            nvml.nvmlDeviceGetComputeRunningProcesses,
            nvml.nvmlDeviceGetGraphicsRunningProcesses,
        ):
            for process in read(handle):
                # One that both computes and draws is in both lists, with all that it uses.
                before = used.get(process.pid)
                now = process.usedGpuMemory
                used[process.pid] = before if now is None else max(now, before or 0)
        return used

    def _address(self, handle: Any) -> str | None:
        try:
            return _address(_text(self._module.nvmlDeviceGetPciInfo(handle).busId))
        except self._module.NVMLError:
            return None

    def _total(self, handle: Any) -> int | None:
        try:
            total: int = self._module.nvmlDeviceGetMemoryInfo(handle).total
        except self._module.NVMLError:
            return None  # some have no memory of their own
        return total

    def _imported(self) -> Any:
        if self._module is None:
            try:
                self._module = self._load()
            except ImportError as error:
                raise NvmlUnavailableError("nvidia-ml-py is not installed") from error
        return self._module

    def _device(self, handle: Any, driver: str) -> AcceleratorFigures:
        nvml = self._module
        unknown: dict[str, str] = {}

        def ask(names: tuple[str, ...], read: Callable[[], Any]) -> Any:
            try:
                return read()
            except nvml.NVMLError as error:
                unknown.update(dict.fromkeys(names, str(error)))
                return None

        memory = ask(("memory_total", "memory_used"), lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        rates = ask(("utilization_percent",), lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        temperature = ask(
            ("temperature_celsius",),
            lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        )
        pci = ask(("address",), lambda: nvml.nvmlDeviceGetPciInfo(handle))
        return AcceleratorFigures(
            source=Source.NVML,
            vendor=Vendor.NVIDIA,
            name=_text(nvml.nvmlDeviceGetName(handle)),
            address=_address(_text(pci.busId)) if pci else None,
            memory_total=memory.total if memory else None,
            memory_used=memory.used if memory else None,
            utilization_percent=float(rates.gpu) if rates else None,
            temperature_celsius=float(temperature) if temperature is not None else None,
            driver="nvidia",
            driver_version=driver,
            unknown=unknown,
        )


def _text(value: str | bytes) -> str:
    # Older versions of the module give bytes.
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _address(bus_id: str) -> str:
    """Write an address as sysfs has it: a domain of four digits, in lower case."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}"
