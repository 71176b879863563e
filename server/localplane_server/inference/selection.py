"""Which model a call means."""

from __future__ import annotations

from localplane_server.errors import InvalidModelNameError
from localplane_server.models.catalog import ModelCatalog
from localplane_server.models.configuration import ModelConfig

TEXT = ("chat", "completion")
"""Use cases, in LocalAI's words, of models that generate text."""
EMBEDDINGS = ("embeddings",)
"""Use case of models that embed."""
TOKENIZE = ("tokenize", *TEXT)
"""Use cases of models that can split text into tokens."""


def choose_model(
    catalog: ModelCatalog, name: str, use_cases: tuple[str, ...], *, embeddings: bool = False
) -> ModelConfig:
    """Return the model of that name; without a name, the first one configured for the use case.

    Raises:
        InvalidModelNameError: If the name cannot be one, or there is none and no model is configured for the use case.
        ModelNotFoundError: If there is no model of that name.
    """
    if name:
        return catalog.get(name)
    model = catalog.first_for(use_cases, embeddings=embeddings)
    if model is None:
        message = f"model is required: none is configured for {use_cases[0]}"
        raise InvalidModelNameError(message, field="model")
    return model
