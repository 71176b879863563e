"""Text to a model's tokens and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from localplane_server.errors import InvalidArgumentError
from localplane_server.inference.selection import TOKENIZE, choose_model
from localplane_server.models.catalog import ModelCatalog
from localplane_server.scheduling.scheduler import Scheduler

MOST_TOKENS = 2**18
"""Tokens that one call can join. Their text goes back in one message, which has a limit."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a text."""

    model: str
    """Name of the model whose tokens they are."""
    tokens: Sequence[int]
    """The tokens."""


class Tokenizer:
    """Has models split text into tokens and join tokens to text."""

    def __init__(self, catalog: ModelCatalog, scheduler: Scheduler) -> None:
        self._catalog = catalog
        self._scheduler = scheduler

    async def tokenize(self, model_name: str, content: str) -> Tokens:
        """Return the tokens of a text.

        Raises:
            ModelNotFoundError: If there is no such model.
            NotSupportedByBackendError: If the model's backend does not tokenize.
        """
        model = choose_model(self._catalog, model_name, TOKENIZE)
        async with self._scheduler.use(model) as backend:
            return Tokens(model.name, await backend.tokenize(content))

    async def detokenize(self, model_name: str, tokens: Sequence[int]) -> str:
        """Return the text of tokens.

        Raises:
            InvalidArgumentError: If there are too many, or one is negative; the backend refuses those beyond its
                vocabulary.
            ModelNotFoundError: If there is no such model.
            NotSupportedByBackendError: If the model's backend does not detokenize.
        """
        if len(tokens) > MOST_TOKENS:
            message = f"cannot detokenize more than {MOST_TOKENS} tokens in one call"
            raise InvalidArgumentError(message, field="tokens")
        if any(token < 0 for token in tokens):
            raise InvalidArgumentError("cannot detokenize a negative token", field="tokens")
        model = choose_model(self._catalog, model_name, TOKENIZE)
        async with self._scheduler.use(model) as backend:
            return await backend.detokenize(tokens)
