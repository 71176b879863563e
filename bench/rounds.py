"""Two ways to do the same thing compared within one run, so that a busy machine slows both."""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass


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
        first, _, third = statistics.quantiles(values, n=4)
        return cls(median=median, spread=(third - first) / median)


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

    target: float | None
    """The least ratio wanted; None when the comparison only informs."""

    @property
    def is_met(self) -> bool:
        """Whether the ratio is what it should be."""
        return self.target is None or self.ratio.median >= self.target


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
    """Take two measures in turns; each call of a measure gives its value for one round."""
    pairs = []
    for index in range(rounds):
        # Each goes first in every other round, in case one warms a cache for the other.
        if index % 2:
            mine, other = ours(), base()
        else:
            other, mine = base(), ours()
        pairs.append((mine, other))
    ratios = [mine / other if is_more_better else other / mine for mine, other in pairs]
    return Comparison(
        name=name,
        unit=unit,
        ours=Figure.of([mine for mine, _ in pairs]),
        base=Figure.of([other for _, other in pairs]),
        ratio=Figure.of(ratios),
        target=target,
    )


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


def report(comparisons: Sequence[Comparison], *, as_json: bool) -> None:
    """Print comparisons to standard output."""
    if as_json:
        print(json.dumps([asdict(one) | {"is_met": one.is_met} for one in comparisons], indent=2))
        return
    print(f"{'':44}{'ours':>12}{'base':>12}  {'':8}{'ratio':>8}{'spread':>8}{'target':>8}")
    for one in comparisons:
        target = "" if one.target is None else f"{one.target:g}"
        print(
            f"{one.name:44}{one.ours.median:12.2f}{one.base.median:12.2f}  {one.unit:8}"
            f"{one.ratio.median:8.2f}{one.ratio.spread:8.0%}{target:>8}"
            f"{'' if one.is_met else '  missed'}"
        )


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
