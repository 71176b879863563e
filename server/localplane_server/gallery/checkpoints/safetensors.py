"""Reading safetensors, the format in which models are trained and published."""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

LARGEST_HEADER = 100_000_000
"""Bytes. The format's own limit."""

DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
"""Types that numpy knows, by their names in the format. Tensors of others are left out."""


class SafetensorsError(ValueError):
    """A file is not what the format says. The message tells where."""


def read_safetensors(path: Path) -> Mapping[str, NDArray[np.floating[Any]]]:
    """Return the tensors of a file by name.

    The file is mapped, not read: numbers come from the disk when they are used.

    Raises:
        SafetensorsError: If it is no such file, or is cut short.
    """
    with path.open("rb") as file:
        head = file.read(8)
        if len(head) < 8:  # noqa: PLR2004 - the length of a length
            raise SafetensorsError("is too short")
        (header_bytes,) = struct.unpack("<Q", head)
        if header_bytes > LARGEST_HEADER:
            raise SafetensorsError("has no header")
        header = _header(file.read(header_bytes), header_bytes)
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data = memoryview(content)[8 + header_bytes :]
    return {
        name: _tensor(name, entry, data)
        for name, entry in header.items()
        if name != "__metadata__" and _is_known(name, entry)
    }


def read_shapes(beginning: bytes) -> Mapping[str, NDArray[np.floating[Any]]]:
    """Return the tensors of a file of which only the beginning is here: they have a shape and a type, and are all zero.

    Raises:
        SafetensorsError: If it is no such file, or its header goes on behind what is here.
    """
    if len(beginning) < 8:  # noqa: PLR2004 - the length of a length
        raise SafetensorsError("is too short")
    (header_bytes,) = struct.unpack("<Q", beginning[:8])
    if header_bytes > len(beginning) - 8:
        raise SafetensorsError("has no header, or one that is too long to be looked at")
    header = _header(beginning[8 : 8 + header_bytes], header_bytes)
    return {
        name: _shape(name, entry)
        for name, entry in header.items()
        if name != "__metadata__" and _is_known(name, entry)
    }


def _shape(name: str, entry: Mapping[str, Any]) -> NDArray[np.floating[Any]]:
    shape = entry.get("shape")
    try:
        if _are_sizes(shape):
            # Takes no memory, however large it is said to be.
            return np.broadcast_to(np.zeros((), DTYPES[entry["dtype"]]), shape)
    except ValueError:
        pass
    raise SafetensorsError(f"does not say what {name} is")


def _header(text: bytes, length: int) -> dict[str, Any]:
    if len(text) < length:
        raise SafetensorsError("is cut short")
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SafetensorsError("has a header that is no JSON") from error
    if not isinstance(header, dict):
        raise SafetensorsError("has a header that is no object")
    return header


def _is_known(name: str, entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        raise SafetensorsError(f"does not say what {name} is")
    return entry["dtype"] in DTYPES


def _tensor(name: str, entry: Mapping[str, Any], data: memoryview) -> NDArray[np.floating[Any]]:
    dtype = np.dtype(DTYPES[entry["dtype"]])
    shape, span = entry.get("shape"), entry.get("data_offsets")
    if not _are_sizes(shape) or not _are_sizes(span) or len(span) != 2:  # noqa: PLR2004 - from, to
        raise SafetensorsError(f"does not say where {name} is")
    start, end = span
    if end - start != math.prod(shape) * dtype.itemsize or end > len(data):
        raise SafetensorsError(f"has not all of {name}")
    return np.frombuffer(data[start:end], dtype).reshape(shape)


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)
