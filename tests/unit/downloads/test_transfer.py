"""Files come whole over HTTP, or not at all and with the true cause."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from file_server import Asked, Fault, FileServer
from localplane_server.downloads.downloader import Downloader
from localplane_server.downloads.progress import FileProgress, Phase
from localplane_server.errors import DigestMismatchError, DownloadFailedError
from unit.downloads.conftest import names

CONTENT = bytes(range(256)) * 16 * 1024
"""Four mebibytes."""
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TAG = '"a"'


async def test_small(downloader: Downloader, server: FileServer) -> None:
    """A file comes whole, with its digest and its name, and its size is told on the way."""
    server.put("/m.gguf", CONTENT, etag=TAG)
    seen: list[FileProgress] = []

    staged = await downloader.fetch(f"{server.url}/m.gguf", report=seen.append)

    assert CONTENT == staged.path.read_bytes()
    assert (len(CONTENT), SHA256, "m.gguf") == (staged.size_bytes, staged.sha256, staged.file_name)
    assert FileProgress(Phase.CONNECTING, 0) == seen[0]
    assert FileProgress(Phase.DONE, len(CONTENT), len(CONTENT)) == seen[-1]
    assert sorted(one.done_bytes for one in seen) == [one.done_bytes for one in seen]
    assert {Phase.CONNECTING, Phase.DOWNLOADING, Phase.VERIFYING, Phase.DONE} == {
        one.phase for one in seen
    }


async def test_leaves_nothing(downloader: Downloader, server: FileServer, staging: Path) -> None:
    """Once its caller has taken it, nothing of a file is left in the staging folder."""
    server.put("/m", CONTENT)
    staged = await downloader.fetch(f"{server.url}/m", sha256=SHA256)
    staged.path.rename(staging.parent / "m")

    assert [] == names(staging)


@pytest.mark.parametrize("has_ranges", [True, False])
@pytest.mark.parametrize("has_length", [True, False])
async def test_empty(
    downloader: Downloader, server: FileServer, *, has_ranges: bool, has_length: bool
) -> None:
    """An empty file is a file."""
    server.put("/m", b"", has_ranges=has_ranges, has_length=has_length)

    staged = await downloader.fetch(f"{server.url}/m")

    assert 0 == staged.size_bytes
    assert hashlib.sha256().hexdigest() == staged.sha256


async def test_several_connections(
    downloader: Downloader, server: FileServer, large: bytes
) -> None:
    """A large file is fetched in parts, each once."""
    served = server.put("/m", large, etag=TAG)

    staged = await downloader.fetch(f"{server.url}/m", sha256=served.sha256)

    assert served.sha256 == hashlib.sha256(staged.path.read_bytes()).hexdigest()
    assert 3 == len(server.fetched("/m"))
    assert len(large) == sum(one.sent for one in server.fetched("/m"))


async def test_large_without_ranges(
    downloader: Downloader, server: FileServer, large: bytes
) -> None:
    """A server that gives no parts gives a large file at once."""
    served = server.put("/m", large, has_ranges=False)

    assert served.sha256 == (await downloader.fetch(f"{server.url}/m")).sha256
    assert 1 == len(server.fetched("/m"))


async def test_without_length(downloader: Downloader, server: FileServer) -> None:
    """A server that does not tell the size can still give the file."""
    server.put("/m", CONTENT, has_ranges=False, has_length=False)

    assert SHA256 == (await downloader.fetch(f"{server.url}/m")).sha256


Break = Callable[[], Fault]
BREAKS = {
    "cut": Fault(cut_after=3_000_000),
    "stall": Fault(stall_after=3_000_000),
    "status 500": Fault(status=500),
    "status 503": Fault(status=503, headers={"Retry-After": "0"}),
    "status 429": Fault(status=429, headers={"Retry-After": "Mon, 01 Jan 2024 00:00:00 GMT"}),
}


@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
@pytest.mark.parametrize("has_ranges", [True, False])
async def test_tries_again(
    impatient: Downloader, server: FileServer, fault: Fault, *, has_ranges: bool
) -> None:
    """What passes is tried again, from where it broke off if the server can do that."""
    server.put("/m", CONTENT, etag=TAG, has_ranges=has_ranges, faults=deque([fault]))

    assert SHA256 == (await impatient.fetch(f"{server.url}/m")).sha256
    first, again = server.fetched("/m")
    assert (first.sent if has_ranges else 0) == again.start
    if first.sent and has_ranges:
        assert TAG == again.headers["if-range"]


async def test_goes_on_while_it_gets_on(downloader: Downloader, server: FileServer) -> None:
    """A connection that breaks more often than patience lasts is enough, as long as each brings some."""
    server.put("/m", CONTENT, etag=TAG, faults=deque([Fault(cut_after=500_000)] * 8))

    assert SHA256 == (await downloader.fetch(f"{server.url}/m")).sha256


@pytest.mark.parametrize(
    ("fault", "has_ranges", "cause"),
    [
        (Fault(cut_after=0), True, "broke off"),
        (Fault(cut_after=3_000_000), False, "broke off"),
        (Fault(stall_after=0), True, "stalled"),
        (Fault(status=500, body=b"out of order"), True, "answered 500: out of order"),
        (Fault(status=429, headers={"Retry-After": "3600"}), True, "answered 429"),
        (Fault(status=404), True, "answered 404"),
        (Fault(status=401), True, "answered 401, which means that it wants a key"),
        (Fault(status=204), True, "answered 204"),
        (Fault(status=302), True, "a redirect that leads nowhere"),
        (
            Fault(status=200, headers={"Content-Type": "text/html; charset=utf-8"}, body=b"<p>"),
            True,
            "a web page instead of the file",
        ),
        (Fault(status=200, body=b" \n<!DOCTYPE HTML><p>"), True, "a web page instead of the file"),
        (Fault(status=206, body=b"<html>", headers={"Content-Range": "bytes 0-5/6"}), True, "page"),
        (Fault(status=206, headers={"Content-Range": "bytes 5-6/9"}), True, "another part"),
        (Fault(status=206, headers={"Content-Range": "bytes 0-6/5"}), True, "more than it says"),
        (Fault(status=200, headers={"Content-Encoding": "gzip"}), True, "compresses it"),
        (Fault(status=200, headers={"Content-Length": "9" * 20}), True, "is said to have 9999"),
        (Fault(status=206, headers={"Content-Range": f"bytes 0-1/{'9' * 5000}"}), True, "is said"),
    ],
)
async def test_fails(
    impatient: Downloader, server: FileServer, fault: Fault, *, has_ranges: bool, cause: str
) -> None:
    """What does not pass is told, with the true cause and the place."""
    faults = deque([fault] * 10)
    server.put("/m", CONTENT, has_ranges=has_ranges, faults=faults)

    with pytest.raises(DownloadFailedError, match=cause) as caught:
        await impatient.fetch(f"{server.url}/m?key=secret")

    assert f"{server.url}/m" == caught.value.metadata["source"]
    assert "secret" not in caught.value.message


async def test_page_that_is_meant(downloader: Downloader, server: FileServer) -> None:
    """A file that is called a web page may be one."""
    server.put("/m.html", b"<html></html>", kind="text/html")

    assert 13 == (await downloader.fetch(f"{server.url}/m.html")).size_bytes


async def test_wrong_digest(downloader: Downloader, server: FileServer, staging: Path) -> None:
    """Another file than the one that was asked for is thrown away."""
    server.put("/m", CONTENT, etag=TAG)

    with pytest.raises(DigestMismatchError) as caught:
        await downloader.fetch(f"{server.url}/m", sha256="0" * 64)

    assert {"source": f"{server.url}/m", "expected": "0" * 64, "found": SHA256} == (
        caught.value.metadata
    )
    assert [] == names(staging)


async def stopped_halfway(downloader: Downloader, server: FileServer, sha256: str) -> None:
    """Fetch something like the first half of the file and cancel."""
    server.files["/m"].faults.append(Fault(stall_after=2 * 1024 * 1024))
    is_half = asyncio.Event()

    def report(progress: FileProgress) -> None:
        if progress.done_bytes:
            is_half.set()

    task = asyncio.create_task(downloader.fetch(f"{server.url}/m", sha256=sha256, report=report))
    await is_half.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class TestResuming:
    """What is there is not fetched twice, unless it may be of another file."""

    @pytest.mark.parametrize(
        ("tags", "sha256"),
        [
            ({"etag": TAG}, ""),
            ({"last_modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, ""),
            ({"etag": 'W/"a"'}, SHA256),
            ({}, SHA256),
        ],
    )
    async def test_resumes(
        self, downloader: Downloader, server: FileServer, tags: dict[str, str], sha256: str
    ) -> None:
        """A tag, a date or a digest is enough to go on."""
        server.put("/m", CONTENT, **tags)
        await stopped_halfway(downloader, server, sha256)

        assert SHA256 == (await downloader.fetch(f"{server.url}/m", sha256=sha256)).sha256
        _, last = server.fetched("/m")
        assert 1024 * 1024 <= last.start <= 2 * 1024 * 1024
        assert len(CONTENT) - last.start == last.sent

    async def test_needs_to_know(self, downloader: Downloader, server: FileServer) -> None:
        """Without any of these a file is fetched from its beginning."""
        server.put("/m", CONTENT)
        await stopped_halfway(downloader, server, "")

        assert SHA256 == (await downloader.fetch(f"{server.url}/m")).sha256
        assert 0 == server.fetched("/m")[-1].start

    async def test_without_length(self, downloader: Downloader, server: FileServer) -> None:
        """So is a file of which nobody knows how long it is."""
        server.put("/m", CONTENT, etag=TAG, has_ranges=False, has_length=False)
        await stopped_halfway(downloader, server, SHA256)

        assert SHA256 == (await downloader.fetch(f"{server.url}/m", sha256=SHA256)).sha256

    @pytest.mark.parametrize("has_ranges", [True, False])
    async def test_changed(
        self, downloader: Downloader, server: FileServer, *, has_ranges: bool
    ) -> None:
        """A file that changed meanwhile is fetched from its beginning."""
        server.put("/m", CONTENT, etag=TAG)
        await stopped_halfway(downloader, server, "")
        served = server.put("/m", CONTENT[::-1], etag='"b"', has_ranges=has_ranges)

        assert served.sha256 == (await downloader.fetch(f"{server.url}/m")).sha256

    async def test_changes_in_the_middle(self, downloader: Downloader, server: FileServer) -> None:
        """So is one that changes while it is fetched, on a server that ignores conditions."""
        server.put("/m", CONTENT, etag=TAG, faults=deque([Fault(cut_after=2 * 1024 * 1024)]))
        changed = CONTENT[::-1]
        head = {"ETag": '"b"', "Content-Range": f"bytes 2097152-4194303/{len(changed)}"}
        server.files["/m"].faults.append(Fault(status=206, headers=head, body=changed[2097152:]))
        server.files["/m"].content, server.files["/m"].etag = changed, '"b"'

        staged = await downloader.fetch(f"{server.url}/m")

        assert changed == staged.path.read_bytes()

    async def test_changes_for_ever(self, downloader: Downloader, server: FileServer) -> None:
        """A file that never stays the same is given up."""
        numbers = itertools.count()

        def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
            start = int(asked.headers["range"].removeprefix("bytes=").partition("-")[0])
            body = CONTENT[start : start + 1_000_000]
            span = f"bytes {start}-{start + len(body) - 1}/{len(CONTENT)}"
            return 206, {"ETag": f'"{next(numbers)}"', "Content-Range": span}, body

        server.routes["/m"] = answer

        with pytest.raises(DownloadFailedError, match="changes again and again"):
            await downloader.fetch(f"{server.url}/m")

    async def test_wrong_beginning(self, downloader: Downloader, server: FileServer) -> None:
        """When what an earlier attempt has left turns out to be wrong, the file is fetched once more."""
        server.put("/m", CONTENT[::-1])
        await stopped_halfway(downloader, server, SHA256)
        server.put("/m", CONTENT)

        assert SHA256 == (await downloader.fetch(f"{server.url}/m", sha256=SHA256)).sha256

    async def test_shorter_now(self, downloader: Downloader, server: FileServer) -> None:
        """A server that has no such part any more is asked for the whole."""
        server.put("/m", CONTENT)
        await stopped_halfway(downloader, server, SHA256)
        server.put("/m", CONTENT[:1000])

        with pytest.raises(DigestMismatchError):
            await downloader.fetch(f"{server.url}/m", sha256=SHA256)


async def test_link_that_expires(downloader: Downloader, server: FileServer) -> None:
    """When the place that a server redirects to is gone in the middle, the server is asked for another."""
    links = iter(["/one", "/two"])
    server.routes["/m"] = lambda _asked: (302, {"Location": next(links)}, b"")
    faults = deque([Fault(cut_after=2_000_000), Fault(status=403)])
    server.put("/one", CONTENT, etag=TAG, faults=faults)
    server.put("/two", CONTENT, etag=TAG)

    assert SHA256 == (await downloader.fetch(f"{server.url}/m")).sha256
    assert 2_000_000 == server.fetched("/two")[0].start
