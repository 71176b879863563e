"""What is remembered of predictions: how far they came, and what they cost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from localplane.localai import backend_pb2
from localplane_backends.backend import Context

FINISH_REASON = "x-finish-reason"
SLOT = "x-slot-id"
PROMPT_TOKENS_PROCESSED = "x-prompt-tokens-processed"
"""Trailing metadata of predictions: the protocol has no fields for these."""
CORRELATION_ID = "x-correlation-id"
PROMPT_TOKENS = "x-prompt-tokens"
"""Metadata of `GetMetrics`: which prediction to tell of, and what there is no field for."""
FINISH_REASONS = ("stop", "length", "tool_calls")
MOST_REMEMBERED = 256
"""Predictions that can be asked for after they have ended."""


class Prediction:
    """One prediction, while it waits or runs and for some time after."""

    def __init__(self) -> None:
        self.tokens = 0
        """Generated so far. An engine may be ahead of the replies."""
        self.prompt_tokens = 0
        """Of the prompt, those found in a cache included."""
        self.processed_tokens = 0
        """Of the prompt, those not found in a cache."""
        self.tokens_per_second = 0.0
        """Speed of the generation, up to now."""
        self.slot: int | None = None
        """Slot that it ran in. None until the end, and where nobody says."""
        self.finish_reason = ""
        """`stop`, `length` or `tool_calls`; empty until it is known."""

    @property
    def is_counted(self) -> bool:
        """Whether the figures come from what generated the tokens."""
        return True

    def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what is said at the end of the call, beyond the protocol."""
        return (
            *([(FINISH_REASON, self.finish_reason)] if self.finish_reason else []),
            (SLOT, str(self.slot or 0)),
            (PROMPT_TOKENS_PROCESSED, str(self.processed_tokens)),
        )


class _Call(NamedTuple):
    prediction: Prediction
    over: asyncio.Event


class Predictions:
    """The latest prediction, and the last ones by the identifiers that callers gave them."""

    def __init__(self) -> None:
        self.latest = Prediction()
        """The one that began last."""
        self._calls: dict[str, _Call] = {}

    def remember(self, correlation_id: str, prediction: Prediction) -> asyncio.Event:
        """Return what to set when nothing of the prediction goes on, which may be after its call."""
        over = asyncio.Event()
        if correlation_id:
            self._calls[correlation_id] = _Call(prediction, over)
            while len(self._calls) > MOST_REMEMBERED:
                del self._calls[next(iter(self._calls))]
        return over

    async def meant(self, context: Context) -> Prediction:
        """Return the prediction that a call of `GetMetrics` means, once it is over; else the latest.

        The trailing metadata then say which one it is.
        """
        sent: Mapping[str, Any] = dict(context.invocation_metadata() or ())
        wanted = sent.get(CORRELATION_ID)
        if not isinstance(wanted, str) or wanted not in self._calls:
            return self.latest
        prediction, over = self._calls[wanted]
        await over.wait()
        if prediction.is_counted:
            context.set_trailing_metadata(
                ((CORRELATION_ID, wanted), (PROMPT_TOKENS, str(prediction.prompt_tokens)))
            )
        return prediction


def add_delta(deltas: list[backend_pb2.ChatDelta], delta: Mapping[str, Any], content: str) -> None:
    """Add a piece of a chat, in OpenAI's shape, to those of a reply.

    Args:
        deltas: Those of the reply so far. Neighbours of one kind become one.
        delta: The piece.
        content: Its text.
    """
    reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
    calls = delta.get("tool_calls") or ()
    if not (content or reasoning or calls):
        return
    last = deltas[-1] if deltas else None
    if (
        last is not None
        and not calls
        and not last.tool_calls
        and not reasoning
        and not last.reasoning_content
    ):
        last.content += content
        return
    deltas.append(
        backend_pb2.ChatDelta(
            content=content, reasoning_content=reasoning, tool_calls=_call_deltas(calls)
        )
    )


def _call_deltas(calls: Iterable[Mapping[str, Any]]) -> list[backend_pb2.ToolCallDelta]:
    return [
        backend_pb2.ToolCallDelta(
            # Whole calls come without an index.
            index=call.get("index", position),
            id=call.get("id") or "",
            name=call["function"].get("name") or "",
            arguments=call["function"].get("arguments") or "",
        )
        for position, call in enumerate(calls)
    ]
