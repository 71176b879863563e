"""How much memory a model will take, told from its files and its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localplane_server.gallery.checkpoints.gguf_header import HeaderError, read_header
from localplane_server.models.configuration import ModelConfig
from localplane_server.scheduling.limits import PROGRAM_BYTES

DEFAULT_CONTEXT = 4096
"""Tokens of context where neither the configuration nor the service says. The llama backend's default."""
LARGEST_FIGURE = 1 << 40
"""No size of a model, nor any factor of one, is as large."""
LARGEST_CACHE = 1 << 50
"""Bytes. Neither is the product of them."""

BYTES_OF_TYPE: Mapping[str, float] = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
"""Bytes of one number in a key-value cache, by llama.cpp's name of its type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """What a model is thought to take while it is loaded, in bytes."""

    weights_bytes: int
    """Its model files."""

    cache_bytes: int
    """Its key-value cache, for all of its context."""

    other_bytes: int
    """The backend's program and what it computes in."""

    context_size: int
    """The context in tokens that this is for."""

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.cache_bytes + self.other_bytes


def estimate(header: bytes, weights_bytes: int, model: ModelConfig) -> MemoryEstimate:
    """Return what a model will take.

    An upper bound for models that do not keep all of their context in every layer.

    Args:
        header: The beginning of its model file.
        weights_bytes: Size of all of its model files.
        model: What its configuration says.

    Raises:
        HeaderError: If the file does not say what has to be known.
    """
    found = read_header(header)
    architecture = str(found.get("general.architecture", ""))
    if not architecture:
        raise HeaderError("it does not say what it is")
    figures = _Figures(found, architecture)
    trained = figures.number("context_length", 0)
    context = model.context_size or DEFAULT_CONTEXT
    if model.embeddings and trained:
        context = min(context, trained)
    layers = figures.number("block_count")
    heads = figures.number("attention.head_count")
    width = figures.number("embedding_length")
    groups = figures.numbers("attention.head_count_kv", layers, default=heads)
    length = width // max(heads, 1)
    key = figures.number("attention.key_length", length)
    value = figures.number("attention.value_length", length)
    engine = dict(model.engine)
    per_token = sum(groups) * (
        key * _bytes_of(engine.get("CacheTypeKey"))
        + value * _bytes_of(engine.get("CacheTypeValue"))
    )
    cache = int(context * per_token)
    if cache > LARGEST_CACHE:
        raise HeaderError("it claims what no machine could hold")
    return MemoryEstimate(
        weights_bytes=weights_bytes,
        cache_bytes=cache,
        other_bytes=PROGRAM_BYTES,
        context_size=context,
    )


def _bytes_of(kind: object) -> float:
    return BYTES_OF_TYPE.get(str(kind or "f16"), 2.0)


class _Figures:
    """The figures of a model, checked: whoever made the file may have written anything."""

    def __init__(self, found: Mapping[str, Any], architecture: str) -> None:
        self._found = found
        self._architecture = architecture

    def number(self, key: str, default: int | None = None) -> int:
        value = self._found.get(f"{self._architecture}.{key}", default)
        if isinstance(value, list) and value:
            value = max(value)
        return _checked(value, key)

    def numbers(self, key: str, count: int, *, default: int) -> list[int]:
        value = self._found.get(f"{self._architecture}.{key}", default)
        if isinstance(value, list):
            return [_checked(one, key) for one in value[:count]]
        if count > 1 << 16:
            raise HeaderError("it claims to have too many layers")
        return [_checked(value, key)] * count


def _checked(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST_FIGURE:
        raise HeaderError(f"it does not say its {key}")
    return value
