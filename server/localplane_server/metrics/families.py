"""Families of series: counters, histograms, and gauges that are read when they are asked for.

The metrics of `prometheus_client` take locks on every count, which costs a small call more than all the rest of its
accounting, have no limit, and add a `_created` series to each of theirs unless a global says otherwise. All that is
counted here happens on one event loop, so a count is one addition; the client writes what these families hand it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, Literal, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

Values = tuple[str, ...]
"""Values of the labels of one series, in the order of the family's labels."""
Readings = Iterable[tuple[Values, float]]
"""What is so at the moment."""

MOST_SERIES = 1000
"""Combinations of label values that a family takes."""
MOST_DISTRIBUTIONS = 250
"""The same of a histogram, each of which is one line for every bucket."""


class Count:
    """One counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        """Count."""
        self.value += amount


class Distribution:
    """One histogram."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


S = TypeVar("S", bound=Count | Distribution)


class Family(ABC):
    """Series of one name."""

    def __init__(self, name: str, text: str, labels: Sequence[str], dropped: Count) -> None:
        self.name = name
        """As it is written, with the suffix of a counter."""
        self.text = text
        """What it means."""
        self.labels = tuple(labels)
        """Names of the labels."""
        self._dropped = dropped

    @property
    @abstractmethod
    def kind(self) -> str:
        """Type of its series, as Prometheus names it."""

    @abstractmethod
    def describe(self) -> Iterable[Metric]:
        """Yield the family without its series."""

    @abstractmethod
    def collect(self) -> Iterable[Metric]:
        """Yield the family."""


class CountedFamily(Family, Generic[S]):
    """Series that are counted as things happen.

    A family that is full sends what would be a new series into one that nobody sees, and counts how often.
    """

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        dropped: Count,
        *,
        most: int,
        make: Callable[[], S],
    ) -> None:
        super().__init__(name, text, labels, dropped)
        self._most = most
        self._make = make
        self.unseen = make()
        """Takes what would be one series too many."""
        self._series: dict[Values, S] = {}

    def series(self, *values: str) -> S:
        """Return the series of these label values; it is there from now on."""
        found = self._series.get(values)
        return self._added(values) if found is None else found

    def _added(self, values: Values) -> S:
        if len(self._series) >= self._most:
            self._dropped.add()
            return self.unseen
        made = self._series[values] = self._make()
        return made

    def values_of(self, label: str) -> set[str]:
        """Return the values that a label has."""
        at = self.labels.index(label)
        return {values[at] for values in self._series}

    def forget(self, label: str, value: str) -> None:
        """Remove the series whose label has this value."""
        at = self.labels.index(label)
        self._series = {
            values: series for values, series in self._series.items() if values[at] != value
        }


class CounterFamily(CountedFamily[Count]):
    """Counters."""

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Sequence[str], dropped: Count) -> None:
        super().__init__(name, text, labels, dropped, most=MOST_SERIES, make=Count)

    def describe(self) -> Iterable[Metric]:
        """Yield the family without its series."""
        yield CounterMetricFamily(self.name, self.text, labels=self.labels)

    def collect(self) -> Iterable[Metric]:
        """Yield the family."""
        family = CounterMetricFamily(self.name, self.text, labels=self.labels)
        for values, series in self._series.items():
            family.add_metric(values, series.value)
        yield family


class HistogramFamily(CountedFamily[Distribution]):
    """Histograms with the same buckets."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        dropped: Count,
        *,
        bounds: Sequence[float],
    ) -> None:
        super().__init__(
            name,
            text,
            labels,
            dropped,
            most=MOST_DISTRIBUTIONS,
            make=lambda: Distribution(bounds),
        )
        self._names = [*(str(float(bound)) for bound in bounds), "+Inf"]

    def describe(self) -> Iterable[Metric]:
        """Yield the family without its series."""
        yield HistogramMetricFamily(self.name, self.text, labels=self.labels)

    def collect(self) -> Iterable[Metric]:
        """Yield the family."""
        family = HistogramMetricFamily(self.name, self.text, labels=self.labels)
        for values, series in self._series.items():
            buckets = list(zip(self._names, accumulate(series.counts), strict=True))
            family.add_metric(values, buckets, series.total)
        yield family


class ReadFamily(Family):
    """Series that are read from somewhere else whenever they are asked for.

    Args:
        name: As it is written.
        text: What it means.
        labels: Names of the labels.
        dropped: Counts the readings that were too many.
        kind: `gauge`, or `counter` for what only grows.
        read: Gives the readings. Must not wait.
    """

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        dropped: Count,
        *,
        kind: Literal["counter", "gauge"],
        read: Callable[[], Readings],
    ) -> None:
        super().__init__(name, text, labels, dropped)
        self._kind = kind
        self._read = read

    @property
    def kind(self) -> str:
        """Type of its series."""
        return self._kind

    def describe(self) -> Iterator[Metric]:
        """Yield the family without its series."""
        yield self._empty()

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        family = self._empty()
        for number, (values, value) in enumerate(self._read()):
            if number < MOST_SERIES:
                family.add_metric(values, value)
            else:
                self._dropped.add()
        yield family

    def _empty(self) -> CounterMetricFamily | GaugeMetricFamily:
        if self._kind == "counter":
            return CounterMetricFamily(self.name, self.text, labels=self.labels)
        return GaugeMetricFamily(self.name, self.text, labels=self.labels)
