"""Cutting lists into pages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from localplane_server.errors import InvalidArgumentError
from localplane_server.rpc.http_facts import BASE_URL, HEADER, http_fact

T = TypeVar("T")


def page(
    items: Sequence[T], key: Callable[[T], str], page_size: int, page_token: str
) -> tuple[Sequence[T], str]:
    """Return one page of items and the token of the next page, empty behind the last.

    A token names the last item shown, so that items that come or go in between shift nothing.

    Args:
        items: The items, sorted by their keys.
        key: Gives the key of an item.
        page_size: Most items to return; 0 means all.
        page_token: Token of an earlier page; empty for the first page.

    Raises:
        InvalidArgumentError: If the size is negative or the token is none of ours.
    """
    if page_size < 0:
        raise InvalidArgumentError("page_size must not be negative", field="page_size")
    if page_token:
        after = _read(page_token)
        items = [item for item in items if key(item) > after]
    if not page_size or len(items) <= page_size:
        return items, ""
    shown = items[:page_size]
    return shown, base64.urlsafe_b64encode(b"1" + key(shown[-1]).encode()).decode()


def next_page_headers(
    context: Any, path: str, token: str, **query: str | int
) -> list[tuple[str, str]]:
    """Return the metadata that tell REST of the next page, where its answer is a bare list or map. None on the last.

    Args:
        context: The call.
        path: Path of the route, without the slash before it.
        token: Token of the next page. Empty on the last.
        query: What else was asked for.
    """
    if not token:
        return []
    base = http_fact(context, BASE_URL).rstrip("/")
    link = f'<{base}/{path}?{urlencode({**query, "page_token": token})}>; rel="next"'
    return [(f"{HEADER}x-next-page-token", token), (f"{HEADER}link", link)]


async def send_next_page(context: Any, path: str, token: str, **query: str | int) -> None:
    """Tell REST of the next page; see above."""
    if headers := next_page_headers(context, path, token, **query):
        await context.send_initial_metadata(tuple(headers))


def _read(token: str) -> str:
    try:
        raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        if raw[:1] == b"1":
            return raw[1:].decode()
    except (binascii.Error, ValueError):
        pass
    raise InvalidArgumentError("page_token is not one that this list gave out", field="page_token")
