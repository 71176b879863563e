"""How a call ends when its client goes."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from localplane_gateway.disconnect import unless_gone
from localplane_gateway.errors import ClientGoneError


class Client:
    """A client that goes when it is told to."""

    def __init__(self) -> None:
        self.going = asyncio.Event()
        self.is_watched = False

    async def receive(self) -> dict[str, Any]:
        self.is_watched = True
        await self.going.wait()
        return {"type": "http.disconnect"}


@pytest.fixture
async def client() -> Client:
    return Client()


async def test_over_at_once(client: Client) -> None:
    """What never waits gives its value, and nobody looks at the client."""

    async def work() -> int:
        return 7

    assert 7 == await unless_gone(work(), client.receive)
    assert not client.is_watched


async def test_fails_at_once(client: Client) -> None:
    """What fails without waiting fails as it does alone."""

    async def work() -> int:
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await unless_gone(work(), client.receive)


async def test_waits(client: Client) -> None:
    """What waits several times gives its value while the client stays."""

    async def work() -> int:
        for _ in range(3):
            await asyncio.sleep(0)
        return 7

    assert 7 == await unless_gone(work(), client.receive)


async def test_awaitable(client: Client) -> None:
    """Any awaitable will do, as a call of gRPC is."""

    class Call:
        def __await__(self) -> Generator[Any, Any, int]:
            yield from asyncio.sleep(0).__await__()
            return 7

    assert 7 == await unless_gone(Call(), client.receive)


async def test_client_goes(client: Client) -> None:
    """The work is cancelled when the client goes, and may still clean up."""
    cleaned = False

    async def work() -> None:
        nonlocal cleaned
        try:
            client.going.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned = True

    with pytest.raises(ClientGoneError):
        await unless_gone(work(), client.receive)
    assert cleaned


async def test_work_may_refuse_to_end(client: Client) -> None:
    """Work that finishes all the same gives its value."""

    async def work() -> int:
        client.going.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return 7

    assert 7 == await unless_gone(work(), client.receive)


async def test_cancelled_by_others(client: Client) -> None:
    """A cancellation that is not the client's doing stays one."""
    waits = asyncio.Event()

    async def work() -> None:
        waits.set()
        await asyncio.Event().wait()

    async def call() -> None:
        await unless_gone(work(), client.receive)

    task = asyncio.create_task(call())
    await waits.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_later_failure(client: Client) -> None:
    """What fails after it has waited fails as it does alone."""

    async def work() -> None:
        await asyncio.sleep(0)
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await unless_gone(work(), client.receive)
