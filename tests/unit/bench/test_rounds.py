"""What a benchmark says of its measures."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def rounds() -> Any:
    """Load the module from its folder, which is no part of the packages."""
    path = Path(__file__).parents[3] / "bench" / "rounds.py"
    spec = importlib.util.spec_from_file_location("bench_rounds", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(*values: float, log: list[str] | None = None, name: str = "") -> Callable[[], float]:
    left = list(values)

    def take() -> float:
        if log is not None:
            log.append(name)
        return left.pop(0)

    return take


class TestCompare:
    def test_ratio_of_rounds(self, rounds: Any) -> None:
        """The ratio is the median of the rounds' ratios, so that a slow round does not matter."""
        ours = measure(1.0, 10.0, 1.0)
        base = measure(4.0, 40.0, 5.0)
        comparison = rounds.compare("x", ours, base, unit="us", rounds=3, target=4.0)

        assert (1.0, 5.0, 4.0) == (
            comparison.ours.median,
            comparison.base.median,
            comparison.ratio.median,
        )
        assert comparison.is_met

    def test_more_is_better(self, rounds: Any) -> None:
        """With requests per second the ratio turns around, and a target can be missed."""
        comparison = rounds.compare(
            "x",
            measure(50.0, 50.0),
            measure(100.0, 100.0),
            unit="1/s",
            rounds=2,
            target=0.6,
            is_more_better=True,
        )

        assert 0.5 == comparison.ratio.median
        assert not comparison.is_met

    def test_in_turns(self, rounds: Any) -> None:
        """Each of the two is measured first in every other round."""
        log: list[str] = []
        ours = measure(1, 1, 1, log=log, name="ours")
        base = measure(1, 1, 1, log=log, name="base")
        rounds.compare("x", ours, base, unit="us", rounds=3)

        assert ["base", "ours", "ours", "base", "base", "ours"] == log


class TestReport:
    def test_json(self, rounds: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """JSON has the figures, the target and whether it is met."""
        comparison = rounds.compare(
            "x", measure(2.0, 2.0), measure(4.0, 4.0), unit="us", rounds=2, target=3.0
        )
        rounds.report([comparison], as_json=True)
        (entry,) = json.loads(capsys.readouterr().out)

        assert {"median": 2.0, "spread": 0.0} == entry["ratio"]
        assert ("x", "us", 3.0, False) == tuple(
            entry[key] for key in ("name", "unit", "target", "is_met")
        )

    def test_table(self, rounds: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """The table says which targets were missed."""
        comparison = rounds.compare(
            "the case", measure(2.0, 2.0), measure(4.0, 4.0), unit="us", rounds=2, target=3.0
        )
        rounds.report([comparison], as_json=False)
        line = capsys.readouterr().out.splitlines()[1]

        assert line.startswith("the case")
        assert line.endswith("missed")


class TestMicroseconds:
    def test_counts_calls(self, rounds: Any) -> None:
        """A round has as many calls as fill it, and gives the time of one."""
        calls = 0

        def call() -> None:
            nonlocal calls
            calls += 1
            sum(range(1000))

        take = rounds.microseconds(call, round_seconds=0.005)
        before = calls
        taken = take()

        assert calls - before > 10
        assert 0 < taken < 5000
