"""Requests lead only where they may, keep keys to themselves, and tell why they failed."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import socket
from collections.abc import Awaitable
from contextlib import closing, suppress
from urllib.parse import unquote

import pytest

from file_server import FileServer
from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.downloads.credentials import Credentials, bearer
from localplane_server.downloads.downloader import Downloader
from localplane_server.downloads.patience import TransferError
from localplane_server.downloads.web import retry_after, told_size
from localplane_server.errors import DownloadFailedError, OfflineError, SourceRefusedError
from unit.downloads.conftest import HURRY, Make

BOTH = AddressPolicy.of(["127.0.0.1", "localhost"])


class TestKeys:
    """A key goes to the host that it is for."""

    @pytest.mark.parametrize("target", ["/b", "//127.0.0.1:{port}/b", "http://localhost:{port}/b"])
    async def test_redirect(self, make: Make, server: FileServer, target: str) -> None:
        """It follows a redirect on its host, and not one to another."""
        server.put("/b", b"x")
        server.redirect("/a", target.format(port=server.port))
        keys = Credentials().bound(server.url, bearer("t"))
        await make(policy=BOTH, credentials=keys).fetch(f"{server.url}/a")

        assert "Bearer t" == server.asked[0].headers["authorization"]
        is_same = "localhost" not in target
        assert is_same == ("authorization" in server.fetched("/b")[0].headers)


class TestRedirects:
    """Each is looked at like a first request."""

    @pytest.mark.parametrize(
        "target",
        [
            "http://127.0.0.2:{port}/b",
            "http://localhost:{port}/b",
            "https://[::1]/b",
            "https://169.254.169.254/latest",
            "http://example.org/b",
            "file:///etc/passwd",
            "https://user:pass@example.org/b",
            "https://[::1/b",
            "https://" + "a" * 64 + ".example/b",
            "https://a..example/b",
        ],
    )
    async def test_refused(self, downloader: Downloader, server: FileServer, target: str) -> None:
        """One that leads to a private address, off TLS, or to no web server is not followed."""
        server.redirect("/a", target.format(port=server.port))
        uri = f"{server.url}/a"

        for attempt in (
            downloader.fetch(uri),
            downloader.facts(uri),
            downloader.read(uri, most_bytes=9),
        ):
            with pytest.raises(SourceRefusedError):
                await attempt
        assert {"/a"} == {one.path for one in server.asked}

    async def test_circle(self, downloader: Downloader, server: FileServer) -> None:
        """A circle ends."""
        server.redirect("/a", "/a")
        with pytest.raises(DownloadFailedError, match="more than 10 redirects"):
            await downloader.fetch(f"{server.url}/a")

    async def test_relative(self, downloader: Downloader, server: FileServer) -> None:
        """A relative one is relative to the page that has it."""
        server.put("/x/b", b"x")
        server.redirect("/x/a", "b#part")
        assert 1 == (await downloader.fetch(f"{server.url}/x/a")).size_bytes

    async def test_unquoted(self, downloader: Downloader, server: FileServer) -> None:
        """One that is UTF-8 as it is leads where it would lead if it were quoted."""
        server.put("/%E6%97%A5.bin", b"x")
        server.redirect("/a", "/日.bin".encode().decode("latin-1"))
        assert 1 == (await downloader.fetch(f"{server.url}/a")).size_bytes


@pytest.mark.parametrize("head", ["HTTP/1.1 404 No\r\nContent-Length: 60000\r\n\r\n", "HTTP/1.1 "])
async def test_drips(make: Make, head: str) -> None:
    """A server that sends a byte now and then holds up nobody for long: not with what it says of a failure either."""

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode())
        with suppress(OSError), closing(writer):
            while not writer.is_closing():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)

    patience = dataclasses.replace(HURRY, attempts=1, document_seconds=0.3)
    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        downloader = make(patience=patience)
        url = f"http://127.0.0.1:{port}/a"
        attempts: list[Awaitable[object]] = [
            downloader.facts(url),
            downloader.read(url, most_bytes=9),
        ]
        if "404" in head:
            attempts.append(downloader.fetch(url))
        for attempt in attempts:
            async with asyncio.timeout(5):
                with pytest.raises(DownloadFailedError):
                    await attempt
        await downloader.__aexit__(None, None, None)


async def test_query_is_not_told(downloader: Downloader, server: FileServer) -> None:
    """What a server says is not repeated if it repeats the query."""
    server.routes["/a"] = lambda asked: (404, {}, f"cannot get {unquote(asked.path)}".encode())

    with pytest.raises(DownloadFailedError, match="answered 404: cannot get /a"):
        await downloader.read(f"{server.url}/a", most_bytes=9)
    with pytest.raises(DownloadFailedError, match=r"answered 404$"):
        await downloader.read(f"{server.url}/a?a&key=sec%20ret", most_bytes=9)


async def test_key_that_cannot_be_sent(make: Make, server: FileServer) -> None:
    """A key that no header can hold is not told either."""
    keys = Credentials().bound(server.url, bearer("secret\nkey"))
    with pytest.raises(DownloadFailedError, match="the request cannot be sent") as caught:
        await make(credentials=keys).fetch(f"{server.url}/a")
    assert "secret" not in caught.value.message


async def test_what_is_sent(downloader: Downloader, server: FileServer) -> None:
    """Names are sent as they are written, and nothing may be compressed on the way."""
    server.put("/a%20b", b"x")
    await downloader.fetch(f"{server.url}/a b?c=d%2F")

    headers = server.asked[0].headers
    assert f"127.0.0.1:{server.port}" == headers["host"]
    assert "identity" == headers["accept-encoding"]


async def test_nobody_listens(downloader: Downloader) -> None:
    """A server that is not there is told of."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(DownloadFailedError, match=r"no connection to 127\.0\.0\.1"):
            await downloader.fetch(f"http://127.0.0.1:{port}/m")


async def test_no_http(downloader: Downloader, server: FileServer) -> None:
    """A server that does not know TLS is told of, too."""
    with pytest.raises(DownloadFailedError, match="no connection"):
        await downloader.fetch(f"https://127.0.0.1:{server.port}/m")


@pytest.mark.parametrize(
    "uri",
    ["https://example.org/m", "hf://o/r/m", "github:o/r/m", "ollama://m", "pypi://a==1/m"],
)
async def test_offline(make: Make, uri: str) -> None:
    """Off the network, nothing is even resolved."""

    async def find(host: str, port: int) -> list[str]:  # noqa: ARG001 - as it is called
        raise AssertionError(host)

    downloader = make(offline=True, find=find)
    for attempt in (
        downloader.fetch(uri),
        downloader.facts(uri),
        downloader.read(uri, most_bytes=9),
    ):
        with pytest.raises(OfflineError):
            await attempt


class TestRetryAfter:
    """When a server wants to be asked again."""

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [("7", 7), ("", None), ("soon", None), ("Mon, 01 Jan 2024 00:00:00 GMT", 0), ("-1", None)],
    )
    def test_values(self, value: str, seconds: float | None) -> None:
        """A number of seconds, a date, or nothing that can be read."""
        assert seconds == retry_after(value)

    def test_date(self) -> None:
        """A date to come is some seconds away."""
        then = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)
        seconds = retry_after(then.strftime("%a, %d %b %Y %H:%M:%S GMT"))
        assert seconds is not None
        assert 200 < seconds <= 300


def test_told_size() -> None:
    """What tells no size is none; a size that no file has is refused, however it is written."""
    assert [0, 7, 7] == [told_size(one) for one in (0, 7, "7")]
    assert {None} == {told_size(one) for one in (None, "", "-1", "x", -1, True, 1.5)}
    for large in (1 << 60, str(1 << 60), "9" * 5000):
        with pytest.raises(TransferError, match="is said to have"):
            told_size(large)
