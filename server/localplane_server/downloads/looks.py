"""Looks at what a web server has: the facts of a file without its body, and small documents."""

from __future__ import annotations

import asyncio

from localplane_server.downloads.patience import TransferError
from localplane_server.downloads.progress import Document, FileFacts, Validators
from localplane_server.downloads.transfer import Located, told_digest
from localplane_server.downloads.web import Answer, WebClient, check_beginning

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
    headers = {"Range": f"bytes=0-{most_bytes - 1}"}
    content = bytearray()
    try:
        async with (
            asyncio.timeout(seconds),
            web.request(located.url, headers, credentials=located.credentials) as answer,
        ):
            answer.check_plain()
            answer.check_kind(located.file_name)
            async for piece in answer.pieces():
                content += piece
                if len(content) >= most_bytes:
                    break
    except TimeoutError as error:
        raise TransferError("it took too long") from error
    check_beginning(bytes(content[:_BEGINNING]), located.file_name)
    return bytes(content[:most_bytes])
