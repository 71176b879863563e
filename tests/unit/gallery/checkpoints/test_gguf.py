"""Writing GGUF, read back by the format's reference reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from localplane_server.gallery.checkpoints.gguf import (
    WRITTEN_BYTES,
    Kind,
    Precision,
    Tensor,
    number,
    numbers,
    string,
    strings,
    write_gguf,
)

gguf = pytest.importorskip("gguf", reason="gguf, a development dependency, is not installed")

LARGE = np.arange(WRITTEN_BYTES // 4 + 5, dtype="<f4")
"""More than is written in one go, and no multiple of the alignment."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "x.gguf"
    metadata = [
        string("general.architecture", "bert"),
        number("a.count", Kind.UINT32, 7),
        number("a.share", Kind.FLOAT32, 0.5),
        number("a.flag", Kind.BOOL, value=True),
        strings("a.words", ["", "\u2581wörd"]),
        numbers("a.numbers", Kind.INT32, [-1, 2]),
    ]
    tensors = [
        Tensor("half", np.array([[1, 2, 3], [4, 5, 65519]], "<f4"), Precision.FLOAT16),
        Tensor("large", LARGE, Precision.FLOAT32),
        Tensor("empty", np.zeros(0, "<f4"), Precision.FLOAT32),
        Tensor("last", np.array([1.5], "<f2"), Precision.FLOAT32),
    ]
    with path.open("wb") as output:
        write_gguf(output, metadata, tensors)
    return path


def test_metadata(path: Path) -> None:
    """Every kind of entry comes back."""
    reader = gguf.GGUFReader(path)
    names = ("a.count", "a.share", "a.flag", "a.words", "a.numbers")

    assert [7, 0.5, True, ["", "\u2581wörd"], [-1, 2]] == [
        reader.get_field(name).contents() for name in names
    ]


def test_tensors(path: Path) -> None:
    """So do the numbers, rounded where they are stored shorter, from aligned places."""
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}

    assert [[1, 2, 3], [4, 5, 65504]] == tensors["half"].data.tolist()
    assert [3, 2] == list(tensors["half"].shape)
    assert np.array_equal(LARGE, tensors["large"].data)
    assert [1.5] == tensors["last"].data.tolist()
    assert {0} == {tensor.data_offset % 32 for tensor in tensors.values()}
