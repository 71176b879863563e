"""The service's own log on standard error: text for people, JSON for machines."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol, TextIO

import orjson

from localplane_server import events

life_log = logging.getLogger("localplane_server.backends")

INPROCESS = "inprocess"
"""The peer of calls that the service's own gateway makes."""

# Nothing that ends a value, or that seems to begin another.
_PLAIN = re.compile(r'[^ "=\s]*')
FLUSH_SECONDS = 0.05
"""How long a line of the access log may wait for others."""
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
    They are written together, a moment later or with the next line of another log: each write has
    gRPC's thread take over the interpreter, which costs more than the write.

    Args:
        stream: Where they go. Whoever gives it flushes it at the end.
        log_format: `text` or `json`.
        debug: Whether a call that came over HTTP has a line besides that of its request, under the
            same identifier.
    """

    def __init__(self, stream: TextIO, log_format: str, *, debug: bool) -> None:
        self._stream = stream
        self._lines: _Lines = _JsonLines() if log_format == "json" else _TextLines()
        self._is_debug = debug
        self._will_flush = False

    def listen(self, bus: events.Events) -> None:
        """Write what happens from now on."""
        bus.listen(events.RequestFinished, self._log_request)
        bus.listen(events.CallFinished, self._log_call)

    def _log_request(self, event: events.RequestFinished) -> None:
        self._write(self._lines.of_request(event))

    def _log_call(self, event: events.CallFinished) -> None:
        is_from_gateway = event.peer == INPROCESS
        if self._is_debug or not is_from_gateway:
            self._write(self._lines.of_call(event, "debug" if is_from_gateway else "info"))

    def _write(self, line: str) -> None:
        self._stream.write(line)
        if not self._will_flush:
            self._will_flush = True
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._will_flush = False
        self._stream.flush()


class _Lines(Protocol):
    """Makes the lines of the access log."""

    def of_request(self, event: events.RequestFinished) -> str: ...

    def of_call(self, event: events.CallFinished, level: str) -> str: ...


class _TextLines:
    """Makes lines of text. The time of a second is made once."""

    def __init__(self) -> None:
        self._second = -1
        self._time = ""

    def of_request(self, event: events.RequestFinished) -> str:
        # A route is as it stands in the document, and identifiers are checked where they come in.
        return (
            f"{self._now()} info request method={_shown(event.method)} route={event.route}"
            f" status={event.status} seconds={event.seconds:.6f} request_id={event.request_id}\n"
        )

    def of_call(self, event: events.CallFinished, level: str) -> str:
        reason = f" reason={event.reason}" if event.reason else ""
        return (
            f"{self._now()} {level} call method={event.method} code={event.code}{reason}"
            f" seconds={event.seconds:.6f} peer={_shown(event.peer)} request_id={event.request_id}\n"
        )

    def _now(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._time = datetime.fromtimestamp(second, UTC).strftime("%H:%M:%S")
        return f"{self._time}.{int((now - second) * 1000):03d}"


class _JsonLines:
    """Makes JSON objects, one a line."""

    def of_request(self, event: events.RequestFinished) -> str:
        fields = {
            "method": event.method,
            "route": event.route,
            "status": event.status,
            "seconds": event.seconds,
            "request_id": event.request_id,
        }
        return self._line("info", "request", fields)

    def of_call(self, event: events.CallFinished, level: str) -> str:
        fields = {
            "method": event.method,
            "code": event.code,
            **({"reason": event.reason} if event.reason else {}),
            "seconds": event.seconds,
            "peer": event.peer,
            "request_id": event.request_id,
        }
        return self._line(level, "call", fields)

    def _line(self, level: str, message: str, fields: Mapping[str, object]) -> str:
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
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
    """Log the lives of backends, from now on."""
    bus.listen(events.BackendReady, _log_ready)
    bus.listen(events.BackendFailed, _log_failed)
    bus.listen(events.BackendStopped, _log_stopped)


def _log_ready(event: events.BackendReady) -> None:
    fields = {"model": event.model, "backend": event.backend, "backend_pid": event.pid}
    life_log.info("backend is ready", extra={**fields, "seconds": event.seconds})


def _log_failed(event: events.BackendFailed) -> None:
    fields = {"model": event.model, "backend": event.backend, "cause": event.message}
    life_log.warning("backend failed", extra=fields)


def _log_stopped(event: events.BackendStopped) -> None:
    fields = {"model": event.model, "backend": event.backend, "seconds": event.seconds}
    life_log.info("backend is stopped", extra={**fields, "cut_calls": event.cut_calls})
