"""BERT models that embed sentences: from what Python's libraries publish to a file for llama.cpp."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from localplane_server.gallery.checkpoints.gguf import (
    MAGIC,
    VERSION,
    Kind,
    Output,
    Precision,
    Tensor,
    number,
    numbers,
    padded,
    string,
    strings,
    write_gguf,
)
from localplane_server.gallery.checkpoints.safetensors import (
    SafetensorsError,
    read_safetensors,
    read_shapes,
)

FLOAT16_FILE = 1
"""How llama.cpp numbers files that are mostly in 16 bits."""
MEAN_POOLING = 1
"""How it numbers the mean of all tokens, as models of sentences have it."""

NORMAL_TOKEN, CONTROL_TOKEN = 1, 3
SPECIAL_TOKENS = {
    "[PAD]": "padding",
    "[UNK]": "unknown",
    "[CLS]": "cls",
    "[SEP]": "seperator",  # as llama.cpp spells it
    "[MASK]": "mask",
}
"""Tokens that stand for no text, and their names in GGUF."""
LARGEST_NUMBER = 1 << 31
MOST_LAYERS = 1000
WORD_START = "\u2581"

EMBEDDINGS = {
    "word_embeddings.weight": "token_embd.weight",
    "token_type_embeddings.weight": "token_types.weight",
    "position_embeddings.weight": "position_embd.weight",
    "LayerNorm.weight": "token_embd_norm.weight",
    "LayerNorm.bias": "token_embd_norm.bias",
}
LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
"""Parts of a layer, each of a weight and a bias: theirs and ours. What only training needs is left out."""
IN_FULL = ("token_types.weight", "position_embd.weight")
"""Matrices that stay in 32 bits, as llama.cpp wants them."""


class ConversionError(ValueError):
    """A model cannot be converted. The message says what is missing or unknown."""


def convert_bert(
    *, weights: Path, configuration: Path, vocabulary: Path, name: str, output: Output | IO[bytes]
) -> None:
    """Write a BERT model as GGUF, in 16 bits. The same model gives the same bytes.

    Args:
        weights: The safetensors file.
        configuration: Its `config.json`.
        vocabulary: Its `vocab.txt`: the lower-case word pieces, one a line.
        name: What the file says that the model is called.
        output: Where to write it.

    Raises:
        ConversionError: If something is missing, does not fit together, or is none of the things that llama.cpp
            knows of BERT.
    """
    try:
        given = read_safetensors(weights)
    except SafetensorsError as error:
        raise ConversionError(f"{weights.name} {error}") from error
    config = _Configuration(configuration.name, configuration.read_bytes())
    try:
        tokens = vocabulary.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ConversionError(f"{vocabulary.name} is no UTF-8") from error
    expected = config.number("vocab_size")
    if len(tokens) != expected:
        raise ConversionError(
            f"{vocabulary.name} has {len(tokens)} words, and the model {expected}"
        )
    metadata = [*_architecture(config, name), *_vocabulary(tokens, config)]
    write_gguf(output, metadata, list(_tensors(given, config)))


def foresee_bert(*, configuration: bytes, name: str) -> bytes:
    """Return how the file will begin that is made of a BERT model: what it says of itself before its vocabulary.

    Args:
        configuration: Its `config.json`.
        name: What the file says that the model is called.

    Raises:
        ConversionError: If it cannot be made.
    """
    config = _Configuration("config.json", configuration)
    metadata = list(_architecture(config, name))
    return b"".join([MAGIC, struct.pack("<IQQ", VERSION, 0, len(metadata)), *metadata])


def foresee_bert_bytes(*, configuration: bytes, weights: bytes) -> int:
    """Return the size of what will be made of a BERT model, without its vocabulary and what it says of itself.

    Args:
        configuration: Its `config.json`.
        weights: The beginning of its safetensors file.

    Raises:
        ConversionError: If it cannot be made, or its beginning is too short to tell.
    """
    config = _Configuration("config.json", configuration)
    try:
        given = read_shapes(weights)
    except SafetensorsError as error:
        raise ConversionError(f"model.safetensors {error}") from error
    return sum(padded(one.size_bytes) for one in _tensors(given, config))


class _Configuration:
    """The numbers of a model."""

    def __init__(self, name: str, text: bytes) -> None:
        self._name = name
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConversionError(f"{name} is no JSON") from error
        if not isinstance(content, dict):
            raise ConversionError(f"{name} is no object")
        self._content: dict[str, Any] = content
        for key, known in (
            ("model_type", "bert"),
            ("hidden_act", "gelu"),
            ("position_embedding_type", "absolute"),
        ):
            if content.get(key, known) != known:
                raise ConversionError(f"{name}: {key} is {content[key]!r}, not {known!r}")

    def number(self, key: str) -> int:
        value = self._content.get(key)
        if not isinstance(value, int) or not 0 < value < LARGEST_NUMBER:
            raise ConversionError(f"{self._name}: {key} is no positive number")
        return value

    @property
    def epsilon(self) -> float:
        value = self._content.get("layer_norm_eps")
        if not isinstance(value, float) or not 0 <= value < 1:
            raise ConversionError(f"{self._name}: layer_norm_eps is no number between 0 and 1")
        return value


def _architecture(config: _Configuration, name: str) -> list[bytes]:
    counts = {
        "bert.block_count": "num_hidden_layers",
        "bert.context_length": "max_position_embeddings",
        "bert.embedding_length": "hidden_size",
        "bert.feed_forward_length": "intermediate_size",
        "bert.attention.head_count": "num_attention_heads",
    }
    return [
        string("general.architecture", "bert"),
        string("general.name", name),
        number("general.file_type", Kind.UINT32, FLOAT16_FILE),
        *(number(key, Kind.UINT32, config.number(theirs)) for key, theirs in counts.items()),
        number("bert.attention.layer_norm_epsilon", Kind.FLOAT32, config.epsilon),
        number("bert.attention.causal", Kind.BOOL, value=False),
        number("bert.pooling_type", Kind.UINT32, MEAN_POOLING),
    ]


def _vocabulary(tokens: list[str], config: _Configuration) -> Iterator[bytes]:
    missing = [token for token in SPECIAL_TOKENS if token not in tokens]
    if missing:
        raise ConversionError(f"the vocabulary has no {', '.join(missing)}")
    kinds = [CONTROL_TOKEN if token in SPECIAL_TOKENS else NORMAL_TOKEN for token in tokens]
    types = config.number("type_vocab_size")
    yield string("tokenizer.ggml.model", "bert")
    yield strings("tokenizer.ggml.tokens", [_word_piece(token) for token in tokens])
    yield numbers("tokenizer.ggml.token_type", Kind.INT32, kinds)
    yield number("tokenizer.ggml.token_type_count", Kind.UINT32, types)
    for token, name in SPECIAL_TOKENS.items():
        yield number(f"tokenizer.ggml.{name}_token_id", Kind.UINT32, tokens.index(token))
    for name, token in (("bos", "[CLS]"), ("eos", "[SEP]")):
        yield number(f"tokenizer.ggml.{name}_token_id", Kind.UINT32, tokens.index(token))


def _word_piece(token: str) -> str:
    """Return a token as llama.cpp has it: it marks where words begin, BERT where they go on."""
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else WORD_START + token


def _tensors(
    given: Mapping[str, NDArray[np.floating[Any]]], config: _Configuration
) -> Iterator[Tensor]:
    prefix = "bert." if any(name.startswith("bert.") for name in given) else ""
    width, inner = config.number("hidden_size"), config.number("intermediate_size")
    if config.number("num_hidden_layers") > MOST_LAYERS:
        raise ConversionError(f"it has more than {MOST_LAYERS} layers")
    names = {f"embeddings.{theirs}": ours for theirs, ours in EMBEDDINGS.items()}
    for layer in range(config.number("num_hidden_layers")):
        for theirs, ours in LAYER.items():
            for part in ("weight", "bias"):
                names[f"encoder.layer.{layer}.{theirs}.{part}"] = f"blk.{layer}.{ours}.{part}"
    rows = {
        "token_embd.weight": config.number("vocab_size"),
        "token_types.weight": config.number("type_vocab_size"),
        "position_embd.weight": config.number("max_position_embeddings"),
    }
    for theirs, ours in names.items():
        values = given.get(prefix + theirs)
        if values is None:
            raise ConversionError(f"the weights have no {prefix + theirs}")
        is_matrix = ours.endswith(".weight") and "norm" not in ours
        height = rows.get(ours, inner if "ffn_up" in ours else width)
        columns = inner if "ffn_down" in ours else width
        shape = (height, columns) if is_matrix else (height,)
        if values.shape != shape:
            raise ConversionError(f"{prefix + theirs} has the shape {values.shape}, not {shape}")
        is_short = is_matrix and ours not in IN_FULL
        yield Tensor(ours, values, Precision.FLOAT16 if is_short else Precision.FLOAT32)
