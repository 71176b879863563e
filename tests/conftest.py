"""Fixtures that several packages of tests use."""

from __future__ import annotations

import os
import runpy
import signal
from pathlib import Path

import pytest

from foreign import write_program

CHECKOUT = Path(__file__).parents[1]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than the machine has cores, since many tests wait for processes and clocks."""
    return (os.cpu_count() or 1) + 1


# A shell that runs the tests in the background has them ignore Ctrl-C, and every program that they start with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model that loads in milliseconds and talks deterministic noise."""
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    runpy.run_path(str(CHECKOUT / "tools" / "make_tiny_gguf.py"))["write_tiny_gguf"](path)
    return path


@pytest.fixture(scope="session")
def foreign_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `run.sh` of a backend that is none of ours."""
    return write_program(tmp_path_factory.mktemp("foreign") / "program")


@pytest.fixture(scope="session")
def old_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a backend that was made from an old copy of the protocol."""
    return write_program(tmp_path_factory.mktemp("old") / "program", is_old=True)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real model that the README starts with; tests that want it are skipped without it."""
    given = os.environ.get("LOCALPLANE_TEST_SMOLLM2")
    path = Path(given) if given else CHECKOUT / ".cache" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.is_file():
        pytest.skip(f"no model at {path}; LOCALPLANE_TEST_SMOLLM2 can name another file")
    return path


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The real model of embeddings, as `localplane models install minilm` makes it; skipped as above."""
    given = os.environ.get("LOCALPLANE_TEST_MINILM")
    path = Path(given) if given else CHECKOUT / ".cache" / "all-MiniLM-L6-v2-f16.gguf"
    if not path.is_file():
        pytest.skip(f"no model at {path}; LOCALPLANE_TEST_MINILM can name another file")
    return path
