"""A download survives the sudden end of its process and of its disk's room, and reaches no forbidden place."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import file_server
from file_server import FileServer
from localplane_server.downloads.ranges import ByteRanges
from localplane_server.downloads.transfer import BLOCK_BYTES, CONNECTIONS

pytestmark = pytest.mark.faults

PROGRAM = Path(__file__).with_name("download_program.py")
MIB = 1024 * 1024
KILLS = 20
CHUNK_BYTES = 2 * CONNECTIONS * BLOCK_BYTES
"""What a kill may cost: a block of each connection, and as much that was on its way and nobody had taken."""


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server without files."""
    with file_server.serving() as server:
        yield server


def program(staging: Path, uri: str, sha256: str, *more: str) -> subprocess.Popen[str]:
    argv = [sys.executable, str(PROGRAM), str(staging), uri, sha256, *more]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def outcome(process: subprocess.Popen[str]) -> dict[str, str]:
    with process:
        output, _ = process.communicate(timeout=100)
    assert 0 == process.returncode
    told: dict[str, str] = json.loads(output)
    return told


@pytest.mark.timeout(300)
def test_killed_twenty_times(server: FileServer, tmp_path: Path) -> None:
    """The digest is right in the end, and each kill costs a chunk at most."""
    dice = random.Random(12)  # noqa: S311 - no secret
    content = b"".join(dice.randbytes(64 * MIB) for _ in range(5))
    served = server.put("/m.gguf", content, etag='"a"')
    uri = f"{server.url}/m.gguf"
    sent_before = ByteRanges()
    again = 0
    seen = 0

    def account() -> None:
        """Add up what this run was sent of what an earlier one had been sent."""
        nonlocal again, seen
        spans = [(one.start, one.start + one.sent) for one in server.asked[seen:] if one.sent]
        seen = len(server.asked)
        for start, stop in spans:
            again += sum(max(0, min(stop, one.stop) - max(start, one.start)) for one in sent_before)
        for start, stop in spans:
            sent_before.add(start, stop)

    for _ in range(KILLS):
        point = server.sent + dice.randrange(64 * 1024, 24 * MIB)
        server.allow(point + 4 * MIB)
        process = program(tmp_path / "staging", uri, served.sha256)
        server.wait_for(point)
        process.kill()
        with process:
            process.wait()
        server.wait_until_idle()
        account()

    server.allow(None)
    told = outcome(program(tmp_path / "staging", uri, served.sha256))
    account()

    assert served.sha256 == hashlib.sha256(Path(told["path"]).read_bytes()).hexdigest()
    assert again <= KILLS * CHUNK_BYTES
    assert server.sent <= len(served.content) + KILLS * CHUNK_BYTES


def test_two_processes(server: FileServer, tmp_path: Path) -> None:
    """Two processes that fetch the same do not spoil it for each other: the second waits for the first."""
    served = server.put("/m", random.Random(1).randbytes(8 * MIB), etag='"a"')  # noqa: S311
    server.allow(MIB)
    first = program(tmp_path, f"{server.url}/m", served.sha256)
    server.wait_for(MIB)
    second = program(tmp_path, f"{server.url}/m", served.sha256)
    server.allow(None)

    assert served.sha256 == outcome(first)["sha256"]
    assert served.sha256 == outcome(second)["sha256"]
    assert len(served.content) == server.sent


def test_disk_full(server: FileServer, tmp_path: Path) -> None:
    """A disk that takes no more in the middle of a write ends the download at once, with the cause."""
    served = server.put("/m", bytes(8 * MIB), etag='"a"')
    told = outcome(program(tmp_path, f"{server.url}/m", served.sha256, str(3 * MIB + 5)))

    assert "INSUFFICIENT_STORAGE" == told["reason"]
    assert 1 == len(server.fetched("/m"))

    again = outcome(program(tmp_path, f"{server.url}/m", served.sha256))
    assert served.sha256 == again["sha256"]
    assert 3 * MIB + 5 == server.fetched("/m")[-1].start


def test_too_large(server: FileServer, tmp_path: Path) -> None:
    """What the disk has no room for is not begun."""
    head = {"Content-Range": f"bytes 0-1023/{2**50}"}
    server.routes["/m"] = lambda _asked: (206, head, bytes(1024))
    told = outcome(program(tmp_path, f"{server.url}/m", ""))

    assert "INSUFFICIENT_STORAGE" == told["reason"]
    assert str(2**50 + 64 * MIB) == told["needed"]
    assert [] == list(tmp_path.iterdir())
