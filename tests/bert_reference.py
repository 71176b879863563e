"""What a BERT model of sentences answers, computed slowly and plainly in 32 bits.

It shares nothing with the service: it reads the published files by itself, splits words as BERT's authors do, and
computes with numpy. Run as a program it writes the vectors that other tests compare with:

``python tests/bert_reference.py FOLDER`` where FOLDER has `config.json`, `vocab.txt` and `model.safetensors`.
"""

from __future__ import annotations

import base64
import json
import math
import struct
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

VECTORS = Path(__file__).with_name("minilm_vectors.json")
TEXTS = (
    "A man is eating food.",
    "Someone is having a meal.",
    "The stock market fell sharply today.",
    "hello",
    "Das Wetter ist heute schön; naïve café, Ångström.",
    "x = [i**2 for i in range(10)]  # don't panic!",
    "東京は日本の首都です。",
    "Unaffable antidisestablishmentarianism, 3.14159 and http://example.com/?q=1&r=2",
    "\tTabs,\nlines   and  spaces\u00a0of all kinds 😀 ",
    "The quick brown fox jumps over the lazy dog. " * 30,
)
"""What is embedded: close and far sentences, accents, scripts, code, and a text of 300 tokens."""

LONGEST_WORD = 100
"""Characters. BERT takes longer ones for unknown."""


class BertReference:
    """A model, read from the files that are published of it."""

    def __init__(self, folder: Path) -> None:
        self._config = json.loads((folder / "config.json").read_text())
        words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self._ids = {word: number for number, word in enumerate(words)}
        self._weights = _read(folder / "model.safetensors")

    def embed(self, text: str) -> Floats:
        """Return the normalised mean of the vectors of a text's tokens."""
        mean = self._forward(self.tokens(text)).mean(axis=0)
        vector: Floats = mean / np.linalg.norm(mean)
        return vector

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text, with those around it."""
        pieces = [piece for word in _words(text) for piece in self._pieces(word)]
        return [self._ids[piece] for piece in ("[CLS]", *pieces, "[SEP]")]

    def _pieces(self, word: str) -> list[str]:
        pieces: list[str] = []
        start = 0
        while start < len(word):
            mark = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((one for one in ends if mark + word[start:one] in self._ids), None)
            if end is None or len(word) > LONGEST_WORD:
                return ["[UNK]"]
            pieces.append(mark + word[start:end])
            start = end
        return pieces

    def _forward(self, tokens: list[int]) -> Floats:
        table = self._weights
        state = (
            table["embeddings.word_embeddings.weight"][tokens]
            + table["embeddings.position_embeddings.weight"][: len(tokens)]
            + table["embeddings.token_type_embeddings.weight"][0]
        )
        state = self._normalised("embeddings.LayerNorm", state)
        for layer in range(self._config["num_hidden_layers"]):
            own = f"encoder.layer.{layer}"
            attended = self._linear(f"{own}.attention.output.dense", self._attention(own, state))
            state = self._normalised(f"{own}.attention.output.LayerNorm", state + attended)
            inner = _gelu(self._linear(f"{own}.intermediate.dense", state))
            inner = self._linear(f"{own}.output.dense", inner)
            state = self._normalised(f"{own}.output.LayerNorm", state + inner)
        return state

    def _attention(self, layer: str, state: Floats) -> Floats:
        query, key, value = (
            self._heads(self._linear(f"{layer}.attention.self.{name}", state))
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.float32(math.sqrt(query.shape[-1]))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        joined: Floats = (weights @ value).transpose(1, 0, 2).reshape(state.shape)
        return joined

    def _heads(self, values: Floats) -> Floats:
        count = self._config["num_attention_heads"]
        return values.reshape(len(values), count, -1).transpose(1, 0, 2)

    def _linear(self, name: str, values: Floats) -> Floats:
        result: Floats = values @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return result

    def _normalised(self, name: str, values: Floats) -> Floats:
        centred = values - values.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self._config["layer_norm_eps"])
        result: Floats = (
            centred / spread * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        )
        return result


def cosine(one: Iterable[float], other: Iterable[float]) -> float:
    """Return how much two vectors point the same way."""
    first, second = (np.fromiter(vector, np.float64) for vector in (one, other))
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def read_vectors() -> dict[str, Floats]:
    """Return the vectors that were written, by their texts."""
    found = json.loads(VECTORS.read_text())
    return {text: np.frombuffer(base64.b64decode(data), "<f4") for text, data in found.items()}


def _write_vectors(folder: Path) -> None:
    model = BertReference(folder)
    packed = {text: model.embed(text).astype("<f4").tobytes() for text in TEXTS}
    content = {text: base64.b64encode(data).decode() for text, data in packed.items()}
    VECTORS.write_text(json.dumps(content, indent=1) + "\n")


def _read(path: Path) -> dict[str, Floats]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    entries = json.loads(content[8 : 8 + length])
    return {
        name: np.frombuffer(
            content[8 + length + entry["data_offsets"][0] : 8 + length + entry["data_offsets"][1]],
            "<f4",
        ).reshape(entry["shape"])
        for name, entry in entries.items()
        if name != "__metadata__" and entry["dtype"] == "F32"
    }


def _words(text: str) -> Iterator[str]:
    """Split a text: at spaces, around every punctuation mark and around every Chinese character."""
    word = ""
    plain = unicodedata.normalize("NFD", text.lower())
    for char in plain:
        category = unicodedata.category(char)
        if char.isspace() or category == "Zs":
            yield from (word,) if word else ()
            word = ""
        elif category == "Mn" or category.startswith("C"):
            continue
        elif _stands_alone(char, category):
            yield from (word, char) if word else (char,)
            word = ""
        else:
            word += char
    if word:
        yield word


def _stands_alone(char: str, category: str) -> bool:
    is_sign = char.isascii() and char.isprintable() and not char.isalnum()
    is_chinese = 0x4E00 <= ord(char) <= 0x9FFF or 0x3400 <= ord(char) <= 0x4DBF
    return is_sign or category.startswith("P") or is_chinese


def _gelu(values: Floats) -> Floats:
    error = np.frompyfunc(math.erf, 1, 1)(values / math.sqrt(2)).astype(np.float32)
    result: Floats = values * (1 + error) / 2
    return result


if __name__ == "__main__":
    _write_vectors(Path(sys.argv[1]))
