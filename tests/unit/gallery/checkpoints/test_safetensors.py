"""Reading tensors."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from bert_checkpoint import pack
from localplane_server.gallery.checkpoints.safetensors import SafetensorsError, read_safetensors


def test_reads(tmp_path: Path) -> None:
    """Numbers come back in their shapes; what holds no fractions is left out."""
    path = tmp_path / "x"
    whole = np.arange(6, dtype="<f4").reshape(2, 3)
    half = np.array([0.5], "<f2")
    path.write_bytes(pack({"whole": whole, "ids": np.arange(2, dtype="<i8"), "half": half}))

    found = read_safetensors(path)

    assert ["whole", "half"] == list(found)
    assert np.array_equal(whole, found["whole"])
    assert np.array_equal(half, found["half"])


def _file(header: object, content: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"1234567", "is too short"),
        (struct.pack("<Q", 1 << 62), "has no header"),
        (struct.pack("<Q", 10) + b"{}", "is cut short"),
        (struct.pack("<Q", 2) + b"{]", "has a header that is no JSON"),
        (struct.pack("<Q", 1) + b"\xff", "has a header that is no JSON"),
        (_file([]), "has a header that is no object"),
        (_file({"x": 1}), "does not say what x is"),
        (_file({"x": {}}), "does not say what x is"),
        (_file({"x": {**F32, "shape": "2"}}), "does not say where x is"),
        (_file({"x": {**F32, "shape": [-2]}}), "does not say where x is"),
        (_file({"x": {**F32, "data_offsets": [0]}}), "does not say where x is"),
        (_file({"x": {**F32, "data_offsets": [8, 0]}}, bytes(8)), "has not all of x"),
        (_file({"x": {**F32, "data_offsets": [0, 4]}}, bytes(8)), "has not all of x"),
        (_file({"x": F32}, bytes(7)), "has not all of x"),
        (_file({"x": {**F32, "shape": [2**40, 2**40]}}, bytes(8)), "has not all of x"),
    ],
)
def test_refuses(tmp_path: Path, content: bytes, cause: str) -> None:
    """Whatever is wrong with a file is named, and nothing is read beyond its end."""
    path = tmp_path / "x"
    path.write_bytes(content)

    with pytest.raises(SafetensorsError, match=f"^{cause}$"):
        read_safetensors(path)
