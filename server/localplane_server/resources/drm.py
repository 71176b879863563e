"""Graphics devices, as their drivers describe them in sysfs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from localplane_server.resources.figures import AcceleratorFigures, Source, Vendor

DRM = Path("/sys/class/drm")
_CARD = re.compile(r"card(\d+)")
_VENDORS = {"0x1002": Vendor.AMD, "0x8086": Vendor.INTEL, "0x10de": Vendor.NVIDIA}
_NO_VERSION = "the driver comes with the kernel and has no version of its own"


def read_cards(folder: Path = DRM) -> list[AcceleratorFigures]:
    """Read the devices of AMD, Intel and NVIDIA; what the driver does not tell is None.

    Args:
        folder: Where the kernel lists them.
    """
    return [
        _card(device, vendor)
        for device in _devices(folder)
        if (vendor := _VENDORS.get(_read(device / "vendor")))
    ]


def _devices(folder: Path) -> Iterator[Path]:
    try:
        # Not only cards are there, but their connectors too: card0-HDMI-A-1.
        cards = [
            (int(found[1]), one) for one in folder.iterdir() if (found := _CARD.fullmatch(one.name))
        ]
    except OSError:
        return  # a kernel without graphics
    for _, card in sorted(cards):
        yield card / "device"


def _card(device: Path, vendor: Vendor) -> AcceleratorFigures:
    unknown: dict[str, str] = {}
    driver = _linked(device / "driver")
    said_by = f"the driver {driver}" if driver else "the kernel has no driver for it and"

    def known(name: str, value: float | None) -> float | None:
        if value is None:
            unknown[name] = f"{said_by} does not tell it in sysfs"
        return value

    total, used = _memory(device)
    known("memory_total", total)
    known("memory_used", used)
    version = _read(device / "driver" / "module" / "version") or None
    if driver is None:
        unknown["driver"] = "the kernel has no driver for it"
    if version is None:
        unknown["driver_version"] = _NO_VERSION if driver else "there is no driver"
    return AcceleratorFigures(
        source=Source.SYSFS,
        vendor=vendor,
        name=_name(device, vendor),
        address=device.resolve().name or None,
        memory_total=total,
        memory_used=used,
        utilization_percent=known("utilization_percent", _number(device / "gpu_busy_percent")),
        temperature_celsius=known("temperature_celsius", _temperature(device)),
        driver=driver,
        driver_version=version,
        unknown=unknown,
    )


def _memory(device: Path) -> tuple[int | None, int | None]:
    """Return the memory of the device and its use: AMD's files, or those of Intel's own i915 driver."""
    total = _number(device / "mem_info_vram_total")
    if total is not None:
        return total, _number(device / "mem_info_vram_used")
    for card in sorted((device / "drm").glob("card*")):
        total = _number(card / "lmem_total_bytes")
        left = _number(card / "lmem_avail_bytes")
        if total is not None:
            return total, total - left if left is not None else None
    return None, None


def _temperature(device: Path) -> float | None:
    # The first sensor is that of the chip; the others are of its memory and of its hottest spot.
    for sensor in sorted((device / "hwmon").glob("hwmon*/temp1_input")):
        thousandths = _number(sensor)
        if thousandths is not None:
            return thousandths / 1000
    return None


def _name(device: Path, vendor: Vendor) -> str:
    told = _read(device / "product_name")
    numbers = ":".join(_read(device / file).removeprefix("0x") for file in ("vendor", "device"))
    return told or f"{vendor.value} {numbers}"


def _linked(link: Path) -> str | None:
    return link.resolve().name if link.exists() else None


def _number(file: Path) -> int | None:
    text = _read(file)
    return int(text) if text.lstrip("-").isdigit() else None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""  # the driver has no such file, or the device sleeps and says so
