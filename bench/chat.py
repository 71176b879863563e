"""Times a chat with SmolLM2 through REST, streamed, against the engine called directly.

Usage: ``python bench/chat.py [--json] [--rounds N]``. Both run the same settings and answer the same
messages greedily. Speed is measured from the first piece to the last, the time to the first token
from the request. It is measured with a prompt that is known already, too: then the engine needs so
little that what the service adds can be told from noise.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_files import CONTEXT_TOKENS, Model, folder_of_models, has_engine
from programs import Worker, cpu_seconds, service
from rounds import Reading, Result, arguments, comparison, report, take_turns

MODEL = "smollm2"
TOKENS = 64
FEW_TOKENS = 4
TARGET = 0.97
LIMIT_MS = 5.0
TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it came."""

    first: float
    """Seconds until its first piece."""

    last: float
    """Seconds until its last piece."""

    tokens: int
    """How many tokens it was."""

    @property
    def per_second(self) -> float:
        """Tokens in a second, once the first was there."""
        return (self.tokens - 1) / (self.last - self.first)


Ask = Callable[[dict[str, Any]], Answer]


def main() -> None:
    """Compare and print."""
    options = arguments(__doc__, rounds=16)
    results: list[Result] = []
    if has_engine():
        with folder_of_models() as (folder, models):
            # Without the model it has been said already why.
            for model in models:
                if model.name == MODEL:
                    results = _compare(folder, model, options.rounds)
    report(results, as_json=options.json)


def _compare(folder: Path, model: Model, rounds: int) -> list[Result]:
    with service(models=folder) as server, Worker("chat") as engine:
        engine.do(file=str(model.file), context_tokens=CONTEXT_TOKENS)

        def ours(body: dict[str, Any]) -> Answer:
            return ask(server.http, body | {"model": MODEL})

        def base(body: dict[str, Any]) -> Answer:
            return Answer(**engine.do(**body))

        _turns(ours, base, "now", FEW_TOKENS, rounds=1)  # loads the model
        before = cpu_seconds(server.pid)
        fresh = [
            pair
            for number in range(rounds)
            for pair in _turns(ours, base, str(number), TOKENS, rounds=1)
        ]
        taken = cpu_seconds(server.pid) - before
        known = _turns(ours, base, "now", FEW_TOKENS, rounds=1 + 3 * rounds)[1:]
    return [
        comparison(
            "chat, tokens",
            [(mine.per_second, other.per_second) for mine, other in fresh],
            unit="/s",
            target=TARGET,
            is_more_better=True,
        ),
        comparison(
            "chat, first token, known prompt",
            [(mine.first * 1000, other.first * 1000) for mine, other in known],
            unit="ms",
            limit=LIMIT_MS,
        ),
        comparison(
            "chat, first token, new prompt",
            [(mine.first * 1000, other.first * 1000) for mine, other in fresh],
            unit="ms",
        ),
        Reading(
            name="serve, processor time for a token",
            unit="us",
            value=taken / sum(mine.tokens for mine, _ in fresh) * 1e6,
        ),
    ]


def _turns(
    ours: Ask, base: Ask, subject: str, tokens: int, *, rounds: int
) -> list[tuple[Answer, Answer]]:
    body = {
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": f"Chapter {subject}: tell me about a fox at the sea."},
        ],
        "max_tokens": tokens,
        "temperature": 0.0,
    }
    return take_turns(lambda: ours(body), lambda: base(body), rounds=rounds)


def ask(address: str, body: dict[str, Any]) -> Answer:
    """Have a server that speaks OpenAI's API answer a chat as a stream."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    text = json.dumps(body | options)
    lines: list[tuple[float, bytes]] = []
    began = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", text, {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == http.client.OK, response.read()
    while line := response.readline():
        lines.append((time.perf_counter() - began, line))
    connection.close()
    # Read only now: the engine should not have to share its core with this program.
    assert lines[-2][1] == b"data: [DONE]\n"
    times: list[float] = []
    tokens = 0
    for seconds, line in lines[:-2]:
        if line.startswith(b"data: "):
            chunk = json.loads(line.removeprefix(b"data: "))
            if any(choice["delta"].get("content") for choice in chunk["choices"]):
                times.append(seconds)
            if chunk.get("usage"):
                tokens = chunk["usage"]["completion_tokens"]
    return Answer(times[0], times[-1], tokens)


if __name__ == "__main__":
    main()
