"""The tiny model that other tests use."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[3] / "tools" / "make_tiny_gguf.py"
SHA256 = "27d4becf352f99905905dd3d0ded7f91fa313d51ebd1d42e585c94a8bf0293d0"


def test_same_bytes(tmp_path: Path) -> None:
    """The file is the same on every run and every machine."""
    path = tmp_path / "tiny.gguf"
    subprocess.run([sys.executable, str(TOOL), str(path)], check=True)

    assert SHA256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_reads_as_gguf(tiny_gguf: Path) -> None:
    """The reference reader of the format finds what was written."""
    gguf = pytest.importorskip("gguf", reason="gguf, a development dependency, is not installed")
    reader = gguf.GGUFReader(tiny_gguf)

    assert "llama" == reader.get_field("general.architecture").contents()
    assert 2048 == reader.get_field("llama.context_length").contents()
    tokens = reader.get_field("tokenizer.ggml.tokens").contents()
    assert 770 == len(tokens)
    assert "<|im_end|>" == tokens[reader.get_field("tokenizer.ggml.eos_token_id").contents()]
    shapes = {tensor.name: tuple(tensor.shape) for tensor in reader.tensors}
    assert 3 + 2 * 9 == len(shapes)
    assert (64, 770) == shapes["token_embd.weight"]
    assert (128, 64) == shapes["blk.1.ffn_down.weight"]
