"""Every route, with missing, wrong and conflicting input over REST.

The routes come from the generated document, and the fields from the descriptors of the methods behind them, so a new
route is walked as soon as it is declared. Both gateways are walked: the one inside the service, and one that stands
alone in front of it.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from contract.hostile import BODIES, TEXTS, bodies_of
from contract.surface import (
    FIRST,
    FIRST_WITH_BODY,
    METHODS,
    ROUTES,
    STREAMED,
    WITH_BODY,
    WITH_FIELDS,
    WITH_PATH,
    Route,
    good_path,
    good_values,
    json_name,
    walked,
)
from contract.walk import Walk
from localplane_server.setting_values import MEBIBYTE

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("unharmed")]

SETTINGS = {"max_body_size": 2 * MEBIBYTE}

JSON = {"content-type": "application/json"}
QUERIES = [
    "",
    "&",
    "=",
    "=1",
    "model",
    "model=",
    "a=b&" * 2000,
    "%ff=%ff",
    "%",
    "%zz",
    "x=%00",
    "[]=1",
    "model=a;b",
]
HEADERS: dict[str, dict[str, str]] = {
    "text": {"content-type": "text/plain"},
    "XML": {"content-type": "application/xml"},
    "parts": {"content-type": "multipart/form-data; boundary=x"},
    "parts without a boundary": {"content-type": "multipart/form-data"},
    "form": {"content-type": "application/x-www-form-urlencoded"},
    "other charset": {"content-type": "application/json; charset=utf-16"},
    "no type": {"content-type": ""},
    "mad type": {"content-type": "/;;=" + "x" * 5000},
    "compressed": {"content-encoding": "gzip", **JSON},
    "accepts nothing": {"accept": "nothing/at-all;q=0"},
    "accepts much": {"accept": "a/b," * 2000},
    "long request id": {"x-request-id": "x" * 5000},
    "mad request id": {"x-request-id": '"; DROP TABLE'},
    "range": {"range": "bytes=0-1"},
    "if none match": {"if-none-match": "*"},
    "override": {"x-http-method-override": "DELETE"},
    "forwarded": {
        "x-forwarded-for": "1.2.3.4",
        "x-forwarded-host": "evil.example",
        "forwarded": "host=evil.example",
    },
    "last event": {"last-event-id": "-1"},
    "upgrade": {"connection": "upgrade", "upgrade": "websocket"},
}


@pytest.fixture
def client(transports: dict[str, Any], gateway: str) -> httpx.AsyncClient:
    """A client of a gateway."""
    found: httpx.AsyncClient = transports[gateway]._client
    return found


class TestBodies:
    @walked(WITH_FIELDS)
    async def test_every_field(self, client: httpx.AsyncClient, route: Route) -> None:
        """Whatever JSON, or what is nearly JSON, stands in a field, the answer is one of the table."""
        walk = Walk(route.method)
        for label, body in bodies_of(route.method, METHODS[route.method].input_type):
            await walk.rest(label, client, route.verb, good_path(route), content=body, headers=JSON)

        walk.finish()

    @walked(WITH_BODY, alone=FIRST_WITH_BODY)
    async def test_whole_bodies(self, client: httpx.AsyncClient, route: Route) -> None:
        """A body that is no JSON object of the request is told as such."""
        walk = Walk(route.method)
        for label, body in BODIES.items():
            await walk.rest(label, client, route.verb, good_path(route), content=body, headers=JSON)

        walk.finish()

    @walked(WITH_BODY)
    async def test_too_large(self, client: httpx.AsyncClient, route: Route) -> None:
        """A body over the limit is refused, whether its length was announced or not."""
        walk = Walk(route.method)
        text = json.dumps({**good_values(route.method), "padding": "x" * 3 * MEBIBYTE}).encode()

        async def pieces() -> Any:
            yield text[:100]
            yield text[100:]

        for content in (text, pieces()):
            await walk.rest(
                "large", client, route.verb, good_path(route), content=content, headers=JSON
            )

        walk.finish()
        assert {"BODY_TOO_LARGE"} == walk.reasons

    @pytest.mark.parametrize("gateway", ["rest-upstream"])
    async def test_too_large_for_the_service(self, client: httpx.AsyncClient) -> None:
        """A gateway that takes more than the service behind it passes the refusal on."""
        walk = Walk("BackendService.LoadModel")
        body = {"model": "x" * 3 * MEBIBYTE}
        await walk.rest("large", client, "POST", "/backend/load", json=body)

        walk.finish()
        assert {"BODY_TOO_LARGE"} == walk.reasons

    @walked(STREAMED)
    async def test_streams(self, client: httpx.AsyncClient, route: Route) -> None:
        """What is wrong with a request is told before its stream begins, with the same statuses."""
        walk = Walk(route.method)
        start = b'{"stream":true,'
        for label, body in bodies_of(route.method, METHODS[route.method].input_type):
            body = start + body.removeprefix(b"{")  # noqa: PLW2901 - the same, but streamed
            await walk.rest(label, client, route.verb, good_path(route), content=body, headers=JSON)

        walk.finish()


class TestQueries:
    @walked(FIRST)
    async def test_every_field(self, client: httpx.AsyncClient, route: Route) -> None:
        """Whatever the query says of a field, alone or against the body, the answer is one of the table."""
        walk = Walk(route.method)
        path = good_path(route)
        body = {"json": good_values(route.method)} if route.takes_body else {}
        for field in METHODS[route.method].input_type.fields:
            for label, text in TEXTS.items():
                query = f"?{json_name(field)}={quote(text[:2000])}&{json_name(field)}=1"
                await walk.rest(f"{field.name}: {label}", client, route.verb, path + query)
                await walk.rest(
                    f"{field.name}: {label}, body", client, route.verb, path + query, **body
                )
        for query in QUERIES:
            await walk.rest(query[:40], client, route.verb, f"{path}?{query}", **body)

        walk.finish()


class TestPaths:
    @walked(WITH_PATH, alone=WITH_PATH)
    async def test_every_parameter(self, client: httpx.AsyncClient, route: Route) -> None:
        """Whatever stands in a path, the answer is one of the table."""
        walk = Walk(route.method)
        before, _, rest = route.path.partition("{")
        after = rest.partition("}")[2]
        texts = [
            *(quote(text[:2000], safe="") for text in TEXTS.values()),
            "%ff",
            "%",
            "%2",
            "..",
            "%2e%2e",
            "a%2Fb",
            "a/b",
            "__",
            "a;b",
            "*",
        ]
        for text in texts:
            await walk.rest(text[:40], client, route.verb, f"{before}{text}{after}")

        walk.finish()

    @pytest.mark.parametrize("gateway", ["rest", "rest-upstream"])
    @pytest.mark.parametrize(
        "path",
        [
            "/nothing",
            "/v1",
            "/v1/",
            "/..%2f..%2fetc/passwd",
            "/%00",
            "/%ff",
            "/" + "x" * 8000,
            "/docs/%2e%2e/%2e%2e/etc/passwd",
            "/openapi.yaml",
            "/favicon.ico",
            "/metrics/x",
        ],
    )
    async def test_no_route(self, client: httpx.AsyncClient, path: str) -> None:
        """What there is not is said to be not there."""
        walk = Walk("")
        for verb in ("GET", "POST", "DELETE"):
            await walk.rest(f"{verb} {path[:40]}", client, verb, path)

        walk.finish()
        assert walk.reasons <= {"ROUTE_NOT_FOUND", "METHOD_NOT_ALLOWED", "INVALID_ARGUMENT"}


class TestVerbs:
    @walked(ROUTES)
    async def test_every_verb(self, client: httpx.AsyncClient, route: Route) -> None:
        """A verb that a path does not know is refused, with those that it knows."""
        known = {one.verb for one in ROUTES if one.path == route.path}
        known |= {"HEAD", "OPTIONS"} if "GET" in known else {"OPTIONS"}
        for verb in {"PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "GET", "POST"} - known:
            response = await client.request(verb, good_path(route))
            walk = Walk(route.method)
            await walk.rest(verb, client, verb, good_path(route))
            walk.finish()
            assert {"METHOD_NOT_ALLOWED"} == walk.reasons
            assert known == set(response.headers["allow"].split(", "))


class TestHeaders:
    @walked(ROUTES, alone=FIRST)
    async def test_every_header(self, client: httpx.AsyncClient, route: Route) -> None:
        """Whatever the headers say, the answer is one of the table."""
        walk = Walk(route.method)
        body = json.dumps(good_values(route.method)).encode() if route.takes_body else None
        for label, headers in HEADERS.items():
            await walk.rest(
                label, client, route.verb, good_path(route), content=body, headers=headers
            )

        walk.finish()
        assert ("UNSUPPORTED_MEDIA_TYPE" in walk.reasons) == route.takes_body
