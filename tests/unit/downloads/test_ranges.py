"""Which bytes are there, held against a set of numbers."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from localplane_server.downloads.ranges import ByteRanges, Span

SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=20)


@given(SPANS)
def test_is_a_set(spans: list[tuple[int, int]]) -> None:
    """Whatever is added in whatever order, it is the set of these bytes, in spans that do not touch."""
    ranges = ByteRanges()
    expected: set[int] = set()
    for start, stop in spans:
        ranges.add(start, stop)
        expected |= set(range(start, stop))
    found = list(ranges)

    assert expected == {byte for span in found for byte in range(span.start, span.stop)}
    assert all(one.stop < other.start for one, other in itertools.pairwise(found))
    assert len(expected) == ranges.size
    assert next(n for n in range(50) if n not in expected) == ranges.frontier
    missing = {byte for gap in ranges.gaps(41) for byte in range(gap.start, gap.stop)}
    assert set(range(41)) - expected == missing


def test_gaps() -> None:
    """What is missing, in order."""
    ranges = ByteRanges()
    ranges.add(2, 4)
    ranges.add(6, 7)

    assert [Span(0, 2), Span(4, 6), Span(7, 9)] == list(ranges.gaps(9))
