"""What backends say when there is too little memory."""

from __future__ import annotations

import pytest

from localplane_server.scheduling.shortage import tells_of_shortage


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("cannot load model a: it ended | cudaMalloc failed: out of memory", True),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("unable to allocate CUDA0 buffer", True),
        ("CUBLAS_STATUS_ALLOC_FAILED", True),
        ("cannot load model memory: no such file", False),
        ("", False),
    ],
)
def test_words(message: str, expected: bool) -> None:  # noqa: FBT001 - a case of a table
    """The words of the libraries, in any case; not every mention of memory."""
    assert expected is tells_of_shortage(message)
