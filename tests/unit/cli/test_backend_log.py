"""Logs of backends, for people."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from localplane.v1 import backend_log_pb2 as log
from localplane_server.cli.backend_log import LogPrinter

OUT, ERR = log.BACKEND_LOG_STREAM_STDOUT, log.BACKEND_LOG_STREAM_STDERR


def line(
    text: str, stream: log.BackendLogStream.ValueType = OUT, *, is_partial: bool = False
) -> log.BackendLogRecord:
    return record(log.BACKEND_LOG_KIND_OUTPUT, text, stream=stream, is_partial=is_partial)


def record(
    kind: log.BackendLogKind.ValueType,
    text: str | None,
    *,
    stream: log.BackendLogStream.ValueType | None = None,
    is_partial: bool = False,
) -> log.BackendLogRecord:
    time = Timestamp()
    time.FromDatetime(datetime(2026, 1, 31, 12, 0, 0, 7000, UTC))
    return log.BackendLogRecord(
        kind=kind, text=text, stream=stream, is_partial=is_partial, time=time
    )


def printed(*records: log.BackendLogRecord, has_times: bool = False) -> str:
    printer = LogPrinter(has_times=has_times)
    text = "".join(printer.text(one) for one in records) + printer.end()
    return click.unstyle(text)


@pytest.mark.parametrize("has_times", [False, True])
def test_lines_and_marks(has_times: bool) -> None:  # noqa: FBT001
    """A line stands as it is; what the service says stands out; that it is live is not worth a line."""
    text = printed(
        record(log.BACKEND_LOG_KIND_STARTED, "process 7 started"),
        line("hello"),
        record(log.BACKEND_LOG_KIND_LIVE, None),
        line(""),
        has_times=has_times,
    )

    time = "2026-01-31 12:00:00.007 "
    before = time if has_times else ""
    assert f"=== {time}process 7 started\n{before}hello\n{before}\n" == text


def test_pieces() -> None:
    """Pieces of a line become one line, and another stream's line is not put into it."""
    assert "Loading ... done\n" == printed(line("Loading ... ", is_partial=True), line("done"))
    assert "Load\noh\ning\n" == printed(line("Load", is_partial=True), line("oh", ERR), line("ing"))
    assert "never ended\n" == printed(line("never ended", is_partial=True))


def test_terminal() -> None:
    """What a backend writes does nothing to a terminal."""
    assert "red\n" == printed(line("\x1b[31mred\x1b[0m\x07"))
