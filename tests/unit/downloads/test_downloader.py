"""Callers that want the same file share one download; documents are read; the folder is kept clean."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections import deque
from pathlib import Path

import pytest

from file_server import Fault, FileServer
from localplane_server.downloads import local
from localplane_server.downloads.downloader import Downloader
from localplane_server.downloads.endpoints import Endpoints
from localplane_server.downloads.progress import FileProgress, Phase, Validators
from localplane_server.errors import (
    DigestMismatchError,
    DownloadFailedError,
    SourceRefusedError,
)
from registry_server import RegistryServer
from unit.downloads.conftest import Make, names

CONTENT = os.urandom(3 * 1024 * 1024)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class TestSharing:
    """One download for all who want the same."""

    async def test_at_once(self, downloader: Downloader, server: FileServer) -> None:
        """Fifty callers get a file each, of one download, and each is told how far it is."""
        server.put("/m", CONTENT)
        ends: list[FileProgress] = []
        files = await asyncio.gather(
            *(downloader.fetch(f"{server.url}/m", report=ends.append) for _ in range(50))
        )

        assert 1 == len(server.fetched("/m"))
        assert 50 == len({one.path for one in files})
        assert {SHA256} == {hashlib.sha256(one.path.read_bytes()).hexdigest() for one in files}
        assert 50 == [one.phase for one in ends].count(Phase.DONE)

    async def test_is_moved_at_once(
        self, downloader: Downloader, server: FileServer, staging: Path, tmp_path: Path
    ) -> None:
        """Who gets a file may move it without a glance at the others."""
        server.put("/m", CONTENT)

        async def take(number: int) -> Path:
            staged = await downloader.fetch(f"{server.url}/m")
            return staged.path.rename(tmp_path / f"taken-{number}")

        taken = await asyncio.gather(*map(take, range(20)))
        assert 1 == len(server.fetched("/m"))
        assert {CONTENT} == {path.read_bytes() for path in taken}
        assert [] == names(staging)

    async def test_one_leaves(self, downloader: Downloader, server: FileServer) -> None:
        """One who is cancelled does not take the download away from another."""
        server.allow(64 * 1024)
        server.put("/m", CONTENT, etag='"a"')
        one, other = (asyncio.create_task(downloader.fetch(f"{server.url}/m")) for _ in "ab")
        await asyncio.to_thread(server.wait_for, 64 * 1024)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        server.allow(None)

        assert SHA256 == (await other).sha256
        assert 1 == len(server.fetched("/m"))

    async def test_all_leave(self, downloader: Downloader, server: FileServer) -> None:
        """When the last one leaves, the connection is closed; who comes then goes on."""
        server.allow(2 * 1024 * 1024)
        server.put("/m", CONTENT, etag='"a"')
        task = asyncio.create_task(downloader.fetch(f"{server.url}/m"))
        await asyncio.to_thread(server.wait_for, 2 * 1024 * 1024)
        task.cancel()
        again = asyncio.create_task(downloader.fetch(f"{server.url}/m"))
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(server.wait_until_asked, 2)
        server.allow(None)

        assert SHA256 == (await again).sha256

    async def test_failure(self, downloader: Downloader, server: FileServer) -> None:
        """A failure is everybody's, and the next call begins anew."""
        server.put("/m", CONTENT, faults=deque([Fault(status=404)]))
        failed = await asyncio.gather(
            *(downloader.fetch(f"{server.url}/m") for _ in "ab"), return_exceptions=True
        )

        assert [DownloadFailedError] * 2 == [type(one) for one in failed]
        assert SHA256 == (await downloader.fetch(f"{server.url}/m")).sha256

    async def test_closing(self, make: Make, server: FileServer) -> None:
        """A downloader that is closed ends what goes on."""
        server.allow(0)
        server.put("/m", CONTENT)
        async with make() as downloader:
            task = asyncio.create_task(downloader.fetch(f"{server.url}/m"))
            await asyncio.to_thread(server.wait_until_asked, 1)
        with pytest.raises(asyncio.CancelledError):
            await task


class TestWhole:
    """A file that was finished and never taken."""

    async def test_is_taken(self, make: Make, server: FileServer) -> None:
        """It is not fetched again after a restart."""
        server.put("/m", CONTENT)
        first = await make().fetch(f"{server.url}/m", sha256=SHA256)

        assert first == await make().fetch(f"{server.url}/m", sha256=SHA256)
        assert 1 == len(server.fetched("/m"))

    async def test_is_looked_at(self, make: Make, server: FileServer) -> None:
        """Unless it is not what it was."""
        server.put("/m", CONTENT)
        first = await make().fetch(f"{server.url}/m", sha256=SHA256)
        first.path.write_bytes(b"x")

        again = await make().fetch(f"{server.url}/m", sha256=SHA256)
        assert CONTENT == again.path.read_bytes()

    async def test_each_gets_its_own(self, downloader: Downloader, server: FileServer) -> None:
        """A caller's file is not given to the next one, also when it was moved meanwhile."""
        server.put("/m", CONTENT)
        first = await downloader.fetch(f"{server.url}/m")
        second = await downloader.fetch(f"{server.url}/m")
        assert first.path != second.path
        first.path.unlink()
        third = await downloader.fetch(f"{server.url}/m")

        assert CONTENT == second.path.read_bytes() == third.path.read_bytes()

    async def test_given_back(
        self, downloader: Downloader, server: FileServer, staging: Path
    ) -> None:
        """What its caller does not need after all is the next one's, and leaves nothing else behind."""
        server.put("/m", CONTENT)
        uri = f"{server.url}/m"
        first = await downloader.fetch(uri)
        for _ in range(3):
            other = await downloader.fetch(uri)
            assert first.path != other.path
            await downloader.give_back(other)
        await downloader.give_back(first)

        again = await downloader.fetch(uri)

        assert first == again
        assert [again.path.name] == names(staging)
        assert 1 == len(server.fetched("/m"))

    async def test_is_not_thrown_away_by_others(
        self, downloader: Downloader, server: FileServer
    ) -> None:
        """Who needs a file no longer takes it away from nobody who waits for it."""
        server.put("/m", CONTENT)
        uri = f"{server.url}/m"

        async def take_and_discard() -> bytes:
            staged = await downloader.fetch(uri)
            content = staged.path.read_bytes()
            staged.path.unlink()
            await downloader.discard(uri)
            return content

        taken = await asyncio.gather(*(take_and_discard() for _ in range(20)))
        assert [CONTENT] * 20 == taken
        assert 1 == len(server.fetched("/m"))

    async def test_is_moved_while_it_is_looked_at(
        self, downloader: Downloader, server: FileServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file that its first caller moves before the next one has it is fetched for him."""
        server.put("/m", CONTENT)
        first = await downloader.fetch(f"{server.url}/m")
        look = local.digest_of

        def digest_of(path: Path) -> str:
            found = look(path)
            first.path.unlink()
            return found

        monkeypatch.setattr(local, "digest_of", digest_of)
        second = await downloader.fetch(f"{server.url}/m")

        assert CONTENT == second.path.read_bytes()
        assert 2 == len(server.fetched("/m"))


class TestFacts:
    """What is known before anything is fetched."""

    @pytest.mark.parametrize("has_head", [True, False])
    @pytest.mark.parametrize("has_ranges", [True, False])
    async def test_size(
        self, downloader: Downloader, server: FileServer, *, has_head: bool, has_ranges: bool
    ) -> None:
        """The size, also from servers that do not know the verb, or no parts."""
        server.put("/m.gguf", CONTENT, has_head=has_head, has_ranges=has_ranges)
        facts = await downloader.facts(f"{server.url}/m.gguf", sha256=SHA256)

        assert (len(CONTENT), "m.gguf", SHA256) == (
            facts.size_bytes,
            facts.file_name,
            facts.sha256,
        )

    async def test_unknown(self, downloader: Downloader, server: FileServer) -> None:
        """A server that does not tell the size leaves it unknown; one without the file fails."""
        server.put("/m", CONTENT, has_length=False)
        assert (await downloader.facts(f"{server.url}/m")).size_bytes is None
        with pytest.raises(DownloadFailedError, match="404"):
            await downloader.facts(f"{server.url}/none")


class TestHub:
    """A hub tells the digest of a file when it redirects to it."""

    async def test_digest(self, make: Make, server: FileServer) -> None:
        """It is known before, and what does not have it is refused, also behind a name that changed."""
        server.put("/cdn", CONTENT)
        path = "/o/new/resolve/main/a/m.gguf"
        server.redirect("/o/r/resolve/main/a/m.gguf", path)
        server.redirect(path, "/cdn", X_Linked_ETag=f'"{SHA256}"')
        downloader = make(endpoints=Endpoints(hugging_face=server.url))

        assert SHA256 == (await downloader.facts("hf://o/r/a/m.gguf")).sha256
        assert SHA256 == (await downloader.fetch("hf://o/r/a/m.gguf")).sha256
        server.redirect(path, "/cdn", X_Linked_ETag=f'"{"1" * 64}"')
        with pytest.raises(DigestMismatchError):
            await downloader.fetch("hf://o/r/a/m.gguf", sha256=SHA256)
        await downloader.discard("hf://o/r/a/m.gguf")
        with pytest.raises(DigestMismatchError):
            await downloader.fetch("hf://o/r/a/m.gguf")


class TestRead:
    """Small documents."""

    async def test_conditions(self, downloader: Downloader, server: FileServer) -> None:
        """One that the caller has is not sent again."""
        server.put("/index.yaml", b"- name: m\n", etag='"a"')
        document = await downloader.read(f"{server.url}/index.yaml", most_bytes=1000)
        assert document is not None
        assert b"- name: m\n" == document.content
        assert Validators('"a"') == document.validators
        known = document.validators

        assert (
            await downloader.read(f"{server.url}/index.yaml", most_bytes=1000, validators=known)
            is None
        )

    @pytest.mark.parametrize(
        ("how", "cause"),
        [
            ({"content": b"x" * 1001}, "larger than 1000 bytes"),
            ({"content": b"x" * 1001, "has_length": False}, "larger than 1000 bytes"),
            ({"content": b"<!doctype html>"}, "a web page"),
            ({"content": b"", "kind": "text/html"}, "a web page"),
            ({"content": b"", "faults": deque([Fault(status=500)] * 9)}, "answered 500"),
            ({"content": b"", "headers": {"Content-Encoding": "br"}}, "compresses"),
        ],
    )
    async def test_fails(
        self, downloader: Downloader, server: FileServer, how: dict[str, object], cause: str
    ) -> None:
        """One that is too large, or none, is told of."""
        server.put("/m.yaml", **how)  # type: ignore[arg-type]
        with pytest.raises(DownloadFailedError, match=cause):
            await downloader.read(f"{server.url}/m.yaml", most_bytes=1000)


class TestBeginning:
    """The first bytes of a file."""

    @pytest.mark.parametrize("has_ranges", [True, False])
    async def test_large(
        self, downloader: Downloader, server: FileServer, staging: Path, *, has_ranges: bool
    ) -> None:
        """Of a large file little more is sent, whether or not parts of it can be had; nothing is staged."""
        content = random.Random(3).randbytes(40_000_000)  # noqa: S311 - no secret
        server.put("/m.gguf", content, has_ranges=has_ranges)

        found = await downloader.beginning(f"{server.url}/m.gguf", most_bytes=1000)

        assert content[:1000] == found
        server.wait_until_idle()
        assert server.sent < len(content) // 2
        assert [] == names(staging.parent)

    async def test_registry(self, downloader: Downloader, server: FileServer) -> None:
        """Of a layer, with the token that it needs."""
        registry = RegistryServer(server, token="t")
        registry.push("o/m", "v1", [("application/octet-stream", CONTENT, "m")])
        uri = f"oci://{registry.host}/o/m:v1"

        assert CONTENT[:9] == await downloader.beginning(uri, most_bytes=9)

    async def test_small(self, downloader: Downloader, server: FileServer) -> None:
        """A file that is shorter comes whole."""
        server.put("/m.gguf", b"GGUF")

        assert b"GGUF" == await downloader.beginning(f"{server.url}/m.gguf", most_bytes=1000)

    async def test_local(self, make: Make, tmp_path: Path) -> None:
        """So does one of this machine, where that is allowed."""
        (tmp_path / "m").write_bytes(b"GGUF...")
        downloader = make(file_roots=[tmp_path])

        assert b"GGUF" == await downloader.beginning(f"file://{tmp_path}/m", most_bytes=4)
        with pytest.raises(SourceRefusedError):
            await downloader.beginning("file:///etc/passwd", most_bytes=4)

    async def test_fails(self, downloader: Downloader, server: FileServer) -> None:
        """A page in its place, no file at all, a private address and a file in a wheel are told of."""
        server.put("/page.gguf", b"<!doctype html>")

        for uri, error in (
            (f"{server.url}/page.gguf", DownloadFailedError),
            (f"{server.url}/none", DownloadFailedError),
            ("https://10.0.0.1/x", SourceRefusedError),
            ("pypi://x==1/x", DownloadFailedError),
        ):
            with pytest.raises(error):
                await downloader.beginning(uri, most_bytes=1000)


async def test_discard(downloader: Downloader, server: FileServer, staging: Path) -> None:
    """What is staged is thrown away, whole or not, and that there is nothing is no error."""
    server.put("/m", CONTENT)
    await downloader.fetch(f"{server.url}/m", sha256=SHA256)
    await downloader.discard(f"{server.url}/m")
    assert 1 == len(names(staging))
    await downloader.discard(f"{server.url}/m", sha256=SHA256)
    await downloader.discard("no source")

    assert [] == names(staging)


async def test_prune(downloader: Downloader, server: FileServer, staging: Path) -> None:
    """What is old goes, what is new stays."""
    server.put("/m", CONTENT)
    staged = await downloader.fetch(f"{server.url}/m")
    assert [] == downloader.prune(older_than_seconds=3600)
    os.utime(staged.path, (1, 1))

    assert [staged.path] == downloader.prune(older_than_seconds=3600)
    assert [] == names(staging)


async def test_staging_that_cannot_be_used(
    downloader: Downloader, server: FileServer, staging: Path
) -> None:
    """A folder that is none is told of, without its path."""
    server.put("/m", CONTENT)
    staging.write_text("no folder")  # noqa: ASYNC240 - before anything else runs

    with pytest.raises(DownloadFailedError, match="the staging folder cannot be used") as caught:
        await downloader.fetch(f"{server.url}/m")
    assert str(staging) not in caught.value.message


async def test_without_second_names(
    downloader: Downloader, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system on which a file has one name gives the second caller a copy."""

    def link(_path: Path, _other: Path) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", link)
    server.put("/m", CONTENT)
    one, other = await asyncio.gather(*(downloader.fetch(f"{server.url}/m") for _ in "ab"))

    assert one.path != other.path
    assert one.path.read_bytes() == other.path.read_bytes()


@pytest.mark.parametrize("sha256", ["x", "0" * 63, "g" * 64])
async def test_digest_that_is_none(downloader: Downloader, sha256: str) -> None:
    """A digest that cannot be one is refused at once."""
    with pytest.raises(SourceRefusedError, match="SHA-256"):
        await downloader.fetch("https://example.org/m", sha256=sha256)
