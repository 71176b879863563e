"""What `localplane tokens` shows to people."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from google.protobuf.timestamp_pb2 import Timestamp

from localplane.v1 import (
    token_metrics_pb2,
    token_metrics_service_pb2,
    token_metrics_service_pb2_grpc,
)
from localplane_server.cli import main

Base: Any = (
    token_metrics_service_pb2_grpc.TokenMetricsServiceServicer
)  # untyped, as it misses nothing

EPOCH = Timestamp(seconds=1_800_000_000)
ZEROS = token_metrics_pb2.TokenCounts()
SOME = token_metrics_pb2.TokenCounts(
    prompt_tokens=20, completion_tokens=5, total_tokens=25, completions=1, chats=2, aborts=1
)
MORE = token_metrics_pb2.TokenCounts(
    prompt_tokens=400, completion_tokens=90, total_tokens=490, chats=7, embeddings=3, errors=2
)


def window(counts: token_metrics_pb2.TokenCounts, rate: float) -> token_metrics_pb2.TokenWindow:
    return token_metrics_pb2.TokenWindow(
        seconds=60, counts=counts, completion_tokens_per_second=rate
    )


ASKED = token_metrics_pb2.ModelTokenMetrics(
    model="asked",
    last_minute=window(ZEROS, 0),
    last_five_minutes=window(SOME, 0.25),
    last_hour=window(SOME, 0.04),
    total=MORE,
)


class Tokens(Base):  # type: ignore[misc]  # see above
    """Knows a model with two slots and one that was never asked, and counts what it is called for."""

    def __init__(self) -> None:
        self.models = [ASKED]
        self.calls: list[str] = []

    def GetTokenMetrics(  # noqa: N802 - the proto's
        self, request: token_metrics_service_pb2.GetTokenMetricsRequest, context: Any
    ) -> token_metrics_pb2.TokenMetrics:
        self.calls.append("get")
        answer = token_metrics_pb2.TokenMetrics(model=request.model, epoch=EPOCH)
        if request.model == "asked":
            answer.MergeFrom(
                token_metrics_pb2.TokenMetrics(
                    loaded=True,
                    estimated=True,
                    tokens_per_second=12.34,
                    tokens_generated=5,
                    prompt_tokens_processed=9,
                    slots=[
                        token_metrics_pb2.TokenSlot(
                            slot_id=0, last_prediction_at=EPOCH, total=MORE
                        ),
                        token_metrics_pb2.TokenSlot(slot_id=1, tokens_generated=5, total=SOME),
                    ],
                )
            )
        return answer

    def ListTokenMetrics(  # noqa: N802 - the proto's
        self, request: token_metrics_service_pb2.ListTokenMetricsRequest, context: Any
    ) -> token_metrics_service_pb2.ListTokenMetricsResponse:
        self.calls.append("list")
        return token_metrics_service_pb2.ListTokenMetricsResponse(models=self.models, epoch=EPOCH)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tokens]:
    tokens = Tokens()
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    token_metrics_service_pb2_grpc.add_TokenMetricsServiceServicer_to_server(tokens, server)
    target = f"unix:{tmp_path / 'socket'}"
    server.add_insecure_port(target)
    server.start()
    monkeypatch.setenv("LOCALPLANE_GRPC", target)
    yield tokens
    server.stop(None).wait(1)


def shown(*arguments: str) -> list[list[str]]:
    """Return the words of each line."""
    result = CliRunner().invoke(main, ["tokens", *arguments])
    assert (0, "") == (result.exit_code, result.stderr)
    return [line.split() for line in result.stdout.splitlines()]


WINDOWS = [
    ["MODEL", "TIME", "CALLS", "PROMPT", "GENERATED", "PER", "SECOND", "ERRORS", "ABORTS"],
    ["asked", "1", "min", "0", "0", "0", "0.0", "0", "0"],
    ["5", "min", "3", "20", "5", "0.2", "0", "1"],
    ["1", "h", "3", "20", "5", "0.0", "0", "1"],
    ["total", "10", "400", "90", "-", "2", "0"],
]
SINCE = ["totals", "count", "since", "2027-01-15", "08:00", "UTC"]


def test_all_models(service: Tokens) -> None:
    """Four rows for each model, and since when the totals count."""
    assert [*WINDOWS, SINCE] == shown()
    assert ["list"] == service.calls


def test_no_model_was_asked(service: Tokens) -> None:
    """There is no table of nothing."""
    service.models = []

    assert [["no", "model", "was", "asked", "yet"]] == shown()


@pytest.mark.usefixtures("service")
def test_one_model() -> None:
    """Its last prediction, its rows, and its slots."""
    lines = shown("asked")

    last = "last 9 of the prompt computed, 5 generated, 12.3 a second, running (estimated)"
    assert [["model", "asked"], ["loaded", "yes"], last.split(), []] == lines[:4]
    assert [*WINDOWS, []] == lines[4:10]
    assert [["0", "0", "0", "0.0"], ["1", "0", "5", "0.0"]] == [line[:4] for line in lines[11:13]]
    assert (["running", "25"], SINCE) == (lines[12][4:], lines[13])


@pytest.mark.usefixtures("service")
def test_model_that_was_never_asked() -> None:
    """It has no rows, and that is no error."""
    assert [["model", "never"], ["loaded", "no"], ["last", "none"], SINCE] == shown("never")


def test_json_asks_once(service: Tokens) -> None:
    """What only people see is not asked for."""
    result = CliRunner().invoke(main, ["tokens", "asked", "--json"])

    assert 0 == result.exit_code
    assert ["get"] == service.calls
