"""Counts of the last while, in a ring of short buckets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from localplane_server.tokens.counts import NOTHING, TokenCounts

BUCKET_SECONDS = 5
"""Windows move on in steps of this."""
WINDOWS = (60, 300, 3600)
"""Lengths of the windows, in seconds."""
_MOST_BUCKETS = max(WINDOWS) // BUCKET_SECONDS


@dataclass(frozen=True, slots=True)
class TokenWindow:
    """Counts of the last while."""

    seconds: float
    """How much time they cover."""
    counts: TokenCounts
    """The counts."""

    @property
    def prompt_tokens_per_second(self) -> float:
        """Average over the window."""
        return self.counts.prompt_tokens / self.seconds if self.seconds else 0.0

    @property
    def completion_tokens_per_second(self) -> float:
        """Average over the window."""
        return self.counts.completion_tokens / self.seconds if self.seconds else 0.0


class BucketRing:
    """The last hour of one model, in buckets of five seconds. Buckets in which nothing happened take no room."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with nothing.

        Args:
            clock: Seconds that only go forward.
        """
        self._clock = clock
        self._buckets: deque[tuple[int, TokenCounts]] = deque()

    def add(self, counts: TokenCounts) -> None:
        """Count something that happened now."""
        number = self._number()
        if self._buckets and self._buckets[-1][0] == number:
            counts += self._buckets.pop()[1]
        self._buckets.append((number, counts))
        while self._buckets[0][0] <= number - _MOST_BUCKETS:
            self._buckets.popleft()

    def last(self, seconds: int) -> TokenCounts:
        """Return what happened in the current bucket and those before it that make up the window."""
        oldest = self._number() - seconds // BUCKET_SECONDS
        total = NOTHING
        for number, counts in reversed(self._buckets):
            if number <= oldest:
                break
            total += counts
        return total

    def _number(self) -> int:
        return int(self._clock() // BUCKET_SECONDS)
