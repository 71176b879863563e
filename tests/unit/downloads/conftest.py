"""A server with files, and downloaders that are allowed to reach it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import file_server
from file_server import FileServer
from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.downloads.credentials import Credentials
from localplane_server.downloads.downloader import Downloader
from localplane_server.downloads.endpoints import Endpoints
from localplane_server.downloads.patience import Patience

HURRY = Patience(
    connect_seconds=5.0,
    stall_seconds=10.0,
    attempts=3,
    first_delay_seconds=0.01,
    document_seconds=5,
)
"""Waits that tests can wait for."""


@pytest.fixture
def server() -> Generator[FileServer]:
    """A server without files."""
    with file_server.serving() as server:
        yield server


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    """Where unfinished files are."""
    return tmp_path / "staging"


Make = Callable[..., Downloader]
"""Makes a downloader with some settings that are not those of most tests."""


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
async def make(staging: Path) -> AsyncGenerator[Make]:
    """Makes downloaders that may reach this machine, if not told otherwise."""
    async with AsyncExitStack() as stack:

        def make(**how: Any) -> Downloader:
            settings = {
                "policy": AddressPolicy.of(["127.0.0.1"]),
                "endpoints": Endpoints(),
                "credentials": Credentials(),
                "patience": HURRY,
                **how,
            }
            one = Downloader(staging, **settings)
            stack.push_async_exit(one)
            return one

        yield make


@pytest.fixture
def downloader(make: Make) -> Downloader:
    """A downloader that may reach this machine."""
    return make()


@pytest.fixture(scope="session")
def large() -> bytes:
    """A file that several connections fetch."""
    return random.Random(5).randbytes(80 * 1024 * 1024)  # noqa: S311 - no secret


@pytest.fixture
def impatient(make: Make) -> Downloader:
    """A downloader that waits for no server, for tests in which one stalls."""
    return make(patience=dataclasses.replace(HURRY, stall_seconds=1.0))
