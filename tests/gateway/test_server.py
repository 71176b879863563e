"""The gateway on a real port: clients that leave, bodies without end, the end of the server."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.fake_services import Services
from gateway.gateways import SMALL_LIMIT, app_for, error_of, live_server
from localplane_gateway.server import serving
from localplane_gateway.settings import GatewaySettings


@pytest.fixture
async def url(live: AbstractAsyncContextManager[str]) -> AsyncGenerator[str]:
    """The URL of a gateway on a real port."""
    async with live as url:
        yield url


async def converse(url: str, *pieces: bytes) -> bytes:
    """Send bytes, and read until the server closes the connection."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer


def head(method: str, path: str, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


class TestRequests:
    async def test_curl_form_default(self, url: str, services: Services) -> None:
        """`curl -X GET -d '{...}'`, which calls JSON a form, is understood."""
        body = b'{"model": "m"}'
        form = "Content-Type: application/x-www-form-urlencoded"

        answer = await converse(
            url, head("GET", "/backend/monitor", form, f"Content-Length: {len(body)}"), body
        )

        assert answer.startswith(b"HTTP/1.1 200 ")
        assert "m" == services.request.model

    async def test_chunked_without_type(self, url: str, services: Services) -> None:
        """So is a chunked body that says nothing of itself."""
        chunks = b'7\r\n{"model\r\n7\r\n": "m"}\r\n0\r\n\r\n'

        answer = await converse(
            url, head("POST", "/backend/load", "Transfer-Encoding: chunked"), chunks
        )

        assert answer.startswith(b"HTTP/1.1 200 ")
        assert "m" == services.request.model

    async def test_encoded_slash(self, url: str, services: Services) -> None:
        """An encoded slash arrives as a part of the name."""
        async with httpx.AsyncClient(base_url=url) as client:
            await client.get("/api/models/a%2Fb")

        assert "a/b" == services.request.name

    async def test_keep_alive(self, url: str) -> None:
        """One connection serves many requests, refused ones among them."""
        async with httpx.AsyncClient(base_url=url) as client:
            statuses = [
                (await client.post("/backend/load", content=content)).status_code
                for content in (b'{"model": "m"}', b"{", b'{"model": "m"}')
            ]

        assert [200, 400, 200] == statuses

    async def test_without_host(self, url: str) -> None:
        """A program that speaks HTTP/1.0 names no host and is no browser."""
        answer = await converse(url, b"GET /version HTTP/1.0\r\n\r\n")

        assert answer.startswith(b"HTTP/1.1 200 ")


class TestLimit:
    async def test_announced(self, url: str) -> None:
        """The answer comes before the body: a client that waits for leave never sends it."""
        announced = f"Content-Length: {SMALL_LIMIT + 1}"

        answer = await converse(
            url, head("POST", "/backend/load", announced, "Expect: 100-continue")
        )

        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"BODY_TOO_LARGE" in answer

    async def test_client_that_sends_all_first(self, url: str) -> None:
        """A client that reads only after it has sent everything can still read the answer."""
        size = 64 * 1024 * 1024
        announced = f"Content-Length: {size}"

        answer = await converse(url, head("POST", "/backend/load", announced), b" " * size)

        assert answer.startswith(b"HTTP/1.1 413 ")

    async def test_endless(self, url: str) -> None:
        """A body without an end is cut off."""
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(head("POST", "/backend/load", "Transfer-Encoding: chunked"))

        async def send() -> None:
            while True:
                writer.write(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
                await writer.drain()

        sender = asyncio.create_task(send())
        line = await reader.readline()
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionError):
                await sender
        writer.close()

        assert b"HTTP/1.1 413 " == line[:13]


class TestHead:
    @pytest.mark.parametrize(
        "content",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a client that wants TLS
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"hello\r\n\r\n",
            b"GET /version HTTP/1.1\r\nHost localhost\r\n\r\n",
            b"GET /version HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"GET /version HTTP/1.1\r\nHost: \x00\r\n\r\n",
            b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"NONSENSE /version HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"POST /backend/load HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
            b"POST /backend/load HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            b"POST /backend/load HTTP/1.1\r\nTransfer-Encoding: x, chunked, y\r\n\r\n",
        ],
    )
    async def test_not_http(self, url: str, content: bytes) -> None:
        """What is not HTTP is refused in the shape that all errors have, and not waited for."""
        async with asyncio.timeout(5):
            answer = await converse(url, content)
        top, _, body = answer.partition(b"\r\n\r\n")

        assert top.startswith(b"HTTP/1.1 400 ")
        assert b"content-type: application/json" in top
        assert "INVALID_ARGUMENT" == json.loads(body)["error"]["reason"]

    @pytest.mark.parametrize("before", [b"", b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"])
    async def test_endless(self, url: str, before: bytes) -> None:
        """Headers without an end are cut off, and cost no more memory than they may be large."""
        parts = urlsplit(url)
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(before + b"GET /version HTTP/1.1\r\nHost: localhost\r\nX: ")

        async def send() -> None:
            while True:
                writer.write(b"x" * 0x4000)
                await writer.drain()

        async with asyncio.timeout(10):
            with pytest.raises(ConnectionError):
                await send()
        writer.close()

    async def test_large(self, url: str) -> None:
        """Headers of the size that browsers and proxies send get through, in however many pieces."""
        text = head("GET", "/version", "X: " + "x" * 30_000)
        pieces = [text[at : at + 1000] for at in range(0, len(text), 1000)]

        answer = await converse(url, *pieces)

        assert answer.startswith(b"HTTP/1.1 200 ")

    async def test_slow(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A client that does not finish its headers, or sends nothing, loses its connection; others do not."""
        monkeypatch.setattr("localplane_gateway.http_protocol.HEAD_SECONDS", 0.2)
        async with httpx.AsyncClient(base_url=url) as client, asyncio.timeout(5):
            assert 200 == (await client.get("/version")).status_code
            assert b"" == await converse(url)
            assert b"" == await converse(url, b"GET /version HTT")
            assert 200 == (await client.get("/version")).status_code


class TestDisconnect:
    async def test_unary(self, url: str, services: Services) -> None:
        """A call whose client leaves is cancelled."""
        services.holds = True
        async with httpx.AsyncClient(base_url=url) as client:
            call = asyncio.create_task(client.get("/version"))
            await services.entered.wait()
            call.cancel()
            async with asyncio.timeout(5):
                await services.cancelled.wait()

    async def test_slow_call(self, url: str, services: Services) -> None:
        """A call that takes its time, long enough to be watched, is answered as any other."""
        services.holds = True
        async with httpx.AsyncClient(base_url=url) as client:
            call = asyncio.create_task(client.post("/backend/load", json={"model": "m"}))
            await services.entered.wait()
            await asyncio.sleep(0.1)  # the watch begins after a fifth of that
            services.release.set()

            assert 200 == (await call).status_code

    async def test_half_a_body(self, url: str, services: Services) -> None:
        """A client that leaves in the middle of its body leaves nothing behind."""
        parts = urlsplit(url)
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(head("POST", "/backend/load", "Content-Length: 100") + b"{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

        async with httpx.AsyncClient(base_url=url) as client:
            assert 200 == (await client.get("/version")).status_code
        assert "LoadModel" not in type(services.request).__name__


class TestEnd:
    async def test_in_flight(self, services: Services) -> None:
        """Requests in flight are answered while the server ends; new ones find nobody."""
        services.holds = True
        server = live_server(app_for(GatewaySettings()))
        url = await server.__aenter__()
        async with httpx.AsyncClient(base_url=url) as client:
            call = asyncio.create_task(client.get("/version"))
            await services.entered.wait()
            ending = asyncio.create_task(server.__aexit__(None, None, None))
            await refusing(url)
            services.release.set()
            response = await call
            await ending

        assert (200, {"version": "v0.1.0"}) == (response.status_code, response.json())

    async def test_grace_ends(self, services: Services) -> None:
        """What outlasts the grace period is told so, and the call behind it is cancelled."""
        services.holds = True
        async with httpx.AsyncClient() as client:
            async with live_server(app_for(GatewaySettings())) as url:
                call = asyncio.create_task(client.get(f"{url}/version"))
                await services.entered.wait()
            response = await call

        assert (503, "DRAINING") == (response.status_code, error_of(response)["reason"])
        async with asyncio.timeout(5):
            await services.cancelled.wait()

    async def test_grace_of_streams_ends(self, services: Services) -> None:
        """A stream that outlasts it ends with the error as its last record."""
        services.holds_between = True
        body = {"messages": [], "stream": True}
        async with httpx.AsyncClient() as client:
            async with live_server(app_for(GatewaySettings())) as url:
                call = asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=body))
                await services.entered.wait()
            response = await call

        last = json.loads(response.text.strip().splitlines()[-1].removeprefix("data: "))
        assert "DRAINING" == last["error"]["reason"]
        async with asyncio.timeout(5):
            await services.cancelled.wait()

    async def test_signals(self, services: Services) -> None:
        """Signals stay the caller's."""
        assert services.request is None
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with serving(app_for(GatewaySettings()), [listener], grace_seconds=1):
                during = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

        assert before == during

    async def test_failure_inside(self, services: Services) -> None:
        """An error of the caller ends the server and comes through."""
        assert services.request is None
        with pytest.raises(ZeroDivisionError):
            async with live_server(app_for(GatewaySettings())):
                json.loads(str(1 / 0))


async def refusing(url: str) -> None:
    """Wait until nobody listens there any more."""
    parts = urlsplit(url)
    while True:
        try:
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        except ConnectionError:
            return
        writer.close()
        await asyncio.sleep(0.01)
