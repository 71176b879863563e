"""Computing embeddings."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from localplane_server import events
from localplane_server.errors import InvalidArgumentError
from localplane_server.inference.selection import EMBEDDINGS, choose_model
from localplane_server.models.catalog import ModelCatalog
from localplane_server.scheduling.scheduler import Scheduler
from localplane_server.supervision.backend_client import BackendClient
from localplane_server.supervision.calls import Vector

MOST_TEXTS = 2048
"""Texts that one call can embed, as OpenAI has it."""
AT_ONCE = 8
"""Texts of one call that a backend is given at once: enough to fill its slots, few enough to let others in."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The embeddings of one call."""

    model: str
    """Name of the model."""
    vectors: list[Vector]
    """One for each text, in order."""
    prompt_tokens: int
    """Tokens of all texts."""


class Embedder:
    """Has models compute embeddings."""

    def __init__(self, catalog: ModelCatalog, scheduler: Scheduler, bus: events.Events) -> None:
        self._catalog = catalog
        self._scheduler = scheduler
        self._events = bus

    async def embed(self, model_name: str, texts: tuple[str, ...]) -> Embedded:
        """Return the embedding of each text.

        Raises:
            InvalidArgumentError: If there is no text, there are too many, or one is empty.
            ModelNotFoundError: If there is no such model.
        """
        if not texts:
            raise InvalidArgumentError("cannot embed without input", field="input")
        if len(texts) > MOST_TEXTS:
            message = f"cannot embed more than {MOST_TEXTS} texts in one call"
            raise InvalidArgumentError(message, field="input")
        if not all(texts):
            raise InvalidArgumentError("cannot embed an empty text", field="input")
        model = choose_model(self._catalog, model_name, EMBEDDINGS, embeddings=True)
        vectors: list[Vector] = []
        outcome = "error"
        try:
            async with self._scheduler.use(model) as backend:
                for start in range(0, len(texts), AT_ONCE):
                    vectors += await _embed_together(backend, texts[start : start + AT_ONCE])
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = "aborted"
            raise
        finally:
            tokens = sum(vector.prompt_tokens for vector in vectors)
            self._events.emit(
                events.PredictionFinished(
                    model=model.name,
                    operation="embedding",
                    prompt_tokens=tokens,
                    completion_tokens=0,
                    outcome=outcome,
                )
            )
        return Embedded(model.name, vectors, tokens)


async def _embed_together(backend: BackendClient, texts: tuple[str, ...]) -> list[Vector]:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(backend.embed(text)) for text in texts]
    except ExceptionGroup as failed:
        # The first failure cancelled the others: it is the one to tell.
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]
