"""Every method without a key, with a wrong one and with a user's; and every route from strange pages and hosts.

Who may call a method comes from its option `access`, so a new method is checked as soon as it is declared.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from contract.surface import (
    FIRST,
    METHODS,
    ROUTES,
    Route,
    good_path,
    good_request,
    good_values,
    option,
    walked,
)
from contract.transports import GrpcTransport
from contract.walk import Walk
from localplane.v1 import options_pb2
from localplane_server.app import App
from served import WITHOUT_TLS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("unharmed")]

USER, KEY = "a-user", "an-admin"
KEY_FILE = f"# who may what\n{USER} user\n{KEY}\n"

PUBLIC, FOR_USERS = options_pb2.ACCESS_PUBLIC, options_pb2.ACCESS_USER
NO_KEYS = {
    "none": None,
    "empty": "",
    "no token": "Bearer",
    "unknown": "Bearer nobody",
    "other case": f"Bearer {KEY.upper()}",
    "cut": f"Bearer {KEY[:-1]}",
    "long": "Bearer " + "k" * 4000,
    "other scheme": "Basic YTpi",
    "two": f"Bearer {KEY} {USER}",
    "line of the file": f"Bearer {USER} user",
    "comment of the file": "Bearer #",
}
"""Values of `authorization` that open nothing."""
ODD_KEYS = {"latin": b"Bearer \xe9", "high": b"Bearer \xff\xfe", "tab": b"Bearer\ta"}
"""Values that a header of HTTP can have, and metadata of gRPC cannot."""
FOREIGN_PAGES = [
    {"sec-fetch-site": "cross-site"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://127.0.0.1.evil.example"},
    {"origin": "http://localhost:1"},
    {"origin": "file://"},
    {"origin": "x" * 5000},
    {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
]
"""Headers that browsers send for pages of other sites, and a few that they do not."""
FOREIGN_HOSTS = [
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil.example:8080",
    "user@evil.example",
    "127.0.0.1@evil.example",
    "192.0.2.1",
    "[::2]",
    "",
    ":80",
    "x" * 5000,
]
"""Names that this service is not known by."""

everywhere = walked(ROUTES, alone=FIRST)


@pytest_asyncio.fixture(loop_scope="module")
async def client(transports: dict[str, Any], gateway: str) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a gateway, without a key."""
    base_url = transports[gateway]._client.base_url
    async with httpx.AsyncClient(base_url=base_url, timeout=30, verify=WITHOUT_TLS) as client:
        yield client


def access_of(method: str) -> int:
    access: int = option(METHODS[method], options_pb2.access)
    return access


def body_of(route: Route) -> dict[str, Any]:
    return {"json": good_values(route.method)} if route.takes_body else {}


class TestGrpc:
    @pytest.mark.parametrize("method", sorted(METHODS))
    async def test_keys(self, app: App, transports: dict[str, Any], method: str) -> None:
        """A method is open to those whom its option names, over the wire and in the process."""
        access = access_of(method)
        is_public = access == PUBLIC
        request = good_request(method)
        for channel in (app.channel, transports["grpc"]._channel):
            for label, authorization in NO_KEYS.items():
                walk = Walk(method)
                transport = GrpcTransport(channel)
                transport._metadata = (("authorization", authorization),) if authorization else ()
                await walk.message(label, transport, request)
                walk.finish()
                assert ("UNAUTHENTICATED" in walk.reasons) != is_public, label
            walk = Walk(method)
            await walk.message("user", GrpcTransport(channel, USER), request)
            walk.finish()
            assert ("FORBIDDEN" in walk.reasons) == (access not in (PUBLIC, FOR_USERS))
            walk = Walk(method)
            await walk.message("admin", GrpcTransport(channel, KEY), request)
            walk.finish()
            assert not walk.reasons & {"UNAUTHENTICATED", "FORBIDDEN"}

    @pytest.mark.parametrize("method", sorted(METHODS))
    async def test_no_key_comes_first(self, transports: dict[str, Any], method: str) -> None:
        """Who has no key learns nothing of what else is wrong."""
        channel: Any = transports["grpc"]._channel
        walk = Walk(method)
        await walk.wire("not a message", channel, b"\xff")
        walk.finish()

        expected = "INVALID_ARGUMENT" if access_of(method) == PUBLIC else "UNAUTHENTICATED"
        assert {expected} == walk.reasons


class TestRest:
    @everywhere
    async def test_keys(self, client: httpx.AsyncClient, route: Route) -> None:
        """A route is open to those whom its method's option names."""
        access = access_of(route.method)
        path = good_path(route)
        for label, key in [*NO_KEYS.items(), *ODD_KEYS.items()]:
            walk = Walk(route.method)
            headers: Any = {} if key is None else {"authorization": key}
            await walk.rest(label, client, route.verb, path, headers=headers, **body_of(route))
            walk.finish()
            assert ("UNAUTHENTICATED" in walk.reasons) == (access != PUBLIC), label
        for label, headers in {
            "bearer": {"authorization": f"Bearer {USER}"},
            "header": {"x-api-key": USER},
            "cookie": {"cookie": f"token={USER}"},
        }.items():
            walk = Walk(route.method)
            await walk.rest(label, client, route.verb, path, headers=headers, **body_of(route))
            walk.finish()
            assert ("FORBIDDEN" in walk.reasons) == (access not in (PUBLIC, FOR_USERS)), label
        walk = Walk(route.method)
        headers = {"authorization": f"Bearer {KEY}"}
        await walk.rest("admin", client, route.verb, path, headers=headers, **body_of(route))
        walk.finish()
        assert not walk.reasons & {"UNAUTHENTICATED", "FORBIDDEN"}

    @everywhere
    async def test_a_key_in_the_query_is_none(
        self, client: httpx.AsyncClient, route: Route
    ) -> None:
        """Addresses end up in logs and histories, so no key is taken from there."""
        walk = Walk(route.method)
        query = f"?api_key={KEY}&key={KEY}&token={KEY}&authorization=Bearer+{KEY}"
        await walk.rest("query", client, route.verb, good_path(route) + query, **body_of(route))
        walk.finish()

        assert ("UNAUTHENTICATED" in walk.reasons) == (access_of(route.method) != PUBLIC)

    @everywhere
    async def test_no_key_comes_first(self, client: httpx.AsyncClient, route: Route) -> None:
        """Who has no key learns nothing of what else is wrong, and has no body read."""
        walk = Walk(route.method)
        for content in (b"{", b"[" * 100_000, bytes(40 * 2**20)):
            headers = {"content-type": "text/plain"}
            await walk.rest(
                "wrong",
                client,
                route.verb,
                good_path(route) + "?page_size=x",
                content=content,
                headers=headers,
            )
        walk.finish()

        assert ({"UNAUTHENTICATED"} == walk.reasons) == (access_of(route.method) != PUBLIC)


class TestPages:
    @everywhere
    async def test_other_site(self, client: httpx.AsyncClient, route: Route) -> None:
        """A page of another site gets nothing but public reads, even with a key."""
        is_public_read = access_of(route.method) == PUBLIC and route.verb == "GET"
        for headers in FOREIGN_PAGES:
            walk = Walk(route.method)
            sent = {**headers, "authorization": f"Bearer {KEY}"}
            await walk.rest(
                "page", client, route.verb, good_path(route), headers=sent, **body_of(route)
            )
            walk.finish()
            assert ("CROSS_SITE" in walk.reasons) != is_public_read, headers

    @everywhere
    async def test_other_host(self, client: httpx.AsyncClient, route: Route) -> None:
        """A request for a host that this is not is for somebody else, whoever asks."""
        walk = Walk(route.method)
        for host in FOREIGN_HOSTS:
            headers = {"host": host, "authorization": f"Bearer {KEY}"}
            await walk.rest(
                host, client, route.verb, good_path(route), headers=headers, **body_of(route)
            )
        walk.finish()

        assert {"MISDIRECTED_REQUEST"} == walk.reasons
