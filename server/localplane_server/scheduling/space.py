"""Places for backends, and memory for them: the machine's, and that of each device."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

NO_DEVICES: Mapping[str, float] = MappingProxyType({})
"""Nothing on any device."""


class Space(NamedTuple):
    """Places, and memory in bytes."""

    places: float
    memory: float
    devices: Mapping[str, float] = NO_DEVICES
    """Memory of devices. One that is not there counts as nothing."""

    def plus(self, other: Space) -> Space:
        """Return both together."""
        return Space(
            self.places + other.places,
            self.memory + other.memory,
            _summed(self.devices, other.devices, 1),
        )

    def minus(self, other: Space) -> Space:
        """Return what is left; less than nothing when more is taken than there is."""
        return Space(
            self.places - other.places,
            self.memory - other.memory,
            _summed(self.devices, other.devices, -1),
        )

    def covers(self, other: Space) -> bool:
        """Whether the other fits into it. What the other does not need may be overdrawn."""
        return (
            _covers(self.places, other.places)
            and _covers(self.memory, other.memory)
            and all(
                _covers(self.devices.get(device, 0), needed)
                for device, needed in other.devices.items()
            )
        )

    def short_of(self, needed: Space) -> Space:
        """Return what is missing for something to fit into it, and nothing of what it does not need."""
        return Space(
            _missing(self.places, needed.places),
            _missing(self.memory, needed.memory),
            {
                device: _missing(self.devices.get(device, 0), bytes_)
                for device, bytes_ in needed.devices.items()
            },
        )


NOTHING = Space(0, 0)
"""What takes no place and no memory here."""


def _covers(there: float, needed: float) -> bool:
    return needed <= 0 or there >= needed


def _missing(there: float, needed: float) -> float:
    return max(0, needed - there) if needed > 0 else 0


def _summed(one: Mapping[str, float], other: Mapping[str, float], sign: int) -> Mapping[str, float]:
    if not other:
        return one
    summed = dict(one)
    for device, bytes_ in other.items():
        summed[device] = summed.get(device, 0) + sign * bytes_
    return summed
