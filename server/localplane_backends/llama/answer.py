"""The answer of a prediction, put together from the engine's chunks."""

from __future__ import annotations

import json
from typing import Any

from localplane.localai import backend_pb2
from localplane_backends.bodies import Kind
from localplane_backends.llama.engine import Chunk
from localplane_backends.predictions import Prediction, add_delta


class Answer(Prediction):
    """Turns the engine's chunks into replies, and keeps count."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self._is_chat = kind == "chat"
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
                    add_delta(deltas, delta, content)
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
