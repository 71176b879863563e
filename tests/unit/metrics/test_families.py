"""Series: counted, read, limited, forgotten."""

from __future__ import annotations

from prometheus_client.core import Metric

from localplane_server.metrics.families import (
    MOST_DISTRIBUTIONS,
    MOST_SERIES,
    Count,
    CounterFamily,
    Family,
    HistogramFamily,
    ReadFamily,
)


def samples(family: Family) -> dict[tuple[str, ...], float]:
    """Values by the end of the name and the values of the labels."""
    (metric,) = list(family.collect())
    assert isinstance(metric, Metric)
    return {
        (one.name.removeprefix(metric.name), *one.labels.values()): one.value
        for one in metric.samples
    }


class TestCounterFamily:
    def test_counts(self) -> None:
        """Each combination of label values has a count of its own."""
        family = CounterFamily("a_total", "A.", ("x", "y"), Count())

        family.series("1", "2").add()
        family.series("1", "2").add(2)
        family.series("1", "3").add()

        assert {("_total", "1", "2"): 3, ("_total", "1", "3"): 1} == samples(family)

    def test_full(self) -> None:
        """A full family goes on counting what it has, and counts what it drops."""
        dropped = Count()
        family = CounterFamily("a_total", "A.", ("x",), dropped)
        for number in range(MOST_SERIES + 5):
            family.series(str(number)).add()
        family.series("0").add()

        assert (MOST_SERIES, 5) == (len(samples(family)), dropped.value)
        assert 2 == samples(family)["_total", "0"]

    def test_forget(self) -> None:
        """What is forgotten is gone, makes room, and starts at zero."""
        family = CounterFamily("a_total", "A.", ("x", "y"), Count())
        family.series("1", "2").add()
        family.series("2", "2").add()

        family.forget("x", "1")

        assert {"2"} == family.values_of("x")
        assert 0 == family.series("1", "2").value


class TestHistogramFamily:
    def test_observes(self) -> None:
        """Buckets hold what is not above their bound, each with those before it."""
        family = HistogramFamily("a", "A.", (), Count(), bounds=(0.5, 1.0))
        for value in (0.1, 0.5, 0.6, 7.0):
            family.series().observe(value)

        assert {
            ("_bucket", "0.5"): 2,
            ("_bucket", "1.0"): 3,
            ("_bucket", "+Inf"): 4,
            ("_count",): 4,
            ("_sum",): 8.2,
        } == samples(family)

    def test_full(self) -> None:
        """Histograms have many lines, so a family takes fewer of them."""
        dropped = Count()
        family = HistogramFamily("a", "A.", ("x",), dropped, bounds=(1.0,))
        for number in range(MOST_DISTRIBUTIONS + 5):
            family.series(str(number)).observe(0.5)

        assert 5 == dropped.value
        assert MOST_DISTRIBUTIONS == len(family.values_of("x"))


class TestReadFamily:
    def test_reads_each_time(self) -> None:
        """What is told is what is so now."""
        now = {"a": 1.0}
        family = ReadFamily(
            "g",
            "G.",
            ("x",),
            Count(),
            kind="gauge",
            read=lambda: [((name,), value) for name, value in now.items()],
        )
        assert {("", "a"): 1} == samples(family)

        del now["a"]

        assert {} == samples(family)

    def test_too_many(self) -> None:
        """Readings are limited like counts."""
        dropped = Count()
        readings = [((str(number),), 1.0) for number in range(MOST_SERIES + 2)]
        family = ReadFamily("g", "G.", ("x",), dropped, kind="gauge", read=lambda: readings)

        assert (MOST_SERIES, 2) == (len(samples(family)), dropped.value)
