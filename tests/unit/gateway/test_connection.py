"""What a connection writes, and when."""

from __future__ import annotations

import asyncio

import pytest

from localplane_gateway.connection import JoiningTransport


class Recorder(asyncio.Transport):
    """A transport that notes what it is told."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 80)})
        self.told: list[object] = []
        self.has_gone = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.told.append(data)

    def close(self) -> None:
        self.told.append("close")

    def is_closing(self) -> bool:
        return self.has_gone

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def transport(recorder: Recorder) -> JoiningTransport:
    return JoiningTransport(recorder, asyncio.get_running_loop())


async def test_joins(transport: JoiningTransport, recorder: Recorder) -> None:
    """What is written in one go leaves in one piece, once the loop goes on."""
    transport.write(b"head")
    transport.write(b"body")

    assert [] == recorder.told

    await asyncio.sleep(0)

    assert [b"headbody"] == recorder.told


async def test_streams(transport: JoiningTransport, recorder: Recorder) -> None:
    """What is written later does not wait for more, and goes behind."""
    for chunk in (b"one", b"two"):
        transport.write(chunk)
        await asyncio.sleep(0)

    assert [b"one", b"two"] == recorder.told


async def test_piles_up_to_a_limit(transport: JoiningTransport, recorder: Recorder) -> None:
    """Somebody who writes without ever waiting does not fill the memory."""
    chunk = b"x" * 40_000
    for _ in range(3):
        transport.write(chunk)

    assert [2 * chunk] == recorder.told

    await asyncio.sleep(0)

    assert [2 * chunk, chunk] == recorder.told


async def test_close(transport: JoiningTransport, recorder: Recorder) -> None:
    """A close waits for what was written, and nothing follows it."""
    transport.write(b"last")
    transport.close()
    await asyncio.sleep(0)

    assert [b"last", "close"] == recorder.told


async def test_client_has_gone(transport: JoiningTransport, recorder: Recorder) -> None:
    """Nothing is written to a client that closed the connection meanwhile."""
    transport.write(b"late")
    recorder.has_gone = True
    await asyncio.sleep(0)

    assert [] == recorder.told


async def test_passes_on(transport: JoiningTransport, recorder: Recorder) -> None:
    """All else is the socket's own."""
    transport.pause_reading()
    transport.resume_reading()

    assert ["pause", "resume"] == recorder.told
    assert not transport.is_closing()
    assert ("127.0.0.1", 80) == transport.get_extra_info("sockname")
    assert "none" == transport.get_extra_info("peername", "none")


async def test_large_pieces_are_not_copied(
    transport: JoiningTransport, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Head and body leave together, each as it is."""
    monkeypatch.setattr(recorder, "writelines", lambda pieces: recorder.told.append([*pieces]))
    head, body = b"head", b"x" * 100_000
    transport.write(head)
    transport.write(body)
    (pieces,) = recorder.told

    assert [head, body] == pieces
    assert isinstance(pieces, list)
    assert pieces[1] is body
