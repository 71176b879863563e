"""The service's own log on standard error: text for people, JSON for machines."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

from localplane_server import events

access_log = logging.getLogger("localplane_server.access")
life_log = logging.getLogger("localplane_server.backends")

INPROCESS = "inprocess"
"""The peer of calls that the service's own gateway makes."""

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
    return (
        repr(text) if any(char in text for char in ' "\n\r\t=') or not text.isprintable() else text
    )


def set_up_logging(log_format: str, *, debug: bool) -> None:
    """Send all logs to standard error in the format asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO, handlers=[handler], force=True
    )
    # These tell of every call what the access log tells already.
    for name in ("connexion", "uvicorn", "asyncio", "hpack", "httpcore"):
        logging.getLogger(name).setLevel(logging.ERROR)


def log_events(bus: events.Events) -> None:
    """Log requests, calls and the lives of backends, from now on."""
    bus.listen(events.RequestFinished, _log_request)
    bus.listen(events.CallFinished, _log_call)
    bus.listen(events.BackendReady, _log_ready)
    bus.listen(events.BackendFailed, _log_failed)
    bus.listen(events.BackendStopped, _log_stopped)


def _log_request(event: events.RequestFinished) -> None:
    access_log.info(
        "request",
        extra={
            "method": event.method,
            "route": event.route,
            "status": event.status,
            "seconds": event.seconds,
            "request_id": event.request_id,
        },
    )


def _log_call(event: events.CallFinished) -> None:
    # What came over HTTP is logged as a request, under the same id.
    level = logging.DEBUG if event.peer == INPROCESS else logging.INFO
    if not access_log.isEnabledFor(level):
        return
    access_log.log(
        level,
        "call",
        extra={
            "method": event.method,
            "code": event.code,
            **({"reason": event.reason} if event.reason else {}),
            "seconds": event.seconds,
            "peer": event.peer,
            "request_id": event.request_id,
        },
    )


def _log_ready(event: events.BackendReady) -> None:
    fields = {"model": event.model, "backend": event.backend, "backend_pid": event.pid}
    life_log.info("backend is ready", extra={**fields, "seconds": event.seconds})


def _log_failed(event: events.BackendFailed) -> None:
    fields = {"model": event.model, "backend": event.backend, "cause": event.message}
    life_log.warning("backend failed", extra=fields)


def _log_stopped(event: events.BackendStopped) -> None:
    fields = {"model": event.model, "backend": event.backend, "seconds": event.seconds}
    life_log.info("backend is stopped", extra={**fields, "cut_calls": event.cut_calls})
