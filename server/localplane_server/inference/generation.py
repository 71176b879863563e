"""Completing texts and answering chats."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from typing import Any

from localplane_server.errors import InvalidArgumentError
from localplane_server.inference.counting import PredictionCounter
from localplane_server.inference.selection import TEXT, choose_model
from localplane_server.models.catalog import ModelCatalog
from localplane_server.models.configuration import ModelConfig, Sampling
from localplane_server.scheduling.scheduler import Scheduler
from localplane_server.supervision.calls import Answer, ChatTurn, Piece, Prediction

MOST_ANSWERS = 16
"""Answers that one call can ask for, of one prompt."""
MOST_PROMPTS = 128
"""Texts that one call can have completed."""
MOST_MESSAGES = 4096
"""Messages of one chat. An engine puts them through the model's template in one go, which nobody can interrupt."""
MOST_TOOLS = 1024
"""Tools that one chat can offer."""
MOST_STOPS = 16
"""Stop texts of one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """Texts to complete, or a chat to answer."""

    model: str
    """Name of the model. Empty: the first that is configured for text."""
    prompts: tuple[str, ...] = ()
    """The texts. Empty for a chat."""
    messages: tuple[ChatTurn, ...] = ()
    """The messages of the chat so far. Empty for texts."""
    sampling: Sampling = Sampling()
    """What the call says about sampling; the model's configuration fills the gaps."""
    stop: tuple[str, ...] = ()
    """Texts at which generation stops, besides those of the model's configuration."""
    answers: int = 1
    """Answers for each text, or to the chat."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tools that may be called, in OpenAI's shape."""
    tool_choice: str | Mapping[str, Any] | None = None
    """`none`, `auto`, `required`, or OpenAI's object that names a function."""
    response_format: Mapping[str, Any] | None = None
    """Form of the answer, in OpenAI's shape."""


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer in full."""

    index: int
    """Position among the answers of the call."""
    answer: Answer
    """The answer."""


@dataclass(frozen=True, slots=True)
class GeneratedPiece:
    """The next piece of one answer."""

    index: int
    """Position among the answers of the call."""
    piece: Piece
    """The piece; the last one of each answer has a finish reason."""


class TextGenerator:
    """Has models complete texts and answer chats."""

    def __init__(
        self, catalog: ModelCatalog, scheduler: Scheduler, counter: PredictionCounter
    ) -> None:
        self._catalog = catalog
        self._scheduler = scheduler
        self._counter = counter

    def model_for(self, request: GenerationRequest) -> ModelConfig:
        """Check a request and return the model it means.

        Raises:
            InvalidArgumentError: If the request has nothing to work on, or more than a call can ask for.
            ModelNotFoundError: If there is no such model.
        """
        if not request.prompts and not request.messages:
            raise InvalidArgumentError("cannot generate without a prompt or messages")
        if len(request.prompts) > MOST_PROMPTS:
            message = f"cannot complete more than {MOST_PROMPTS} texts in one call"
            raise InvalidArgumentError(message, field="prompt")
        if len(request.messages) > MOST_MESSAGES:
            message = f"cannot answer a chat of more than {MOST_MESSAGES} messages"
            raise InvalidArgumentError(message, field="messages")
        if len(request.tools) > MOST_TOOLS:
            message = f"cannot offer more than {MOST_TOOLS} tools"
            raise InvalidArgumentError(message, field="tools")
        if not 1 <= request.answers <= MOST_ANSWERS:
            raise InvalidArgumentError(f"n must be between 1 and {MOST_ANSWERS}", field="n")
        if len(request.stop) > MOST_STOPS:
            message = f"cannot stop at more than {MOST_STOPS} texts"
            raise InvalidArgumentError(message, field="stop")
        _check_sampling(request.sampling)
        return choose_model(self._catalog, request.model, TEXT)

    async def generate(self, model: ModelConfig, request: GenerationRequest) -> list[Generated]:
        """Return all answers in full, in order."""
        generated = []
        async with self._scheduler.use(model) as backend:
            for index, prediction in enumerate(_predictions(model, request)):
                with self._counter.counted(model.name, prediction, backend) as count:
                    answer = await backend.predict(prediction)
                    count.saw_answer(answer)
                generated.append(Generated(index, answer))
        return generated

    async def stream(
        self, model: ModelConfig, request: GenerationRequest
    ) -> AsyncGenerator[GeneratedPiece]:
        """Yield the answers piece by piece, one answer after the other."""
        async with self._scheduler.use(model) as backend:
            for index, prediction in enumerate(_predictions(model, request)):
                with self._counter.counted(model.name, prediction, backend) as count:
                    async with aclosing(backend.predict_stream(prediction)) as pieces:
                        async for piece in pieces:
                            count.saw_piece(piece)
                            yield GeneratedPiece(index, piece)


def _predictions(model: ModelConfig, request: GenerationRequest) -> Iterator[Prediction]:
    """Yield one prediction for each answer that the request asks for, in order."""
    sampling = _merged(request.sampling, model.sampling)
    for prompt in request.prompts or ("",):
        for number in range(request.answers):
            # One seed for all would give the same answer each time. Less than zero is LocalAI's way to say: any.
            seed = sampling.seed
            seed = (seed + number) % 2**31 if seed is not None and seed >= 0 else None
            yield Prediction(
                prompt=prompt,
                messages=request.messages,
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                min_p=sampling.min_p,
                seed=seed,
                repeat_penalty=sampling.repeat_penalty,
                frequency_penalty=sampling.frequency_penalty or 0.0,
                presence_penalty=sampling.presence_penalty or 0.0,
                # Clients send an empty text where they mean none; it would stop at once.
                stop=tuple(text for text in (*request.stop, *model.stop) if text),
                tools=request.tools,
                tool_choice=request.tool_choice,
                response_format=request.response_format,
                correlation_id=secrets.token_hex(8),
            )


def _merged(call: Sampling, model: Sampling) -> Sampling:
    said = {
        one.name: value
        for one in fields(Sampling)
        if (value := getattr(call, one.name)) is not None
    }
    return replace(model, **said)


_BOUNDS = {
    "max_tokens": (1, 2**31 - 1),
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 2**31 - 1),
    "min_p": (0.0, 1.0),
    "repeat_penalty": (0.0, 10.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
}


def _check_sampling(sampling: Sampling) -> None:
    for name, (lowest, highest) in _BOUNDS.items():
        value = getattr(sampling, name)
        # Written so that NaN, which compares false with everything, is refused too.
        if value is not None and not lowest <= value <= highest:
            message = f"{name} must be between {lowest:g} and {highest:g}"
            raise InvalidArgumentError(message, field=name)
