"""Fixtures that several packages of tests use."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model that loads in milliseconds and talks deterministic noise."""
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    runpy.run_path(str(CHECKOUT / "tools" / "make_tiny_gguf.py"))["write_tiny_gguf"](path)
    return path
