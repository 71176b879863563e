"""The access log of a service that ends."""

from __future__ import annotations

import signal
from pathlib import Path

from served import PATIENCE_SECONDS, served


def test_end(tmp_path: Path) -> None:
    """What was asked right before the end is in the log: no line is lost in a buffer."""
    with served(folder=tmp_path / "data") as service:
        identifier = service.get("/version").headers["x-request-id"]
        service.process.send_signal(signal.SIGTERM)

        assert 0 == service.process.wait(PATIENCE_SECONDS)

    lines = [line for line in service.log.read_text().splitlines() if identifier in line]

    assert 1 == len(lines)
    assert " info request method=GET route=/version status=200 " in lines[0]
