"""The engine's own HTTP listener, for the few things that it offers nowhere else."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 60.0


class ListenerError(Exception):
    """The engine refused, or failed to answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        """In HTTP's numbers."""


class Listener:
    """Calls the engine over its unix socket. Calls block; they may come from any thread."""

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def get(self, route: str, timeout_seconds: float = TIMEOUT_SECONDS) -> Any:
        """Return what a route answers."""
        return self._call("GET", route, None, timeout_seconds)

    def post(self, route: str, body: dict[str, Any]) -> Any:
        """Return what a route answers to a body."""
        return self._call("POST", route, json.dumps(body), TIMEOUT_SECONDS)

    def _call(self, method: str, route: str, body: str | None, timeout_seconds: float) -> Any:
        connection = http.client.HTTPConnection("localhost", timeout=timeout_seconds)
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(timeout_seconds)
            connection.sock.connect(str(self._path))
            connection.request(method, route, body, self._headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ListenerError(503, f"the engine does not answer: {error}") from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise ListenerError(response.status, str(answer["error"]["message"]))
        return answer
