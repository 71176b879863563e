"""Records of logs as messages."""

from __future__ import annotations

from datetime import datetime

from localplane.v1 import backend_log_pb2
from localplane_server.rpc.convert import timestamp
from localplane_server.supervision import log_record
from localplane_server.supervision.log_record import LONGEST_SEQUENCE, LogRecord

KINDS = {
    log_record.OUTPUT: backend_log_pb2.BACKEND_LOG_KIND_OUTPUT,
    log_record.ERRORS: backend_log_pb2.BACKEND_LOG_KIND_OUTPUT,
    log_record.STARTED: backend_log_pb2.BACKEND_LOG_KIND_STARTED,
    log_record.ENDED: backend_log_pb2.BACKEND_LOG_KIND_ENDED,
    log_record.LOST: backend_log_pb2.BACKEND_LOG_KIND_LOST,
    log_record.GONE: backend_log_pb2.BACKEND_LOG_KIND_GONE,
    log_record.LIVE: backend_log_pb2.BACKEND_LOG_KIND_LIVE,
}

STREAMS = {
    log_record.OUTPUT: backend_log_pb2.BACKEND_LOG_STREAM_STDOUT,
    log_record.ERRORS: backend_log_pb2.BACKEND_LOG_STREAM_STDERR,
}


def log_record_to_proto(record: LogRecord) -> backend_log_pb2.BackendLogRecord:
    """Return a record as a message."""
    kind = record.kind.removesuffix(log_record.MORE)
    return backend_log_pb2.BackendLogRecord(
        sequence=record.sequence,
        time=timestamp(_moment(record.time)),
        kind=KINDS[kind],
        stream=STREAMS.get(kind),
        text=None if kind == log_record.LIVE else record.text.decode(errors="replace"),
        pid=record.pid or None,
        is_partial=kind != record.kind,
    )


def sequence_of(event_id: str) -> int | None:
    """Return the sequence in the id of an event, or None when it is none of ours."""
    is_ours = event_id.isascii() and event_id.isdigit() and len(event_id) <= LONGEST_SEQUENCE
    return int(event_id) if is_ours else None


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None  # somebody has edited the file
