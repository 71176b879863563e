"""Writing GGUF, the format of llama.cpp's model files."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
"""Every tensor begins at a multiple of this many bytes."""
WRITTEN_BYTES = 1 << 20
"""How much of a tensor is made and written at a time."""

STRING = 8
ARRAY = 9


class Kind(Enum):
    """A type of metadata values: how GGUF numbers it, and how `struct` packs it."""

    UINT32 = (4, "I")
    INT32 = (5, "i")
    FLOAT32 = (6, "f")
    BOOL = (7, "?")


class Precision(Enum):
    """How the numbers of a tensor are stored: how GGUF numbers it, and how numpy calls it."""

    FLOAT32 = (0, "<f4")
    FLOAT16 = (1, "<f2")

    @property
    def number(self) -> int:
        """GGUF's number of it."""
        return self.value[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the array that has the bytes as they are stored."""
        return np.dtype(self.value[1])


@dataclass(frozen=True, slots=True)
class Tensor:
    """Numbers of a model."""

    name: str
    """Name, as llama.cpp knows it."""
    values: NDArray[np.floating[Any]]
    """The numbers, perhaps in a file that is mapped. Converted piece by piece while they are written."""
    precision: Precision
    """How they are stored."""

    @property
    def size_bytes(self) -> int:
        """How many bytes they take in the file."""
        return self.values.size * self.precision.dtype.itemsize


class Output(Protocol):
    """Where a file is written to."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""


def write_gguf(
    output: Output | IO[bytes], metadata: Sequence[bytes], tensors: Sequence[Tensor]
) -> None:
    """Write a file. The same content gives the same bytes.

    Args:
        output: Where to.
        metadata: Entries, made by `string`, `number` and the arrays below.
        tensors: The model's numbers, in the order in which they are stored.
    """
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata)), *metadata]
    offset = 0
    for tensor in tensors:
        shape = tensor.values.shape
        parts += [
            text(tensor.name),
            struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape)),
            struct.pack("<IQ", tensor.precision.number, offset),
        ]
        offset += padded(tensor.size_bytes)
    header = b"".join(parts)
    output.write(header + bytes(_padding(len(header))))
    for tensor in tensors:
        flat = tensor.values.reshape(-1)
        step = WRITTEN_BYTES // tensor.precision.dtype.itemsize
        for start in range(0, flat.size, step):
            output.write(flat[start : start + step].astype(tensor.precision.dtype).tobytes())
        output.write(bytes(_padding(tensor.size_bytes)))


def string(key: str, value: str) -> bytes:
    """Return a metadata entry with a text."""
    return text(key) + struct.pack("<I", STRING) + text(value)


def number(key: str, kind: Kind, value: float) -> bytes:
    """Return a metadata entry with a number or a truth value."""
    type_number, code = kind.value
    return text(key) + struct.pack(f"<I{code}", type_number, value)


def strings(key: str, values: Sequence[str]) -> bytes:
    """Return a metadata entry with several texts."""
    return _array(key, STRING, [text(value) for value in values])


def numbers(key: str, kind: Kind, values: Sequence[float]) -> bytes:
    """Return a metadata entry with several numbers."""
    type_number, code = kind.value
    return _array(key, type_number, [struct.pack(f"<{code}", value) for value in values])


def text(value: str) -> bytes:
    """Return a text as GGUF writes it: its length, then UTF-8."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _array(key: str, element: int, values: Sequence[bytes]) -> bytes:
    return text(key) + struct.pack("<IIQ", ARRAY, element, len(values)) + b"".join(values)


def padded(size_bytes: int) -> int:
    """Return the space that a tensor of some size takes in a file."""
    return size_bytes + _padding(size_bytes)


def _padding(size_bytes: int) -> int:
    return -size_bytes % ALIGNMENT
