"""Which bytes of a file are there."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Some bytes of a file: from the first to before the last."""

    start: int
    """The first."""
    stop: int
    """The one after the last."""

    @property
    def size(self) -> int:
        """How many they are."""
        return self.stop - self.start


class ByteRanges:
    """A set of bytes of a file, kept as spans in order that do not touch."""

    def __init__(self) -> None:
        self._spans: list[Span] = []

    def __iter__(self) -> Iterator[Span]:
        return iter(self._spans)

    def add(self, start: int, stop: int) -> None:
        """Add what is from one byte to before another. Adding what is there does nothing."""
        if stop <= start:
            return
        first = bisect_left(self._spans, start, key=lambda span: span.stop)
        last = first
        while last < len(self._spans) and self._spans[last].start <= stop:
            start = min(start, self._spans[last].start)
            stop = max(stop, self._spans[last].stop)
            last += 1
        self._spans[first:last] = [Span(start, stop)]

    @property
    def size(self) -> int:
        """How many bytes are there."""
        return sum(span.size for span in self._spans)

    @property
    def frontier(self) -> int:
        """How many are there without a gap from the beginning on."""
        if self._spans and self._spans[0].start == 0:
            return self._spans[0].stop
        return 0

    def gaps(self, total: int) -> Iterator[Span]:
        """Give what is missing of so many bytes, in order."""
        at = 0
        for span in self._spans:
            if at < span.start:
                yield Span(at, min(span.start, total))
            at = span.stop
        if at < total:
            yield Span(at, total)
