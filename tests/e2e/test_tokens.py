"""Token counts across restarts, and the routes that tell them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from served import Served, served, wait_until

WRITTEN_SECONDS = 1.0
"""After this long, the docs say, a count survives whatever ends the service."""


@pytest.fixture
def folder(tmp_path: Path, tiny_gguf: Path) -> Path:
    """A data directory with one model."""
    models = tmp_path / "data" / "models"
    models.mkdir(parents=True)
    shutil.copy(tiny_gguf, models / "tiny.gguf")
    return tmp_path / "data"


def complete(service: Served, tokens: int) -> int:
    """Have the model generate, and return what that cost."""
    answer = service.post(
        "/v1/completions", model="tiny.gguf", prompt="hello", max_tokens=tokens, temperature=0
    )
    return int(answer.json()["usage"]["total_tokens"])


def metrics(service: Served) -> dict[str, Any]:
    answer = service.get("/tokenMetrics", model="tiny.gguf")
    assert 200 == answer.status_code
    body: dict[str, Any] = answer.json()
    return body


def test_clean_stop_loses_nothing(folder: Path) -> None:
    """A stop the moment after a reader left its stream keeps what that cost; the epoch stays."""
    with served(folder=folder) as service:
        spent = complete(service, 5)
        before = metrics(service)
        # The form keeps the model from ending by itself, and slows it.
        schema = {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 400}
        body = {
            "model": "tiny.gguf",
            "messages": [{"role": "user", "content": "x"}],
            "max_tokens": 3000,
            "stream": True,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": schema},
            },
        }
        url = f"http://{service.http}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, timeout=30) as stream:
            lines = stream.iter_lines()
            next(lines)
        service.process.terminate()
        assert 0 == service.process.wait(60)
    with served(folder=folder) as again:
        after = metrics(again)

    assert spent == before["total"]["total_tokens"]
    total = after["total"]
    assert (1, 1, 1) == (total["completions"], total["chats"], total["aborts"])
    assert after["total"]["total_tokens"] > spent
    assert (False, before["epoch"]) == (after["loaded"], after["epoch"])
    assert after["slots"][0]["total"] == after["total"]


@pytest.mark.faults
def test_kill_loses_less_than_a_second(folder: Path) -> None:
    """What was counted a second before the service is killed is there afterwards, and goes on growing."""
    with served(folder=folder) as service:
        spent = complete(service, 5)
        counted = time.monotonic()
        wait_until(lambda: time.monotonic() >= counted + WRITTEN_SECONDS)
        epoch = metrics(service)["epoch"]
        service.process.kill()
        service.process.wait()
    with served(folder=folder) as again:
        kept = metrics(again)
        spent_again = complete(again, 3)
        grown = metrics(again)

    assert (spent, 5, epoch) == (
        kept["total"]["total_tokens"],
        kept["tokens_generated"],
        kept["epoch"],
    )
    assert spent + spent_again == grown["total"]["total_tokens"]
    assert 3 == grown["tokens_generated"]


def test_routes(folder: Path) -> None:
    """All routes and styles of LocalAI answer the same; each refusal has its status."""
    with served(folder=folder) as service:
        never = metrics(service)
        loaded = [one["model"] for one in service.get("/api/backends").json()["backends"]]
        complete(service, 5)
        answers = []
        statuses = []
        for path in ("/tokenMetrics", "/v1/tokenMetrics"):
            url = f"http://{service.http}{path}"
            for verb in ("GET", "POST"):
                for body, query in (({"model": "tiny.gguf"}, {}), ({}, {"model": "tiny.gguf"})):
                    content = json.dumps(body).encode() if body else b""
                    answer = httpx.request(verb, url, content=content, params=query)
                    answers.append(answer.json())
                missing = httpx.request(verb, url)
                unknown = httpx.request(verb, url, params={"model": "nobody"})
                statuses += [
                    (one.status_code, one.json()["error"]["reason"]) for one in (missing, unknown)
                ]
        listed = service.get("/api/token-metrics").json()

    assert [] == loaded
    assert {
        "slot_id": 0,
        "prompt_json_for_slot": "",
        "tokens_per_second": 0,
        "tokens_generated": 0,
        "prompt_tokens_processed": 0,
    }.items() <= never.items()
    assert (False, False, [], None) == (
        never["loaded"],
        never["estimated"],
        never["slots"],
        never["last_prediction_at"],
    )
    assert [answers[0]] * 8 == answers
    assert 5 == answers[0]["tokens_generated"]
    assert {(400, "INVALID_MODEL_NAME"), (404, "MODEL_NOT_FOUND")} == set(statuses)
    assert ["tiny.gguf"] == [one["model"] for one in listed["models"]]
    assert 5 == listed["models"][0]["last_minute"]["counts"]["completion_tokens"]
