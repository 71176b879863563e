"""The circuit breaker of one model: what fails again and again is left alone for longer and longer."""

from __future__ import annotations

FIRST_SECONDS = 1.0
"""How long a model is left alone after its second failure in a row. The first costs nothing: it may be chance."""
LONGEST_SECONDS = 300.0
"""How long it is left alone at most."""

_MOST_DOUBLINGS = 10


class Breaker:
    """Counts the failures of a model. Open, it keeps calls from loading the model."""

    def __init__(self) -> None:
        self.failures = 0
        """Failures in a row."""
        self._open_until = 0.0

    def fail(self, now: float) -> float:
        """Count a failure and return for how many seconds the model is left alone."""
        self.failures += 1
        if self.failures == 1:
            return 0.0
        doublings = min(self.failures - 2, _MOST_DOUBLINGS)
        seconds: float = min(FIRST_SECONDS * 2**doublings, LONGEST_SECONDS)
        self._open_until = now + seconds
        return seconds

    def succeed(self) -> None:
        """Close it."""
        self.failures = 0
        self._open_until = 0.0

    def remaining(self, now: float) -> float:
        """Return how long it is still open; 0 when it is closed."""
        return max(0.0, self._open_until - now)
