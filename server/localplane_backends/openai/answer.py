"""The answer of a prediction, put together from what the server sends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import grpc

from localplane.localai import backend_pb2
from localplane_backends.bodies import Kind
from localplane_backends.openai.errors import ServerError
from localplane_backends.predictions import FINISH_REASONS, Prediction, add_delta

MOST_TOKENS = 2**30


class Answer(Prediction):
    """Turns what the server sends into replies, and keeps count by the server's own figures."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self._is_chat = kind == "chat"
        self._has_usage = False
        self._is_ended = False
        self._prompt_ms = 0.0
        self._generation_ms = 0.0
        self._first_at: float | None = None

    @property
    def is_counted(self) -> bool:
        """Whether the server has said how many tokens it was, up to now at least."""
        return self._has_usage

    def reply(self, chunks: Iterable[Mapping[str, Any]]) -> backend_pb2.Reply | None:
        """Return one reply for what came together, or None when it has nothing to pass on.

        Raises:
            ServerError: If it is in no shape that OpenAI's API has.
        """
        text: list[str] = []
        deltas: list[backend_pb2.ChatDelta] = []
        probabilities: list[Any] = []
        try:
            for chunk in chunks:
                choices = chunk.get("choices") or ()
                text.extend(self._take(choice, deltas, probabilities) for choice in choices)
                self._count(chunk)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            message = "the server's answer does not have the shape of OpenAI's API"
            raise ServerError(grpc.StatusCode.INTERNAL, message) from error
        message = "".join(text)
        if not (message or deltas):
            return None
        self._time()
        reply = self._counted(backend_pb2.Reply(message=message.encode(), chat_deltas=deltas))
        if probabilities:
            reply.logprobs = json.dumps(_joined(probabilities)).encode()
        return reply

    def end(self) -> backend_pb2.Reply:
        """Return the last reply of a stream, which has the counts.

        Raises:
            ServerError: If the server has not ended its answer.
        """
        if not self._is_ended:
            message = "the server broke off in the middle of its answer"
            raise ServerError(grpc.StatusCode.UNAVAILABLE, message)
        return self._counted(backend_pb2.Reply())

    def _take(
        self,
        choice: Mapping[str, Any],
        deltas: list[backend_pb2.ChatDelta],
        probabilities: list[Any],
    ) -> str:
        """Take a piece, or a whole answer, and return its text."""
        if reason := choice.get("finish_reason"):
            self._is_ended = True
            if reason in FINISH_REASONS:
                self.finish_reason = reason
        said = choice.get("delta") or choice.get("message") or {}
        content = choice.get("text") or said.get("content") or ""
        if not isinstance(content, str):
            raise TypeError(content)
        if self._is_chat:
            add_delta(deltas, said, content)
        if choice.get("logprobs"):
            probabilities.append(choice["logprobs"])
        return content

    def _count(self, chunk: Mapping[str, Any]) -> None:
        usage = chunk.get("usage")
        if usage:
            self._has_usage = True
            self.tokens = _number(usage.get("completion_tokens"))
            self.prompt_tokens = _number(usage.get("prompt_tokens"))
            details = usage.get("prompt_tokens_details") or {}
            cached = _number(details.get("cached_tokens"))
            self.processed_tokens = max(0, self.prompt_tokens - cached)
        # llama.cpp's, which come with every piece and are more exact.
        timings = chunk.get("timings")
        if timings:
            self._has_usage = True
            self.tokens = _number(timings["predicted_n"])
            self.processed_tokens = _number(timings["prompt_n"])
            self.prompt_tokens = _number(timings.get("cache_n")) + self.processed_tokens
            self.tokens_per_second = float(timings["predicted_per_second"])
            self._prompt_ms = float(timings["prompt_ms"])
            self._generation_ms = float(timings["predicted_ms"])

    def _time(self) -> None:
        """Measure the speed, where the server does not say it."""
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
        elif not self._generation_ms and self.tokens > 1 and now > self._first_at:
            self.tokens_per_second = (self.tokens - 1) / (now - self._first_at)

    def _counted(self, reply: backend_pb2.Reply) -> backend_pb2.Reply:
        reply.tokens = self.tokens
        reply.prompt_tokens = self.prompt_tokens
        reply.timing_prompt_processing = self._prompt_ms
        reply.timing_token_generation = self._generation_ms
        return reply


def _number(value: Any) -> int:
    """Return a count, which must fit the protocol's 32 bits together with another one."""
    number = int(value or 0)
    if not 0 <= number < MOST_TOKENS:
        raise ValueError(value)
    return number


def _joined(probabilities: list[Any]) -> Any:
    """Return log probabilities that came together as one value of OpenAI's.

    Those of a chat are a list; completions have several lists side by side.
    """
    joined: dict[str, list[Any]] = {}
    for one in probabilities:
        for key, values in one.items():
            if isinstance(values, list):
                joined.setdefault(key, []).extend(values)
    return joined
