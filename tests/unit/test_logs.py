"""The service's own log."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from localplane_server.events import CallFinished, Events, RequestFinished
from localplane_server.logs import AccessLog, JsonFormatter, TextFormatter

REQUEST = {
    "method": "GET",
    "route": "/api/models/{name}",
    "status": 404,
    "seconds": 0.25,
    "request_id": "one",
}
CALL = {
    "method": "/localplane.v1.ModelService/GetModel",
    "code": "NOT_FOUND",
    "reason": "MODEL_NOT_FOUND",
    "seconds": 0.25,
    "peer": "ipv4:127.0.0.1:4711",
    "request_id": "one",
}


def request(**changes: object) -> RequestFinished:
    return RequestFinished(**{**REQUEST, **changes})  # type: ignore[arg-type]


def call(**changes: object) -> CallFinished:
    return CallFinished(**{**CALL, **changes})  # type: ignore[arg-type]


def written(event: object, log_format: str, *, debug: bool = False) -> str:
    async def emit() -> str:
        stream, bus = io.StringIO(), Events()
        with AccessLog(stream, log_format, debug=debug) as access_log:
            access_log.listen(bus)
            bus.emit(event)
        return stream.getvalue()

    return asyncio.run(emit())


class Slow(io.StringIO):
    """A stream that shows nothing before it is flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = ""
        self.flushed = asyncio.Event()

    def flush(self) -> None:
        self.shown = self.getvalue()
        self.flushed.set()


def record(**fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": "call", "levelname": "INFO", "created": 0.5, **fields})


class TestAccessLog:
    @pytest.mark.parametrize(
        ("event", "rest"),
        [
            (
                request(),
                (
                    "request method=GET route=/api/models/{name} status=404 seconds=0.250000"
                    " request_id=one"
                ),
            ),
            (
                call(),
                (
                    "call method=/localplane.v1.ModelService/GetModel code=NOT_FOUND"
                    " reason=MODEL_NOT_FOUND seconds=0.250000 peer=ipv4:127.0.0.1:4711 request_id=one"
                ),
            ),
        ],
        ids=["request", "call"],
    )
    def test_text(self, event: object, rest: str) -> None:
        """Each is one line: time, level and message, then what there is to say of it."""
        line = written(event, "text")

        assert re.fullmatch(rf"\d\d:\d\d:\d\d\.\d{{3}} info {re.escape(rest)}\n", line)

    @pytest.mark.parametrize(
        ("event", "message", "fields"),
        [(request(), "request", REQUEST), (call(), "call", CALL)],
        ids=["request", "call"],
    )
    def test_json(self, event: object, message: str, fields: dict[str, object]) -> None:
        """In JSON each is one object a line with the same fields, and the time in full."""
        line = written(event, "json")
        entry = json.loads(line)
        time = datetime.fromisoformat(entry.pop("time"))

        assert line.endswith("}\n")
        assert timedelta(0) == time.utcoffset()
        head = {"level": "info", "logger": "localplane_server.access", "message": message}
        assert head | fields == entry

    @pytest.mark.parametrize("log_format", ["text", "json"])
    def test_no_reason(self, log_format: str) -> None:
        """A call that succeeded has no reason, not an empty one."""
        assert "reason" not in written(call(code="OK", reason=""), log_format)

    def test_call_of_gateway(self) -> None:
        """A call that came over HTTP is logged as its request, and besides only for debugging."""
        event = call(peer="inprocess")

        assert "" == written(event, "text")
        assert " debug call " in written(event, "text", debug=True)

    @pytest.mark.parametrize("log_format", ["text", "json"])
    def test_forged_line(self, log_format: str) -> None:
        """Nothing that a caller can name begins a line or a field of its own."""
        line = written(call(peer="unix:a b=c\n12:00:00 info call"), log_format)

        assert 1 == line.count("\n")
        assert " b=c\n" not in line

    async def test_flushes_by_itself(self) -> None:
        """Lines come together, and no line waits for another that may never come."""
        stream, bus = Slow(), Events()
        AccessLog(stream, "text", debug=False).listen(bus)
        for identifier in ("one", "two"):
            bus.emit(call(request_id=identifier))

        assert "" == stream.shown

        await stream.flushed.wait()

        assert 2 == stream.shown.count("\n")

    async def test_time(self) -> None:
        """A line tells when its call ended, not when it was written."""
        stream, bus = io.StringIO(), Events()
        access_log = AccessLog(stream, "json", debug=False)
        access_log.listen(bus)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("time.time", lambda: 0.5)
            bus.emit(call())
        access_log.flush()

        assert "1970-01-01T00:00:00.500+00:00" == json.loads(stream.getvalue())["time"]

    def test_same_line_as_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A line looks like those that `logging` writes of everything else."""
        monkeypatch.setattr("time.time", lambda: 0.5)
        peer = 'unix:/tmp/a "b"'

        expected = TextFormatter().format(record(msecs=500.0, **{**CALL, "peer": peer})) + "\n"

        assert expected == written(call(peer=peer), "text")


class TestFormatters:
    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            ("plain", "plain"),
            ("a b", "'a b'"),
            ("a\nb", r"'a\nb'"),
            ("a=b", "'a=b'"),
            (1.5, "1.500000"),
        ],
    )
    def test_text_values(self, value: object, shown: str) -> None:
        """A value that could be taken for more than one, or for a line, is quoted."""
        line = TextFormatter().format(record(msecs=500.0, value=value))

        assert f"00:00:00.500 info call value={shown}" == line

    @pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter], ids=["text", "json"])
    def test_traceback(self, formatter: Callable[[], logging.Formatter]) -> None:
        """An exception is logged with its traceback."""
        try:
            raise ValueError("secret")
        except ValueError as error:
            caught = (type(error), error, error.__traceback__)

        assert "ValueError: secret" in formatter().format(record(msecs=0.0, exc_info=caught))
