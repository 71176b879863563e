"""Converting BERT models. What comes out embeds as it should: see the tests with the engine."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from bert_checkpoint import (
    CONFIGURATION,
    LAYERS,
    VOCABULARY,
    WIDTH,
    pack,
    tensors,
    write_checkpoint,
)
from localplane_server.gallery.checkpoints.bert import ConversionError, convert_bert


def converted(folder: Path) -> bytes:
    output = io.BytesIO()
    convert_bert(
        weights=folder / "model.safetensors",
        configuration=folder / "config.json",
        vocabulary=folder / "vocab.txt",
        name="tiny",
        output=output,
    )
    return output.getvalue()


class TestConversion:
    def test_content(self, tmp_path: Path) -> None:
        """The reference reader finds the network, the vocabulary and the numbers."""
        gguf = pytest.importorskip("gguf", reason="a development dependency is not installed")
        write_checkpoint(tmp_path)
        (tmp_path / "x.gguf").write_bytes(converted(tmp_path))
        reader = gguf.GGUFReader(tmp_path / "x.gguf")
        found = {name: field.contents() for name, field in reader.fields.items()}
        parts = {tensor.name: tensor for tensor in reader.tensors}

        assert ("bert", "tiny", WIDTH, LAYERS, False, 1) == tuple(
            found[name]
            for name in (
                "general.architecture",
                "general.name",
                "bert.embedding_length",
                "bert.block_count",
                "bert.attention.causal",
                "bert.pooling_type",
            )
        )
        words = found["tokenizer.ggml.tokens"]
        assert ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u2581a"] == words[:7]
        assert ["\u2581[", "\u2581]"] == words[-2:]
        assert "cat" not in words
        assert words[VOCABULARY.index("##b")] == "b"
        assert (3, 2, 4, 0) == tuple(
            found[f"tokenizer.ggml.{name}_token_id"]
            for name in ("cls", "unknown", "seperator", "padding")
        )
        assert 5 + LAYERS * 16 == len(parts)
        assert ["F32", "F16", "F32"] == [
            parts[name].tensor_type.name
            for name in ("position_embd.weight", "blk.1.ffn_down.weight", "blk.1.ffn_down.bias")
        ]
        theirs = tensors()["encoder.layer.1.attention.self.query.weight"]
        assert np.array_equal(theirs.astype("<f2"), parts["blk.1.attn_q.weight"].data)

    def test_same_bytes(self, tmp_path: Path) -> None:
        """The same model gives the same file, also where its tensors have BERT's name before theirs."""
        write_checkpoint(tmp_path)
        first = converted(tmp_path)
        longer = {f"bert.{name}": values for name, values in tensors().items()}
        (tmp_path / "model.safetensors").write_bytes(pack(longer))

        assert first == converted(tmp_path)


def without(name: str) -> bytes:
    return pack({key: values for key, values in tensors().items() if key != name})


def reshaped(name: str) -> bytes:
    return pack({**tensors(), name: np.zeros((1, 2), "<f4")})


def configured(**changes: object) -> bytes:
    return json.dumps({**CONFIGURATION, **changes}).encode()


QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("model.safetensors", b"x", "model.safetensors is too short"),
        ("model.safetensors", without(QUERY), f"the weights have no {QUERY}"),
        (
            "model.safetensors",
            reshaped(QUERY),
            rf"{QUERY} has the shape \(1, 2\), not \(32, 32\)",
        ),
        ("config.json", b"x", "config.json is no JSON"),
        ("config.json", b"[]", "config.json is no object"),
        ("config.json", configured(model_type="t5"), "config.json: model_type is 't5', not 'bert'"),
        (
            "config.json",
            configured(hidden_size=0),
            "config.json: hidden_size is no positive number",
        ),
        (
            "config.json",
            configured(layer_norm_eps="x"),
            "config.json: layer_norm_eps is no number between 0 and 1",
        ),
        ("vocab.txt", b"a\n", "vocab.txt has 1 words, and the model 63"),
        ("vocab.txt", b"a\n" * len(VOCABULARY), "the vocabulary has no .*, .MASK."),
        ("vocab.txt", b"\xff", "vocab.txt is no UTF-8"),
    ],
)
def test_refuses(tmp_path: Path, name: str, content: bytes, cause: str) -> None:
    """What cannot be converted is refused with the cause."""
    write_checkpoint(tmp_path, **{name: content})

    with pytest.raises(ConversionError, match=f"^{cause}$"):
        converted(tmp_path)
