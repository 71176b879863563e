"""Times a chat with a server that speaks OpenAI's API, through the service and past it.

Usage: ``python bench/openai_backend.py [--json] [--rounds N]``. Both ask the same llama.cpp server the
same, greedily and streamed: once through REST, `serve` and the openai backend, once directly. With
SmolLM2 the answer takes its time, as answers do; the tiny model talks far faster than any real one, so
there it is seen how many tokens a second the way through can carry.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from chat import Answer, ask
from model_files import CONTEXT_TOKENS, Model, folder_of_models, has_engine
from programs import Server, bare, cpu_seconds, service
from rounds import Reading, Result, arguments, comparison, report, take_turns

TOKENS = {"smollm2": 64, "tiny": 400}
TARGET = 0.97
LIMIT_MS = 10.0
BACKEND = "far"


def main() -> None:
    """Compare and print."""
    options = arguments(__doc__, rounds=12)
    results: list[Result] = []
    if has_engine():
        with folder_of_models() as (folder, models):
            for model in models:
                results += _compare(folder, model, options.rounds)
    report(results, as_json=options.json)


def _compare(folder: Path, model: Model, rounds: int) -> Iterator[Result]:
    tokens = TOKENS[model.name]
    name = f"{BACKEND}-{model.name}"
    (folder / f"{name}.yaml").write_text(
        f"name: {name}\nbackend: {BACKEND}\nparameters: {{model: {model.file.name}}}\n"
    )
    loading = {"MODEL_FILE": str(model.file), "CONTEXT_TOKENS": str(CONTEXT_TOKENS)}
    with (
        bare("serve_llama", OMP_WAIT_POLICY="PASSIVE", **loading) as far,
        service("--openai-backends", f"{BACKEND}=http://{far.http}", models=folder) as server,
    ):
        body: dict[str, Any] = {"model": name, "max_tokens": tokens, "temperature": 0.0}

        def take(subject: str, rounds: int) -> list[tuple[Answer, Answer]]:
            message = {"role": "user", "content": f"{subject}: tell me about a fox at the sea."}
            asked = body | {"messages": [message]}
            return take_turns(
                lambda: ask(server.http, asked), lambda: ask(far.http, asked), rounds=rounds
            )

        take("now", 1)  # loads the model
        backend = _backend(server)
        before = cpu_seconds(backend)
        pairs = take("now", rounds)
        taken = cpu_seconds(backend) - before
    yield comparison(
        f"{model.name} by a server, tokens",
        [(mine.per_second, other.per_second) for mine, other in pairs],
        unit="/s",
        target=TARGET if model.name != "tiny" else None,
        is_more_better=True,
    )
    yield comparison(
        f"{model.name} by a server, first token",
        [(mine.first * 1000, other.first * 1000) for mine, other in pairs],
        unit="ms",
        limit=LIMIT_MS,
    )
    yield Reading(
        name=f"{model.name}, backend's time for a token",
        unit="us",
        value=taken / sum(mine.tokens for mine, _ in pairs) * 1e6,
    )


def _backend(server: Server) -> int:
    """Return the process of the openai backend."""
    for one in psutil.Process(server.pid).children(recursive=True):
        if "localplane_backends.openai" in one.cmdline():
            pid: int = one.pid
            return pid
    raise RuntimeError("there is no backend")


if __name__ == "__main__":
    main()
