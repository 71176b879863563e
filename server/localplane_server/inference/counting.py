"""Counting the tokens of predictions, however they end."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from localplane_server import events
from localplane_server.errors import InvalidArgumentError, LocalplaneError, UnsupportedError
from localplane_server.scheduling.surroundings import RunTask
from localplane_server.supervision.backend_client import BackendClient
from localplane_server.supervision.calls import Answer, Piece, Prediction

log = logging.getLogger(__name__)

SETTLE_SECONDS = 5.0
"""How long a backend is given to say what a prediction cost whose end it did not tell. Nobody waits for it."""
TOKENIZE_SECONDS = 1.0
"""How long a backend is given to tokenize texts that it did not count."""
BYTES_PER_TOKEN = 4
"""Of an average text in UTF-8, where nothing better is known."""


def estimate(text: str) -> int:
    """Return about how many tokens a text has."""
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


@dataclass(slots=True)
class Count:
    """What one prediction cost so far."""

    prediction: Prediction
    """What was asked for."""
    began: float = field(default_factory=time.monotonic)
    """When it was asked for."""
    first_at: float | None = None
    """When the first piece of a stream came."""
    last_at: float = 0.0
    """When the latest piece of a stream came."""
    pieces: int = 0
    """Pieces of a stream that carried something."""
    answer: Answer | None = None
    """The answer that came whole."""
    tokens: int = 0
    """Generated, as far as the backend counted."""
    prompt_tokens: int = 0
    """Of the prompt, as far as the backend counted."""
    prompt_tokens_processed: int | None = None
    """Of the prompt, those that were computed."""
    prompt_ms: float = 0.0
    """Milliseconds spent on the prompt."""
    generation_ms: float = 0.0
    """Milliseconds spent on generation."""
    slot: int | None = None
    """Where it ran."""

    def saw_piece(self, piece: Piece) -> None:
        """Count a piece of a stream."""
        self._saw(piece)
        if piece.text or piece.reasoning or piece.tool_calls:
            self.last_at = time.monotonic()
            if self.first_at is None:
                self.first_at = self.last_at
            self.pieces += 1

    def saw_answer(self, answer: Answer) -> None:
        """Count an answer that came whole."""
        self._saw(answer)
        self.answer = answer

    def _saw(self, piece: Piece) -> None:
        self.tokens = piece.tokens or self.tokens
        self.prompt_tokens = piece.prompt_tokens or self.prompt_tokens
        self.prompt_ms = piece.prompt_ms or self.prompt_ms
        self.generation_ms = piece.generation_ms or self.generation_ms
        if piece.slot is not None:
            self.slot = piece.slot
        if piece.prompt_tokens_processed is not None:
            self.prompt_tokens_processed = piece.prompt_tokens_processed


class PredictionCounter:
    """Tells what each prediction cost, once it is known.

    Backends count best, so a prediction that was cut short is told of only when its backend has said how far it came,
    or did not say so in time. What no backend counts is estimated, and said to be. Nothing is ever loaded for it.
    """

    def __init__(self, bus: events.Events, run: RunTask) -> None:
        self._events = bus
        self._run = run

    @contextmanager
    def counted(
        self, model: str, prediction: Prediction, backend: BackendClient
    ) -> Generator[Count]:
        """Count what happens in the block as one prediction; fill the count given."""
        count = Count(prediction)
        outcome = "error"
        is_refused = False
        try:
            yield count
            outcome = "ok"
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "aborted"
            raise
        except (InvalidArgumentError, UnsupportedError):
            is_refused = True
            raise
        finally:
            settling = _Settling(self._events, backend, model, count, outcome)
            if is_refused or (outcome == "ok" and settling.is_counted):
                settling.tell(is_estimated=False)
            else:
                # Told when the task is done, even if the service stops before it has begun.
                self._run(settling.ask()).add_done_callback(settling.finish)


class _Settling:
    """Finds out what the backend did not say by itself, then tells of the prediction."""

    def __init__(
        self,
        bus: events.Events,
        backend: BackendClient,
        model: str,
        count: Count,
        outcome: str,
    ) -> None:
        self._events = bus
        self._backend = backend
        self._model = model
        self._count = count
        self._outcome = outcome
        self._seconds = time.monotonic() - count.began
        self._is_told = False

    @property
    def is_counted(self) -> bool:
        """Whether the backend has counted everything."""
        count = self._count
        text = count.answer.text if count.answer else ""
        return count.prompt_tokens > 0 and (count.tokens > 0 or not (text or count.pieces))

    async def ask(self) -> None:
        """Have the backend say what it has not said yet."""
        if self._outcome == "ok":
            await self._tokenize()
        else:
            self._is_told = await self._ask()

    def finish(self, _: object) -> None:
        """Estimate what the backend does not say, and tell."""
        if not self._is_told:
            self._guess()
        self.tell(is_estimated=not self._is_told)

    def tell(self, *, is_estimated: bool) -> None:
        """Emit the event."""
        count = self._count
        first = count.first_at
        seen_ms = (count.last_at - first) * 1000 if first is not None else self._seconds * 1000
        self._events.emit(
            events.PredictionFinished(
                model=self._model,
                operation="chat" if count.prediction.messages else "completion",
                prompt_tokens=count.prompt_tokens,
                completion_tokens=count.tokens,
                outcome=self._outcome,
                estimated=is_estimated,
                slot=count.slot or 0,
                prompt_tokens_processed=count.prompt_tokens_processed,
                prompt_ms=count.prompt_ms,
                generation_ms=count.generation_ms or (seen_ms if count.tokens else 0.0),
                seconds=self._seconds,
                seconds_to_first_token=first - count.began if first is not None else None,
            )
        )

    async def _ask(self) -> bool:
        """Have the backend tell of this very prediction; return whether it did."""
        count = self._count
        try:
            told = await self._backend.call_tokens(count.prediction.correlation_id, SETTLE_SECONDS)
        except LocalplaneError as error:
            log.debug("not counted", extra={"model": self._model, "cause": error.message})
            return False
        if told is None:
            return False
        count.tokens = told.tokens
        count.prompt_tokens = told.prompt_tokens
        count.prompt_tokens_processed = told.prompt_tokens_processed
        count.slot = told.slot
        return True

    async def _tokenize(self) -> None:
        """Have the backend tokenize what it did not count, if it is still there."""
        count = self._count
        try:
            async with asyncio.timeout(TOKENIZE_SECONDS):
                if not count.tokens and count.answer is not None:
                    count.tokens = len(await self._backend.tokenize(count.answer.text))
                if not count.prompt_tokens:
                    prompt = _text_of(count.prediction)
                    count.prompt_tokens = len(await self._backend.tokenize(prompt))
        except (LocalplaneError, TimeoutError) as error:
            log.debug("not tokenized", extra={"model": self._model, "cause": str(error)})

    def _guess(self) -> None:
        count = self._count
        if not count.tokens:
            # Backends send a piece for each token, as a rule.
            count.tokens = estimate(count.answer.text) if count.answer else count.pieces
        if not count.prompt_tokens and (self._outcome == "ok" or count.tokens):
            count.prompt_tokens = estimate(_text_of(count.prediction))


def _text_of(prediction: Prediction) -> str:
    return "\n".join(turn.content for turn in prediction.messages) or prediction.prompt
