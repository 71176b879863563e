"""Figures of the machine. What is unknown is None, and `unknown` says why, by the figure's name."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path


class Source(enum.Enum):
    """Who says a figure."""

    NOBODY = "nobody"
    SYSTEM = "system"
    CGROUP_V1 = "cgroup_v1"
    CGROUP_V2 = "cgroup_v2"
    NVML = "nvml"
    SYSFS = "sysfs"


class Vendor(enum.Enum):
    """Who made an accelerator."""

    NVIDIA = "NVIDIA"
    AMD = "AMD"
    INTEL = "Intel"


CGROUP_SOURCES = {1: Source.CGROUP_V1, 2: Source.CGROUP_V2}
"""Sources by the version of the control group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuFigures:
    """Processors."""

    source: Source
    """Who sets `usable`."""
    count: int
    """Logical processors of the machine."""
    physical_count: int | None
    """Cores of the machine."""
    allowed: int
    """Logical processors that this process may run on."""
    cgroup_quota: float | None
    """Processors that the control group allows. None when it sets no quota."""
    usable: float
    """The lower of the two above."""
    load: tuple[float, float, float] | None
    """Processes that run or wait to run, averaged over 1, 5 and 15 minutes."""
    percent: float | None
    """Share of the time in which the processors were busy; 100 is all of them."""
    percent_seconds: float | None
    """Length of that time."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why a figure is None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFigures:
    """Memory, in bytes."""

    source: Source
    """Who sets `total`."""
    total: int
    """What may be used: of the machine or of the control group, whichever is less."""
    available: int
    """What can be had without swapping: of the machine or of the control group, whichever is less."""
    machine_total: int
    """Memory of the machine."""
    machine_available: int
    """What the machine has left."""
    cgroup_limit: int | None
    """Lowest limit of a control group. None when none is below the machine's memory."""
    cgroup_used: int | None
    """What the group with that limit uses, cached files included."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why a figure is None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFigures:
    """The disk that holds a folder, in bytes."""

    source: Source
    """Who says this."""
    purpose: str
    """What the folder is for."""
    path: Path
    """The folder."""
    total: int | None
    """Size of the disk."""
    free: int | None
    """Space that this process can still use."""
    filesystem: str | None
    """Type of the file system."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why a figure is None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorFigures:
    """A device that can compute for models."""

    source: Source
    """Who says this."""
    vendor: Vendor
    """Who made it."""
    name: str
    """Its name where the driver tells it, else vendor and numbers."""
    address: str | None
    """Its address on the PCI bus."""
    memory_total: int | None = None
    """Its memory, in bytes."""
    memory_used: int | None = None
    """Its memory in use, in bytes."""
    utilization_percent: float | None = None
    """Share of the last moments in which it was busy."""
    temperature_celsius: float | None = None
    """Its temperature."""
    driver: str | None = None
    """Name of its driver."""
    driver_version: str | None = None
    """Version of its driver."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why a figure is None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """All of them, at one moment."""

    cpu: CpuFigures
    """Processors."""
    memory: MemoryFigures
    """Memory."""
    disks: tuple[DiskFigures, ...]
    """One for each folder."""
    accelerators: tuple[AcceleratorFigures, ...]
    """Devices that can compute for models."""
    sampled_at: datetime
    """When this was read, in UTC."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Why a part is missing, by the part."""
