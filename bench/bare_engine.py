"""The engine of the llama backend called directly, in a process that has nothing else."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xllamacpp

from localplane.localai import backend_pb2
from localplane_backends.llama import settings
from localplane_backends.llama.engine import parameters_for


def load() -> None:
    """For each task, load its file and tell the seconds."""
    for task in _tasks():
        _, seconds = _load(task)
        _tell(seconds)


def chat() -> None:
    """Load the file of the first task, then answer the chat of each other one."""
    tasks = _tasks()
    server, seconds = _load(next(tasks))
    _tell(seconds)
    for task in tasks:
        _tell(_answer(server, task))


def _load(task: dict[str, Any]) -> tuple[Any, float]:
    options = backend_pb2.ModelOptions(
        ModelFile=task["file"], ContextSize=task["context_tokens"], MMap=True, NGPULayers=99_999_999
    )
    folder = Path(tempfile.mkdtemp(prefix="localplane-bench-"))
    parameters = parameters_for(
        xllamacpp, settings.read(options), socket=folder / "engine.sock", key="key"
    )
    began = time.perf_counter()
    server = xllamacpp.Server(parameters)
    return server, time.perf_counter() - began


def _answer(server: Any, body: dict[str, Any]) -> dict[str, float]:
    """Return when pieces came, in seconds: the first, the last; and how many tokens it was."""
    times: list[float] = []
    usage: dict[str, float] = {}

    def take(chunk: dict[str, Any]) -> bool:
        if any(choice["delta"].get("content") for choice in chunk.get("choices", ())):
            times.append(time.perf_counter() - began)
        usage.update(chunk.get("timings") or {})
        return False

    began = time.perf_counter()
    server.handle_chat_completions({**body, "stream": True}, take)
    return {"first": times[0], "last": times[-1], "tokens": usage["predicted_n"]}


def _tasks() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def _tell(result: object) -> None:
    print(json.dumps(result), flush=True)
