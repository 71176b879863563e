"""The answer of a prediction, put together from the engine's chunks."""

from __future__ import annotations

import json
from typing import Any

from localplane.localai import backend_pb2
from localplane_backends.llama.engine import Chunk, Kind


class Answer:
    """Turns the engine's chunks into replies, and keeps count."""

    def __init__(self, kind: Kind) -> None:
        self._is_chat = kind == "chat"
        self.tokens = 0
        """Generated so far by the engine, which may be ahead of the replies."""
        self.prompt_tokens = 0
        """Of the prompt, those found in the cache included."""
        self.processed_tokens = 0
        """Of the prompt, those not found in the cache."""
        self.tokens_per_second = 0.0
        """Speed of the generation, up to now."""
        self.slot: int | None = None
        """Slot that it ran in. None until the end, and where the engine is not asked for it."""
        self.finish_reason = ""
        """`stop`, `length` or `tool_calls`; empty until the reply with the end."""
        self._timings: dict[str, float] = {}

    def took(self, chunk: Chunk) -> bool:
        """Count what the engine has done. Return whether the chunk is also to be replied with.

        Called as soon as the chunk is there; it may never become a reply if nobody waits any more.
        """
        timings = chunk.get("timings")
        if timings:
            self.tokens = timings["predicted_n"]
            self.tokens_per_second = timings["predicted_per_second"]
            self.prompt_tokens = timings["cache_n"] + timings["prompt_n"]
            self.processed_tokens = timings["prompt_n"]
        slot = chunk.get("__verbose", {}).get("id_slot", -1)
        if slot >= 0:
            self.slot = slot
        progress = chunk.get("prompt_progress")
        if progress:
            # A chunk that only tells how far the prompt is.
            self.prompt_tokens = progress["total"]
            self.processed_tokens = progress["processed"] - progress["cache"]
        return not progress

    def reply(self, chunks: list[Chunk]) -> backend_pb2.Reply | None:
        """Return one reply for chunks that came together, or None when there is nothing to tell."""
        text: list[str] = []
        deltas: list[backend_pb2.ChatDelta] = []
        logprobs: list[Any] = []
        for chunk in chunks:
            self._timings = chunk.get("timings") or self._timings
            for choice in chunk.get("choices", ()):
                self.finish_reason = choice.get("finish_reason") or self.finish_reason
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
        reply = backend_pb2.Reply(message=message.encode(), chat_deltas=deltas)
        if logprobs:
            reply.logprobs = json.dumps({"content": logprobs}).encode()
        timings = self._timings
        if timings:
            reply.tokens = int(timings["predicted_n"])
            reply.prompt_tokens = int(timings["cache_n"] + timings["prompt_n"])
            reply.timing_prompt_processing = timings["prompt_ms"]
            reply.timing_token_generation = timings["predicted_ms"]
        return reply


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
