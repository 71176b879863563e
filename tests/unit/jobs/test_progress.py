"""Progress and rates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from localplane_server.jobs.progress import (
    FileStage,
    FileState,
    JobProgress,
    RateMeter,
    eta_seconds,
)


def progress(done: int, total: int | None = 100, *files: FileState) -> JobProgress:
    return JobProgress(phase="downloading", done_bytes=done, total_bytes=total, files=files)


def test_never_goes_back() -> None:
    """Work that counts from the start again is not seen to undo anything, in all and by file."""
    before = progress(50, 100, FileState(name="a", done_bytes=50, total_bytes=60))
    now = progress(0, None, FileState(name="a"), FileState(name="b", done_bytes=1))

    after = now.after(before)

    assert (50, 100) == (after.done_bytes, after.total_bytes)
    assert [50, 1] == [one.done_bytes for one in after.files]


def test_keeps_files() -> None:
    """A report without files, as at the begin of a run, does not forget them."""
    files = (FileState(name="a"),)

    assert files == progress(0).after(progress(0, 100, *files)).files


@pytest.mark.parametrize(
    ("done", "total", "percent"), [(0, None, 0), (5, 0, 0), (25, 100, 25), (150, 100, 99)]
)
def test_percent(done: int, total: int | None, percent: float) -> None:
    """It is the share of a known size, and never all: whoever is done with that has something left to do."""
    assert percent == progress(done, total).percent


def test_percent_with_unpacking() -> None:
    """What is to be unpacked has its share though it is no part of the bytes."""
    fetched = FileState(name="x.zip", done_bytes=100, total_bytes=100, stage=FileStage.DONE)
    unpacked = FileState(name="in it", total_bytes=100, stage=FileStage.UNPACKING)

    assert 50 == progress(100, 100, fetched, unpacked).percent
    assert 99 == progress(100, 100, fetched, replace(unpacked, done_bytes=100)).percent
    assert 99 == progress(100, 100, fetched, replace(unpacked, total_bytes=None)).percent


def test_current_file() -> None:
    """It is the first that is at work."""
    done = FileState(name="a", stage=FileStage.DONE)
    waits = FileState(name="b")
    works = FileState(name="c", stage=FileStage.VERIFYING)

    assert "c" == progress(0, 1, done, waits, works).current_file
    assert "" == progress(0, 1, done, waits).current_file


def test_rate() -> None:
    """It is that of the last seconds, unknown at first, and falls when nothing comes in."""
    meter = RateMeter(window_seconds=10)
    nothing = meter.rate(0)
    for at in range(21):
        meter.add(at, at * 100 if at <= 10 else 1000 + (at - 10) * 1000)

    assert nothing is None
    assert 1000 == meter.rate(20)
    assert 500 == meter.rate(30)


def test_rate_of_one_run() -> None:
    """What was there before the run is no part of it."""
    meter = RateMeter()
    meter.add(5, 1_000_000)
    meter.add(6, 1_000_010)

    assert 10 == meter.rate(6)


@pytest.mark.parametrize(
    ("total", "rate", "eta"), [(100, 10.0, 5.0), (None, 10.0, None), (100, None, None), (40, 5, 0)]
)
def test_eta(total: int | None, rate: float | None, eta: float | None) -> None:
    """It is the rest at the rate, where both are known."""
    assert eta == eta_seconds(progress(50, total), rate)
