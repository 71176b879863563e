"""Jobs on a terminal and in a log."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from localplane.v1 import job_pb2
from localplane_server.cli.job_progress import JobProgress, bar_line, clock, step_line

MIB = 1 << 20


def job(**fields: Any) -> job_pb2.Job:
    return job_pb2.Job(
        **{
            "gallery_element_name": "m",
            "phase": "downloading",
            "file_name": "m.gguf",
            "progress": 50,
            "current_bytes": 5 * MIB,
            "total_bytes": 10 * MIB,
            **fields,
        }
    )


class Terminal(io.StringIO):
    """What somebody looks at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3725, "1:02:05")]
)
def test_clock(seconds: float, text: str) -> None:
    """Times are as on a clock."""
    assert text == clock(seconds)


def test_bar() -> None:
    """It tells the share, the sizes, the rate and the rest of the time, as far as they are known."""
    known = bar_line(job(rate=2.0 * MIB, eta=2.5))
    unknown = bar_line(job())

    assert "m  [############............]   50 %  5 MiB of 10 MiB  2 MiB/s  0:02 left" == known
    assert "m  [############............]   50 %  5 MiB of 10 MiB" == unknown
    assert "m  resolving" == bar_line(job(phase="resolving", total_bytes=0))
    assert bar_line(job(phase="publishing", progress=99)).endswith("  publishing")
    assert "#............]   52 %  5 MiB of 10 MiB  converting" in bar_line(
        job(phase="converting", progress=52, rate=2.0 * MIB, eta=2.5)
    )


def test_line() -> None:
    """Where there is no terminal, a line tells the step."""
    assert "m: downloading m.gguf, 50 %, 5 MiB of 10 MiB" == step_line(job())
    assert "m: converting m.gguf, 50 %" == step_line(job(phase="converting"))
    assert "m: publishing" == step_line(job(phase="publishing", file_name=""))
    assert "m: queued" == step_line(job(phase="queued", file_name="", total_bytes=0))


def test_escapes() -> None:
    """What a terminal would obey is not written."""
    assert "\x1b" not in bar_line(job(gallery_element_name="\x1b[31mm"))
    assert "\x1b" not in step_line(job(file_name="\x1b[31mm"))


def test_lines_only_for_steps() -> None:
    """A log has a line for each tenth, file and phase, not for each piece."""
    stream = io.StringIO()
    with JobProgress(stream=stream) as progress:
        for percent in (0, 1, 5, 9, 10, 11, 20):
            progress.show(job(progress=percent))
        progress.show(job(phase="completed", file_name=""))

    assert ["0 %", "10 %", "20 %"] == [
        line.split(", ")[1] for line in stream.getvalue().splitlines()[:3]
    ]
    assert "m: completed" == stream.getvalue().splitlines()[3]


def test_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar moves in its line, is no wider than the terminal, and is gone in the end."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "30")
    with JobProgress() as progress:
        progress.show(job())
        progress.show(job(progress=75))

    drawn = terminal.getvalue().split("\r\x1b[K")
    assert ["", "m  [############............]", "m  [##################......]", ""] == drawn
    assert "\n" not in terminal.getvalue()


def test_not_shown() -> None:
    """A program that reads JSON is shown nothing."""
    stream = io.StringIO()
    with JobProgress(is_shown=False, stream=stream) as progress:
        progress.show(job())

    assert "" == stream.getvalue()
