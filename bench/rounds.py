"""Two ways to do the same thing compared within one run, so that a busy machine slows both."""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """What one measure gave over all rounds."""

    median: float
    """Median of the rounds."""

    spread: float
    """Distance between the first and the third quartile, as a share of the median."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """Sum up the values of all rounds."""
        median = statistics.median(values)
        if len(values) < 2:
            return cls(median=median, spread=0.0)
        first, _, third = statistics.quantiles(values, n=4)
        return cls(median=median, spread=(third - first) / median if median else 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two measures of one case, taken in turns."""

    name: str
    """The case."""

    unit: str
    """Unit of both measures."""

    ours: Figure
    """The measure of this project."""

    base: Figure
    """The measure of what it is compared with."""

    ratio: Figure
    """How many times better ours is, round by round."""

    extra: float
    """What the least of ours is more than the least of the base: other programs only ever add."""

    target: float | None
    """The least ratio wanted; None when the ratio only informs."""

    limit: float | None
    """The most that ours may be more than the base; None when the difference only informs."""

    @property
    def is_met(self) -> bool:
        """Whether the ratio and the difference are what they should be."""
        is_fast = self.target is None or self.ratio.median >= self.target
        return is_fast and (self.limit is None or self.extra <= self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One measure that is compared with nothing."""

    name: str
    """What was measured."""

    unit: str
    """Its unit."""

    value: float
    """The measure."""


Result = Comparison | Reading


def take_turns(ours: Callable[[], T], base: Callable[[], T], *, rounds: int) -> list[tuple[T, T]]:
    """Take two measures in turns and return both of each round; each call gives its value."""
    pairs = []
    for index in range(rounds):
        # Each goes first in every other round, in case one warms a cache for the other.
        if index % 2:
            mine, other = ours(), base()
        else:
            other, mine = base(), ours()
        pairs.append((mine, other))
    return pairs


def comparison(
    name: str,
    pairs: Sequence[tuple[float, float]],
    *,
    unit: str,
    target: float | None = None,
    limit: float | None = None,
    is_more_better: bool = False,
) -> Comparison:
    """Sum up what the rounds gave, ours first in each pair."""
    ratios = [mine / other if is_more_better else other / mine for mine, other in pairs]
    return Comparison(
        name=name,
        unit=unit,
        ours=Figure.of([mine for mine, _ in pairs]),
        base=Figure.of([other for _, other in pairs]),
        ratio=Figure.of(ratios),
        extra=min(mine for mine, _ in pairs) - min(other for _, other in pairs),
        target=target,
        limit=limit,
    )


def compare(
    name: str,
    ours: Callable[[], float],
    base: Callable[[], float],
    *,
    unit: str,
    rounds: int = 15,
    target: float | None = None,
    is_more_better: bool = False,
) -> Comparison:
    """Take two measures in turns and sum them up."""
    pairs = take_turns(ours, base, rounds=rounds)
    return comparison(name, pairs, unit=unit, target=target, is_more_better=is_more_better)


def microseconds(call: Callable[[], object], *, round_seconds: float = 0.02) -> Callable[[], float]:
    """Measure the processor time of a call: enough calls to fill a round, without the collector."""
    call()
    calls = 1
    while (taken := _processor_seconds(call, calls)) < round_seconds / 2:
        calls = max(2 * calls, int(calls * round_seconds / max(taken, 1e-6)))
    return lambda: _processor_seconds(call, calls) / calls * 1e6


def arguments(description: str | None, *, rounds: int) -> argparse.Namespace:
    """Read the command line that every benchmark has: `json` and `rounds`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds of each comparison")
    return parser.parse_args()


def report(results: Sequence[Result], *, as_json: bool) -> None:
    """Print results to standard output."""
    if as_json:
        print(json.dumps([_row(one) for one in results], indent=2))
        return
    comparisons = [one for one in results if isinstance(one, Comparison)]
    print(
        f"{'':44}{'ours':>12}{'base':>12}  {'':8}{'extra':>10}{'ratio':>8}{'spread':>8}{'target':>9}"
    )
    for one in comparisons:
        print(
            f"{one.name:44}{one.ours.median:12.2f}{one.base.median:12.2f}  {one.unit:8}"
            f"{one.extra:+10.2f}{one.ratio.median:8.2f}{one.ratio.spread:8.0%}{_wanted(one):>9}"
            f"{'' if one.is_met else '  missed'}"
        )
    for reading in results:
        if isinstance(reading, Reading):
            print(f"{reading.name:44}{reading.value:12.2f}{'':12}  {reading.unit}")


def _row(result: Result) -> dict[str, object]:
    row: dict[str, object] = asdict(result)
    return row | {"is_met": result.is_met} if isinstance(result, Comparison) else row


def _wanted(one: Comparison) -> str:
    if one.limit is not None:
        return f"{one.limit:+g}"
    return "" if one.target is None else f"{one.target:g}"


def _processor_seconds(call: Callable[[], object], calls: int) -> float:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        start = time.process_time()
        for _ in range(calls):
            call()
        return time.process_time() - start
    finally:
        if was_enabled:
            gc.enable()
