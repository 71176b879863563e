"""What all running backends have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from localplane_server.supervision.backend_client import BackendClient
from localplane_server.supervision.process_table import Entry
from localplane_server.supervision.running import RunningBackend, quoting


class Talker(RunningBackend):
    """A backend that says what tests want."""

    def __init__(self, lines: list[str]) -> None:
        client = cast("BackendClient", None)
        super().__init__("m", client, hidden=[Path("/home/me/models")], secrets=["hush"])
        self._lines = lines

    @property
    def pid(self) -> None: ...

    @property
    def exited(self) -> asyncio.Future[Any]:
        raise NotImplementedError

    def tree_in(self, table: Mapping[int, Entry]) -> list[int]:
        return []

    def ended(self) -> str:
        return "the end"

    async def log_lines(self) -> list[str]:
        return self._lines

    async def stop(
        self, *, free: bool = True, cut_calls: bool = False, within_seconds: float | None = None
    ) -> None: ...

    async def hurry(self, within_seconds: float) -> None: ...


async def test_last_words() -> None:
    """They are told without the folders and the secrets that callers need not know, whatever they are told for."""
    backend = Talker(["opening /home/me/models/a.gguf", "the key is hush"])

    words = await backend.last_words()
    error = await backend.load_error("no /home/me/models/b.gguf")

    assert "opening a.gguf | the key is ***" == words
    assert f"cannot load model m: no b.gguf; last lines of its log: {words}" == error.message


async def test_no_last_words() -> None:
    """One that said nothing is not quoted."""
    words = await Talker([]).last_words()

    assert ("", "it ended") == (words, quoting("it ended", words))
