"""Looks at what a web server has: the facts of a file without its body, and small documents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from localplane_server.downloads.patience import TransferError
from localplane_server.downloads.progress import Document, FileFacts, Validators
from localplane_server.downloads.transfer import Located, content_range, told_digest
from localplane_server.downloads.web import Answer, WebClient, check_beginning
from localplane_server.downloads.zip_parts import ZipParts

_PARTIAL = 206
_NOT_MODIFIED = 304
_UNSATISFIABLE = 416
_BEGINNING = 256
_WITHOUT_HEAD = frozenset({400, 403, 405, 501})
"""What servers answer that do not know the verb, or whose links are signed for another one."""


async def facts_of(web: WebClient, located: Located, sha256: str, seconds: float) -> FileFacts:
    """Return what a server tells of a file.

    Raises:
        TransferError: If it tells nothing.
        SourceRefusedError: If a redirect leads where it must not.
    """
    try:
        async with asyncio.timeout(seconds):
            size, told = await _asked(web, located)
    except TimeoutError as error:
        raise TransferError("it took too long") from error
    told.check_kind(located.file_name)
    return FileFacts(size, located.file_name, sha256 or told_digest(located, told))


async def _asked(web: WebClient, located: Located) -> tuple[int | None, Answer]:
    try:
        async with web.request(located.url, method="HEAD") as answer:
            return answer.length, answer
    except TransferError as trouble:
        if trouble.status not in _WITHOUT_HEAD:
            raise
    headers = {"Range": "bytes=0-0"}
    expected = frozenset({_UNSATISFIABLE})
    async with web.request(located.url, headers, expected=expected) as answer:
        return answer.whole_length, answer


async def read_document(
    web: WebClient, located: Located, most_bytes: int, validators: Validators, seconds: float
) -> Document | None:
    """Return a small document; None if it is the one that the validators are of.

    Raises:
        TransferError: If it does not come, or is too large.
        SourceRefusedError: If a redirect leads where it must not.
    """
    headers = {}
    if validators.etag:
        headers["If-None-Match"] = validators.etag
    elif validators.last_modified:
        headers["If-Modified-Since"] = validators.last_modified
    expected = frozenset({_NOT_MODIFIED}) if headers else frozenset()
    try:
        async with (
            asyncio.timeout(seconds),
            web.request(located.url, headers, expected=expected) as answer,
        ):
            if answer.status == _NOT_MODIFIED:
                return None
            answer.check_plain()
            answer.check_kind(located.file_name)
            content = await answer.read(most_bytes)
    except TimeoutError as error:
        raise TransferError("it took too long") from error
    check_beginning(content[:_BEGINNING], located.file_name)
    said = answer.headers
    return Document(content, Validators(said.get("etag", ""), said.get("last-modified", "")))


async def read_beginning(
    web: WebClient, located: Located, most_bytes: int, seconds: float
) -> bytes:
    """Return the first bytes of a file, from a server that sends parts of it or one that does not.

    Raises:
        TransferError: If they do not come.
        SourceRefusedError: If a redirect leads where it must not.
    """
    content = bytearray()
    async with _part(web, located, seconds, 0, most_bytes) as answer:
        async for piece in answer.pieces():
            content += piece
            if len(content) >= most_bytes:
                break
    check_beginning(bytes(content[:_BEGINNING]), located.file_name)
    return bytes(content[:most_bytes])


async def zip_at(web: WebClient, located: Located, seconds: float) -> ZipParts:
    """Return a zip of which only parts are to be read.

    Raises:
        TransferError: If the server does not tell its size.
        SourceRefusedError: If a redirect leads where it must not.
    """
    size = located.size_bytes
    if size is None:
        size = (await facts_of(web, located, "", seconds)).size_bytes
    if size is None:
        raise TransferError("the server does not tell its size", is_lasting=True)
    return ZipParts(size)


async def read_part(
    web: WebClient, located: Located, seconds: float, start: int, stop: int
) -> bytes:
    """Return what a file has from one byte to before another, and nothing of the rest.

    Args:
        web: Whom to ask through.
        located: The file, with its size.
        seconds: How long it may take.
        start: The first byte.
        stop: The one after the last.

    Raises:
        TransferError: If it does not come, the server gives files as a whole only, or the file has another size.
        SourceRefusedError: If a redirect leads where it must not.
    """
    content = bytearray()
    async with _part(web, located, seconds, start, stop) as answer:
        if answer.status != _PARTIAL:
            cause = "the server gives files as a whole only, so nobody can look into it"
            raise TransferError(cause, is_lasting=True)
        first, last, total = content_range(answer)
        if first != start or last != stop - 1:
            raise TransferError("the server sent another part than it was asked for")
        if total not in (None, located.size_bytes):
            cause = f"it has {total} bytes, and {located.size_bytes} were announced"
            raise TransferError(cause, is_lasting=True)
        async for piece in answer.pieces():
            content += piece[: stop - start - len(content)]
            if len(content) == stop - start:
                break
    if len(content) < stop - start:
        raise TransferError(f"the server ended it after {len(content)} of {stop - start} bytes")
    return bytes(content)


@asynccontextmanager
async def _part(
    web: WebClient, located: Located, seconds: float, start: int, stop: int
) -> AsyncGenerator[Answer]:
    """Have what a server answers to the request for a part of a file for as long as the context is open."""
    headers = {"Range": f"bytes={start}-{stop - 1}"}
    try:
        async with (
            asyncio.timeout(seconds),
            web.request(located.url, headers, credentials=located.credentials) as answer,
        ):
            answer.check_plain()
            answer.check_kind(located.file_name)
            yield answer
    except TimeoutError as error:
        raise TransferError("it took too long") from error
