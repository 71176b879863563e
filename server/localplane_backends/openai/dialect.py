"""What a server understands beyond OpenAI's API."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any


class Dialect(enum.Enum):
    """A kind of server, told by whom it says that its models are owned by."""

    LLAMA = "llamacpp"
    """llama.cpp's llama-server."""
    VLLM = "vllm"
    """vLLM."""
    OLLAMA = "library"
    """Ollama."""
    PLAIN = ""
    """Any other."""


def dialect_of(models: Iterable[Mapping[str, Any]]) -> Dialect:
    """Return the dialect of a server that lists these models."""
    owners = {str(model.get("owned_by")) for model in models}
    return next((one for one in Dialect if one.value in owners), Dialect.PLAIN)
