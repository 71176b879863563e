"""Computing embeddings."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from localplane_server import events
from localplane_server.errors import InvalidArgumentError, UnsupportedError
from localplane_server.inference.counting import estimate
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
        async with self._scheduler.use(model) as backend:
            vectors = await self._embedded(model.name, backend, texts)
        return Embedded(model.name, vectors, sum(vector.prompt_tokens for vector in vectors))

    async def _embedded(
        self, model: str, backend: BackendClient, texts: tuple[str, ...]
    ) -> list[Vector]:
        """Embed the texts and tell what that cost."""
        began = time.monotonic()
        vectors: dict[int, Vector] = {}

        async def embed(index: int) -> None:
            vectors[index] = await backend.embed(texts[index])

        outcome = "error"
        is_refused = False
        try:
            for start in range(0, len(texts), AT_ONCE):
                async with asyncio.TaskGroup() as group:
                    for index in range(start, min(start + AT_ONCE, len(texts))):
                        group.create_task(embed(index))
            outcome = "ok"
        except ExceptionGroup as failed:
            # The first failure cancelled the others: it is the one to tell.
            is_refused = isinstance(failed.exceptions[0], InvalidArgumentError | UnsupportedError)
            raise failed.exceptions[0] from failed
        except asyncio.CancelledError:
            outcome = "aborted"
            raise
        finally:
            counted = [
                vector.prompt_tokens or estimate(texts[index]) for index, vector in vectors.items()
            ]
            # What was under way when the call was cut is not known, and not told.
            is_cut = outcome != "ok" and not is_refused
            self._events.emit(
                events.PredictionFinished(
                    model=model,
                    operation="embedding",
                    prompt_tokens=sum(counted),
                    completion_tokens=0,
                    outcome=outcome,
                    estimated=is_cut or not all(one.prompt_tokens for one in vectors.values()),
                    seconds=time.monotonic() - began,
                )
            )
        return [vectors[index] for index in range(len(texts))]
