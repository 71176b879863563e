"""A tiny BERT model of random numbers, as such models are published for Python."""

from __future__ import annotations

import io
import json
import string
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localplane_server.gallery.checkpoints.bert import convert_bert

WORDS = [
    *("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *string.ascii_lowercase,
    *(f"##{letter}" for letter in string.ascii_lowercase),
    *("hello", "cat", "##s", ".", "[", "]"),
]
VOCABULARY = list(dict.fromkeys(WORDS))
WIDTH, INNER, LAYERS, HEADS, POSITIONS = 32, 48, 2, 4, 64

CONFIGURATION = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": POSITIONS,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": len(VOCABULARY),
}

Tensors = dict[str, NDArray[Any]]


def tensors() -> Tensors:
    """Return the numbers of the model, and two tensors that only training needs."""
    random = np.random.RandomState(7)

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return np.asarray(random.standard_normal((rows, columns)) / columns**0.5, "<f4")

    def vector(size: int, middle: float = 0) -> NDArray[np.float32]:
        return np.asarray(middle + random.standard_normal(size) / 10, "<f4")

    made: Tensors = {
        "embeddings.position_ids": np.arange(POSITIONS, dtype="<i8").reshape(1, POSITIONS),
        "embeddings.word_embeddings.weight": matrix(len(VOCABULARY), WIDTH),
        "embeddings.position_embeddings.weight": matrix(POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": matrix(2, WIDTH),
        "pooler.dense.weight": matrix(WIDTH, WIDTH),
    }
    parts = {
        "attention.self.query": (WIDTH, WIDTH),
        "attention.self.key": (WIDTH, WIDTH),
        "attention.self.value": (WIDTH, WIDTH),
        "attention.output.dense": (WIDTH, WIDTH),
        "intermediate.dense": (INNER, WIDTH),
        "output.dense": (WIDTH, INNER),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in (f"encoder.layer.{number}" for number in range(LAYERS)):
        for name, (rows, columns) in parts.items():
            made[f"{layer}.{name}.weight"] = matrix(rows, columns)
            made[f"{layer}.{name}.bias"] = vector(rows)
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    for name in norms:
        made[f"{name}.weight"], made[f"{name}.bias"] = vector(WIDTH, 1), vector(WIDTH)
    return made


def pack(given: Mapping[str, NDArray[Any]]) -> bytes:
    """Return tensors as safetensors."""
    names = {"float16": "F16", "float32": "F32", "int64": "I64"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    content = b""
    for name, values in given.items():
        end = len(content) + values.nbytes
        header[name] = {
            "dtype": names[values.dtype.name],
            "shape": list(values.shape),
            "data_offsets": [len(content), end],
        }
        content += values.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def checkpoint() -> dict[str, bytes]:
    """Return the files of the model, by their names."""
    return {
        "config.json": json.dumps(CONFIGURATION).encode(),
        "vocab.txt": "".join(f"{word}\n" for word in VOCABULARY).encode(),
        "model.safetensors": pack(tensors()),
    }


def write_checkpoint(folder: Path, **replaced: bytes) -> None:
    """Write the model, with other content of some files."""
    for name, content in {**checkpoint(), **replaced}.items():
        (folder / name).write_bytes(content)


def converted() -> bytes:
    """Return the model file that comes out of the checkpoint."""
    output = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder))
        convert_bert(
            weights=Path(folder, "model.safetensors"),
            configuration=Path(folder, "config.json"),
            vocabulary=Path(folder, "vocab.txt"),
            name="tiny",
            output=output,
        )
    return output.getvalue()
