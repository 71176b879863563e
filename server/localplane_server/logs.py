"""The service's own log on standard error: text for people, JSON for machines."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol, Self, TextIO

import orjson

from localplane_server import events

life_log = logging.getLogger("localplane_server.backends")
job_log = logging.getLogger("localplane_server.jobs")

INPROCESS = "inprocess"
"""The peer of calls that the service's own gateway makes."""

# Nothing that ends a value, or that seems to begin another.
_PLAIN = re.compile(r'[^ "=\s]*')
FLUSH_SECONDS = 0.05
"""How long lines of the access log wait for others."""
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """One line: time, level, logger, message, then the fields as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback follows it."""
        moment = datetime.fromtimestamp(record.created, UTC)
        stamp = moment.strftime("%H:%M:%S.") + f"{int(record.msecs):03d}"
        parts = [stamp, record.levelname.lower(), record.getMessage()]
        parts += [f"{name}={_shown(value)}" for name, value in _fields(record).items()]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str).decode()


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def _shown(value: object) -> str:
    text = f"{value:.6f}" if isinstance(value, float) else str(value)
    # A value with a line break would forge lines of the log.
    return text if _PLAIN.fullmatch(text) and text.isprintable() else repr(text)


class AccessLog:
    """Writes one line for each request and each call.

    The lines are those that `logging` would write, but come about without it: a record, its
    handlers and its formatter cost eight times as much as all else that happens around a call.
    They are made and written together, up to 50 ms later: a line made in the middle of a call finds
    nothing of its code in the processor's caches, and a write has gRPC's thread take over the
    interpreter. As a context, it writes at its end what still waits.

    Args:
        stream: Where they go.
        log_format: `text` or `json`.
        debug: Whether a call that came over HTTP has a line besides that of its request, under the
            same identifier.
    """

    def __init__(self, stream: TextIO, log_format: str, *, debug: bool) -> None:
        self._stream = stream
        self._lines: _Lines = _JsonLines() if log_format == "json" else _TextLines()
        self._is_debug = debug
        self._waiting: list[tuple[float, events.RequestFinished | events.CallFinished]] = []

    def listen(self, bus: events.Events) -> None:
        """Write what happens from now on."""
        bus.listen(events.RequestFinished, self._note)
        bus.listen(events.CallFinished, self._note_call)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def flush(self) -> None:
        """Write the lines that wait."""
        waiting, self._waiting = self._waiting, []
        self._stream.writelines(map(self._line, waiting))
        self._stream.flush()

    def _note(self, event: events.RequestFinished | events.CallFinished) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        self._waiting.append((time.time(), event))

    def _note_call(self, event: events.CallFinished) -> None:
        if self._is_debug or event.peer != INPROCESS:
            self._note(event)

    def _line(self, noted: tuple[float, events.RequestFinished | events.CallFinished]) -> str:
        moment, event = noted
        if isinstance(event, events.RequestFinished):
            return self._lines.of_request(moment, event)
        level = "debug" if event.peer == INPROCESS else "info"
        return self._lines.of_call(moment, level, event)


class _Lines(Protocol):
    """Makes the lines of the access log."""

    def of_request(self, moment: float, event: events.RequestFinished) -> str: ...

    def of_call(self, moment: float, level: str, event: events.CallFinished) -> str: ...


class _TextLines:
    """Makes lines of text. The time of a second is made once."""

    def __init__(self) -> None:
        self._second = -1
        self._time = ""

    def of_request(self, moment: float, event: events.RequestFinished) -> str:
        # A route is as it stands in the document, and identifiers are checked where they come in.
        return (
            f"{self._stamp(moment)} info request method={_shown(event.method)} route={event.route}"
            f" status={event.status} seconds={event.seconds:.6f} request_id={event.request_id}\n"
        )

    def of_call(self, moment: float, level: str, event: events.CallFinished) -> str:
        reason = f" reason={event.reason}" if event.reason else ""
        return (
            f"{self._stamp(moment)} {level} call method={event.method} code={event.code}{reason}"
            f" seconds={event.seconds:.6f} peer={_shown(event.peer)} request_id={event.request_id}\n"
        )

    def _stamp(self, moment: float) -> str:
        second = int(moment)
        if second != self._second:
            self._second = second
            self._time = datetime.fromtimestamp(second, UTC).strftime("%H:%M:%S")
        return f"{self._time}.{int((moment - second) * 1000):03d}"


class _JsonLines:
    """Makes JSON objects, one a line."""

    def of_request(self, moment: float, event: events.RequestFinished) -> str:
        fields = {
            "method": event.method,
            "route": event.route,
            "status": event.status,
            "seconds": event.seconds,
            "request_id": event.request_id,
        }
        return self._line(moment, "info", "request", fields)

    def of_call(self, moment: float, level: str, event: events.CallFinished) -> str:
        fields = {
            "method": event.method,
            "code": event.code,
            **({"reason": event.reason} if event.reason else {}),
            "seconds": event.seconds,
            "peer": event.peer,
            "request_id": event.request_id,
        }
        return self._line(moment, level, "call", fields)

    def _line(self, moment: float, level: str, message: str, fields: Mapping[str, object]) -> str:
        entry = {
            "time": datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds"),
            "level": level,
            "logger": "localplane_server.access",
            "message": message,
            **fields,
        }
        return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE).decode()


def set_up_logging(log_format: str, *, debug: bool) -> AccessLog:
    """Send all logs to standard error in the format asked for, and return the one of calls."""
    # Has a buffer, unlike `sys.stderr`. The handler flushes it after each line, and when Python ends.
    stream = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True
    )
    # These tell of every call what the access log tells already.
    for name in ("connexion", "uvicorn", "asyncio", "hpack", "httpcore"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return AccessLog(stream, log_format, debug=debug)


def log_events(bus: events.Events) -> None:
    """Log the lives of backends and of jobs, from now on."""
    bus.listen(events.BackendReady, _log_ready)
    bus.listen(events.BackendFailed, _log_failed)
    bus.listen(events.BackendStopped, _log_stopped)
    bus.listen(events.BackendCooling, _log_cooling)
    bus.listen(events.JobMoved, _log_job)


def _log_ready(event: events.BackendReady) -> None:
    fields = {"model": event.model, "backend": event.backend, "backend_pid": event.pid}
    life_log.info("backend is ready", extra={**fields, "seconds": event.seconds})


def _log_failed(event: events.BackendFailed) -> None:
    fields = {"model": event.model, "backend": event.backend, "cause": event.message}
    life_log.warning("backend failed", extra=fields)


def _log_stopped(event: events.BackendStopped) -> None:
    fields = {"model": event.model, "backend": event.backend, "seconds": event.seconds}
    fields |= {"cut_calls": event.cut_calls, "cause": event.cause}
    life_log.info("backend is stopped", extra=fields)


def _log_cooling(event: events.BackendCooling) -> None:
    fields = {"model": event.model, "backend": event.backend, "failures": event.failures}
    life_log.warning("backend is left alone", extra={**fields, "seconds": event.seconds})


def _log_job(event: events.JobMoved) -> None:
    fields = {"job": event.job, "kind": event.kind, "target": event.target}
    if event.reason:
        fields |= {"reason": event.reason, "cause": event.message}
    level = logging.WARNING if event.reason else logging.INFO
    job_log.log(level, "job is %s", event.state, extra=fields)
