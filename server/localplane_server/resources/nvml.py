"""NVIDIA's devices, as NVIDIA's own library sees them."""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from localplane_server.resources.figures import AcceleratorFigures, Source, Vendor
from localplane_server.supervision.devices import DeviceUse, known_as


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
        """Read all devices but those that are lost, while any other is there.

        Raises:
            NvmlUnavailableError: If the library is missing or does not work. The next call tries again.
        """
        with self._opened() as nvml:
            driver = _text(nvml.nvmlSystemGetDriverVersion())
            handles, lost = self._handles()
            if lost and not handles:
                raise next(iter(lost.values()))
            return [self._device(handle, name, driver) for handle, name in handles]

    def uses(self) -> tuple[list[DeviceUse], frozenset[str], list[str]]:
        """Read what each process uses of each device, which devices told it, and why others did not.

        Raises:
            NvmlUnavailableError: If the library is missing or does not work. The next call tries again.
        """
        uses: list[DeviceUse] = []
        told: set[str] = set()
        with self._opened() as nvml:
            handles, lost = self._handles()
            problems = [f"{name}: {error}" for name, error in lost.items()]
            for handle, name in handles:
                try:
                    used = self._used_by_pid(handle)
                except nvml.NVMLError as error:
                    problems.append(f"{name}: {error}")
                    continue
                address, total = self._address(handle), self._total(handle)
                told.add(known_as(name, address))
                uses += [
                    DeviceUse(
                        pid=pid, name=name, address=address, used_bytes=bytes_, total_bytes=total
                    )
                    for pid, bytes_ in used.items()
                ]
        if lost:
            # The library may have to be started anew to see that they are back.
            self.close()
        return uses, frozenset(told), problems

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

    def _handles(self) -> tuple[list[tuple[Any, str]], dict[str, Exception]]:
        """Return the devices with their names, and what the library says of those that are lost: one fails alone."""
        nvml = self._module
        handles: list[tuple[Any, str]] = []
        lost: dict[str, Exception] = {}
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                handles.append((handle, _text(nvml.nvmlDeviceGetName(handle))))
            except nvml.NVMLError as error:
                lost[f"device {index}"] = error
        return handles, lost

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

    def _device(self, handle: Any, name: str, driver: str) -> AcceleratorFigures:
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
            name=name,
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
