"""Floating-point numbers as JSON writes them, single and in vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from localplane_gateway.codec.fields import LARGEST_FLOAT


def double_object(value: float) -> float | str:
    """Turn a double into what orjson writes."""
    # NaN and the infinities alone differ from zero here.
    return value if value - value == 0.0 else _name_of(value)


def float_object(value: float) -> Any:
    """Turn a 32-bit float into what orjson writes in its shortest form."""
    return np.float32(value) if value - value == 0.0 else _name_of(value)


def vector_object(values: Any) -> Any:
    """Turn a repeated field of floats or doubles into what orjson writes."""
    if not values:
        return []
    array = np.asarray(values)
    if np.isfinite(array).all():
        return array
    write = float_object if array.dtype == np.float32 else double_object
    return [write(value) for value in values]


def are_floats(doubles: npt.NDArray[np.float64]) -> bool:
    """Tell whether all numbers, of which there is one at least, are 32-bit floats when rounded."""
    return bool(doubles.max() <= LARGEST_FLOAT and doubles.min() >= -LARGEST_FLOAT)


def _name_of(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
