"""Places for backends, and memory for them."""

from __future__ import annotations

from typing import NamedTuple


class Space(NamedTuple):
    """Places, and memory in bytes."""

    places: float
    memory: float

    def plus(self, other: Space) -> Space:
        """Return both together."""
        return Space(self.places + other.places, self.memory + other.memory)

    def minus(self, other: Space) -> Space:
        """Return what is left; less than nothing when more is taken than there is."""
        return Space(self.places - other.places, self.memory - other.memory)

    def covers(self, other: Space) -> bool:
        """Whether the other fits into it."""
        return self.places >= other.places and self.memory >= other.memory


NOTHING = Space(0, 0)
"""What takes no place and no memory here."""
