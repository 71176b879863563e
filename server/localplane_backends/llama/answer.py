"""The answer of a prediction, put together from the engine's chunks."""

from __future__ import annotations

import json
import time
from typing import Any

from localplane.localai import backend_pb2
from localplane_backends.llama.engine import Chunk, Kind


class Answer:
    """Turns the engine's chunks into replies, and keeps count."""

    def __init__(self, kind: Kind) -> None:
        self._is_chat = kind == "chat"
        self._first_at: float | None = None
        self.tokens = 0
        """Generated so far. A token that ends inside a character is counted with the one that
        completes it, until
        the last chunk brings the exact number."""
        self.prompt_tokens = 0
        """Of the prompt, those found in the cache included."""
        self.processed_tokens = 0
        """Of the prompt, those not found in the cache."""
        self.tokens_per_second = 0.0
        """Speed of the generation, up to now."""
        self.finish_reason = ""
        """`stop`, `length` or `tool_calls`; empty until the end."""
        self._timings: dict[str, float] = {}

    def took_progress(self, chunk: Chunk) -> bool:
        """Count a chunk that only tells how far the prompt is. Return false for any other."""
        progress = chunk.get("prompt_progress")
        if not progress:
            return False
        self.prompt_tokens = progress["total"]
        self.processed_tokens = progress["processed"] - progress["cache"]
        return True

    def reply(self, chunks: list[Chunk]) -> backend_pb2.Reply | None:
        """Return one reply for chunks that came together, or None when there is nothing to tell."""
        text: list[str] = []
        deltas: list[backend_pb2.ChatDelta] = []
        logprobs: list[Any] = []
        for chunk in chunks:
            self._count(chunk)
            for choice in chunk.get("choices", ()):
                delta = choice.get("delta") or {}
                content = choice.get("text") or delta.get("content") or ""
                text.append(content)
                if self._is_chat:
                    _add(deltas, delta, content)
                probabilities = choice.get("logprobs")
                if probabilities:
                    logprobs += probabilities["content"]
        message = "".join(text)
        if not (message or deltas or self.finish_reason):
            return None
        reply = backend_pb2.Reply(
            message=message.encode(),
            tokens=self.tokens,
            prompt_tokens=self.prompt_tokens,
            chat_deltas=deltas,
        )
        if logprobs:
            reply.logprobs = json.dumps({"content": logprobs}).encode()
        if self._timings:
            reply.timing_prompt_processing = self._timings["prompt_ms"]
            reply.timing_token_generation = self._timings["predicted_ms"]
        return reply

    def _count(self, chunk: Chunk) -> None:
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta") or {}
            if choice.get("text") or any(
                delta.get(key) for key in ("content", "reasoning_content", "tool_calls")
            ):
                self.tokens += 1
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        timings = chunk.get("timings")
        if timings:
            self._timings = timings
            self.tokens = timings["predicted_n"]
            self.processed_tokens = timings["prompt_n"]
            self.prompt_tokens = timings["cache_n"] + timings["prompt_n"]
            self.tokens_per_second = timings["predicted_per_second"]
        elif self._first_at is None:
            self._first_at = time.monotonic()
        else:
            self.tokens_per_second = self.tokens / max(1e-3, time.monotonic() - self._first_at)


def _add(deltas: list[backend_pb2.ChatDelta], delta: dict[str, Any], content: str) -> None:
    reasoning = delta.get("reasoning_content") or ""
    calls = delta.get("tool_calls") or ()
    if not (content or reasoning or calls):
        return
    # Neighbours of one kind become one.
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
            content=content,
            reasoning_content=reasoning,
            tool_calls=[
                backend_pb2.ToolCallDelta(
                    index=call.get("index", 0),
                    id=call.get("id") or "",
                    name=call["function"].get("name") or "",
                    arguments=call["function"].get("arguments") or "",
                )
                for call in calls
            ],
        )
    )
