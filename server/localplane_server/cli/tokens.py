"""`localplane tokens`: how many tokens went through the models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC

import click

from localplane.v1 import token_metrics_pb2, token_metrics_service_pb2
from localplane_server.cli.completion import complete_model
from localplane_server.cli.session import Session, client_options
from localplane_server.cli.text import UNKNOWN, facts, since, table

HEADINGS = ("MODEL", "TIME", "CALLS", "PROMPT", "GENERATED", "PER SECOND", "ERRORS", "ABORTS")
SLOT_HEADINGS = ("SLOT", "LAST PROMPT", "LAST GENERATED", "PER SECOND", "LAST USED", "ALL TOKENS")


@click.command()
@click.argument("model", required=False, shell_complete=complete_model)
@client_options
def tokens(model: str | None, session: Session) -> None:
    """Show the tokens of MODEL, or of all models.

    They are those of the last minute, five minutes and hour, and all since counting began. Loads no model.
    """
    with session.client() as client:
        if model is None:
            everything = client.list_token_metrics()
            session.write(everything, _all_rows(everything))
            return
        of_model = client.get_token_metrics(model)
        if session.is_json:
            session.write(of_model, ())
            return
        listed = client.list_token_metrics()
    session.write(of_model, _model_lines(of_model, listed))


def _all_rows(answer: token_metrics_service_pb2.ListTokenMetricsResponse) -> Iterator[str]:
    if answer.models:
        yield from _windows(answer.models)
        yield f"totals count since {answer.epoch.ToDatetime(UTC):%Y-%m-%d %H:%M} UTC"
    else:
        yield "no model was asked yet"


def _model_lines(
    answer: token_metrics_pb2.TokenMetrics,
    listed: token_metrics_service_pb2.ListTokenMetricsResponse,
) -> Iterator[str]:
    was_asked = bool(answer.slots)
    last = (
        f"{answer.prompt_tokens_processed} of the prompt computed, {answer.tokens_generated} generated,"
        f" {_speed(answer.tokens_per_second)} a second, {_last(answer)}"
    )
    yield from facts(
        [
            ("model", answer.model),
            ("loaded", "yes" if answer.loaded else "no"),
            (
                "last",
                f"{last}{' (estimated)' if answer.estimated else ''}" if was_asked else "none",
            ),
        ]
    )
    windows = [one for one in listed.models if one.model == answer.model]
    if windows:
        yield ""
        yield from _windows(windows)
    if len(answer.slots) > 1:
        yield ""
        yield from table(SLOT_HEADINGS, map(_slot_row, answer.slots))
    yield f"totals count since {answer.epoch.ToDatetime(UTC):%Y-%m-%d %H:%M} UTC"


def _windows(models: Iterable[token_metrics_pb2.ModelTokenMetrics]) -> list[str]:
    return table(HEADINGS, (row for model in models for row in _model_rows(model)))


def _model_rows(model: token_metrics_pb2.ModelTokenMetrics) -> Iterator[tuple[str, ...]]:
    for time, window, name in (
        ("1 min", model.last_minute, model.model),
        ("5 min", model.last_five_minutes, ""),
        ("1 h", model.last_hour, ""),
    ):
        yield _row(name, time, window.counts, _speed(window.completion_tokens_per_second))
    yield _row("", "total", model.total, UNKNOWN)


def _row(
    name: str, time: str, counts: token_metrics_pb2.TokenCounts, speed: str
) -> tuple[str, ...]:
    calls = counts.completions + counts.chats + counts.embeddings
    numbers = (calls, counts.prompt_tokens, counts.completion_tokens)
    return (name, time, *map(str, numbers), speed, str(counts.errors), str(counts.aborts))


def _slot_row(slot: token_metrics_pb2.TokenSlot) -> tuple[str, ...]:
    return (
        str(slot.slot_id),
        str(slot.prompt_tokens_processed),
        str(slot.tokens_generated),
        _speed(slot.tokens_per_second),
        _last(slot),
        str(slot.total.total_tokens),
    )


def _last(one: token_metrics_pb2.TokenMetrics | token_metrics_pb2.TokenSlot) -> str:
    return since(one.last_prediction_at) if one.HasField("last_prediction_at") else "running"


def _speed(tokens_per_second: float) -> str:
    return f"{tokens_per_second:.1f}"
