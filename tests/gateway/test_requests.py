"""How a request of HTTP becomes the request of a method."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from gateway.fake_services import Services
from gateway.gateways import SMALL_LIMIT, error_of
from localplane_gateway.settings import GatewaySettings

MONITOR = "/backend/monitor"


class TestCallStyles:
    @pytest.mark.parametrize("path", [MONITOR, "/v1/backend/monitor"])
    @pytest.mark.parametrize(
        "request_of",
        [
            {"method": "GET", "json": {"model": "m"}},
            {"method": "GET", "params": {"model": "m"}},
            {"method": "POST", "json": {"model": "m"}},
            {"method": "POST", "params": {"model": "m"}},
            {"method": "POST", "params": {"model": "m"}, "json": {"model": None}},
            {"method": "POST", "params": {"model": "other"}, "json": {"model": "m"}},
        ],
    )
    async def test_where_the_model_stands(
        self,
        api: httpx.AsyncClient,
        services: Services,
        path: str,
        request_of: dict[str, object],
    ) -> None:
        """A model's name is read from the body of any verb, else from the query."""
        response = await api.request(url=path, **request_of)  # type: ignore[arg-type]

        assert (200, "m") == (response.status_code, services.request.model)

    @pytest.mark.parametrize(
        "content_type",
        [
            None,
            "application/json",
            "Application/JSON; charset=utf-8",
            "text/json",
            "application/vnd.api+json",
            "application/x-www-form-urlencoded",
        ],
    )
    async def test_what_counts_as_json(
        self, api: httpx.AsyncClient, services: Services, content_type: str | None
    ) -> None:
        """JSON is read under each of its names, without one, and under the one that curl gives."""
        headers = {} if content_type is None else {"content-type": content_type}

        response = await api.post("/backend/load", content=b'{"model": "m"}', headers=headers)

        assert (200, "m") == (response.status_code, services.request.model)

    @pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data", "image/png"])
    async def test_other_types(self, api: httpx.AsyncClient, content_type: str) -> None:
        """Any other type is refused."""
        headers = {"content-type": content_type}

        response = await api.post("/backend/load", content=b'{"model": "m"}', headers=headers)

        error = error_of(response)
        assert (415, "UNSUPPORTED_MEDIA_TYPE") == (error["code"], error["reason"])
        assert {"content_type": content_type} == error["metadata"]

    async def test_chunked(self, api: httpx.AsyncClient, services: Services) -> None:
        """A body whose length is not announced is read."""

        async def pieces() -> AsyncIterator[bytes]:
            yield b'{"model"'
            yield b': "m"}'

        response = await api.post("/backend/load", content=pieces())

        assert (200, "m") == (response.status_code, services.request.model)

    @pytest.mark.parametrize("content", [b"", b"{}", b"null"])
    async def test_empty(self, api: httpx.AsyncClient, content: bytes) -> None:
        """No body, null and an empty object are the same."""
        response = await api.post("/models/reload", content=content)

        assert (200, "models reloaded") == (response.status_code, response.json()["message"])

    async def test_trailing_slash(self, api: httpx.AsyncClient) -> None:
        """A slash at the end changes nothing."""
        assert 200 == (await api.get("/v1/models/")).status_code

    async def test_head(self, api: httpx.AsyncClient) -> None:
        """HEAD answers as GET does, without the body."""
        got, headed = await api.get("/version"), await api.head("/version")

        assert (200, b"") == (headed.status_code, headed.content)
        assert got.headers["content-length"] == headed.headers["content-length"]

    async def test_options(self, api: httpx.AsyncClient) -> None:
        """OPTIONS tells the verbs."""
        response = await api.options(MONITOR)

        assert (204, "GET, HEAD, OPTIONS, POST") == (
            response.status_code,
            response.headers["allow"],
        )

    async def test_body_of_a_get_that_takes_none(self, api: httpx.AsyncClient) -> None:
        """A GET without `body_on_get` does not look at a body."""
        response = await api.request("GET", "/version", content=b"{")

        assert 200 == response.status_code


class TestPath:
    @pytest.mark.parametrize(
        ("written", "name"),
        [
            ("m", "m"),
            ("a%2Fb%20c.gguf", "a/b c.gguf"),
            ("a__b", "a__b"),
            ("%C3%A9%F0%9F%A6%99", "é🦙"),
            ("..%2F..%2Fetc", "../../etc"),
            ("%25", "%"),
        ],
    )
    async def test_names(
        self, api: httpx.AsyncClient, services: Services, written: str, name: str
    ) -> None:
        """A segment is decoded after the path was split: an encoded slash stays in the name."""
        response = await api.get(f"/api/models/{written}")

        assert (200, name) == (response.status_code, services.request.name)

    @pytest.mark.parametrize(
        "path", ["/api/models/a/b", "/api/models/", "/api/models", "/x", "/x/"]
    )
    async def test_unknown(self, api: httpx.AsyncClient, path: str) -> None:
        """Anything else is not there."""
        error = error_of(await api.get(path))

        assert (404, "ROUTE_NOT_FOUND") == (error["code"], error["reason"])

    async def test_not_utf8(self, api: httpx.AsyncClient) -> None:
        """Bytes that are no text are refused."""
        assert "INVALID_ARGUMENT" == error_of(await api.get("/api/models/%FF"))["reason"]

    async def test_wrong_verb(self, api: httpx.AsyncClient) -> None:
        """A known path with a wrong verb tells the right ones."""
        response = await api.delete(MONITOR)

        error = error_of(response)
        assert (405, "METHOD_NOT_ALLOWED") == (error["code"], error["reason"])
        assert "GET, HEAD, OPTIONS, POST" == response.headers["allow"]


class TestQuery:
    async def test_types(self, api: httpx.AsyncClient, services: Services) -> None:
        """Values are read as their fields' types, under LocalAI's names; others are ignored."""
        query = {"page_size": "7", "excludeConfigured": "false", "filter": "a b", "nothing": "x"}

        await api.get("/v1/models", params=query)

        request = services.request
        assert (7, "a b", True, False) == (
            request.page_size,
            request.filter,
            request.HasField("exclude_configured"),
            request.exclude_configured,
        )

    async def test_lists(self, api: httpx.AsyncClient, services: Services) -> None:
        """A list is a parameter that is given several times."""
        await api.post("/v1/detokenize?tokens=3&tokens=5", json={"model": "m"})

        assert [3, 5] == list(services.request.tokens)

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("page_size=many", "page_size"),
            ("page_size=1_0", "page_size"),
            ("page_size=99999999999", "page_size"),
            ("excludeConfigured=perhaps", "excludeConfigured"),
        ],
    )
    async def test_wrong_type(self, api: httpx.AsyncClient, query: str, field: str) -> None:
        """A value of another type is refused, and the field is named."""
        error = error_of(await api.get(f"/v1/models?{query}"))

        assert (400, "INVALID_ARGUMENT") == (error["code"], error["reason"])
        assert {"field": field} == error["metadata"]

    async def test_not_utf8(self, api: httpx.AsyncClient) -> None:
        """Bytes that are no text are refused."""
        assert 400 == (await api.get("/v1/models?filter=%FF")).status_code

    async def test_empty_number(self, api: httpx.AsyncClient, services: Services) -> None:
        """A number without digits is as if it were not there."""
        response = await api.get("/v1/models?page_size=")

        assert (200, 0) == (response.status_code, services.request.page_size)


class TestBody:
    @pytest.mark.parametrize(
        ("path", "body", "reason", "field"),
        [
            (MONITOR, {"model": 5}, "INVALID_MODEL_NAME", "model"),
            (MONITOR, {"model": ["m"]}, "INVALID_MODEL_NAME", "model"),
            (MONITOR, {}, "INVALID_MODEL_NAME", "model"),
            (MONITOR, {"model": None}, "INVALID_MODEL_NAME", "model"),
            ("/backend/load", {"model": "m", "wait": "yes"}, "INVALID_ARGUMENT", "wait"),
            ("/v1/chat/completions", {"model": "m"}, "INVALID_ARGUMENT", "messages"),
            ("/v1/chat/completions", {"messages": {}}, "INVALID_ARGUMENT", "messages"),
            (
                "/v1/chat/completions",
                {"messages": [{"role": "user"}, {"role": 1}]},
                "INVALID_ARGUMENT",
                "messages[1].role",
            ),
            (
                "/v1/chat/completions",
                {"messages": [], "stream_options": {"include_usage": 1}},
                "INVALID_ARGUMENT",
                "stream_options.include_usage",
            ),
            ("/v1/embeddings", {"input": [["a"]]}, "INVALID_ARGUMENT", "input"),
            ("/v1/embeddings", {"input": None}, "INVALID_ARGUMENT", "input"),
        ],
    )
    async def test_wrong(
        self, api: httpx.AsyncClient, path: str, body: dict[str, object], reason: str, field: str
    ) -> None:
        """What is wrong is refused, with its place and the reason that the proto names."""
        error = error_of(await api.post(path, json=body))

        assert (400, reason) == (error["code"], error["reason"])
        assert {"field": field} == error["metadata"]
        assert field in error["message"]

    async def test_wording_of_localai(self, api: httpx.AsyncClient) -> None:
        """A missing model is complained about in LocalAI's words."""
        got = error_of(await api.get(MONITOR))
        posted = error_of(await api.post("/backend/load", json={}))

        assert ("model query parameter is required", "model is required") == (
            got["message"],
            posted["message"],
        )

    @pytest.mark.parametrize(
        "content",
        [b"{", b"model=m", b'{"model": "\xff"}', b'{"model": NaN}', b"[" * 10_000, b"\x00"],
    )
    async def test_not_json(self, api: httpx.AsyncClient, content: bytes) -> None:
        """What is not JSON is refused."""
        error = error_of(await api.post("/backend/load", content=content))

        assert (400, "INVALID_ARGUMENT") == (error["code"], error["reason"])
        assert error["message"].startswith("cannot parse the body as JSON")

    @pytest.mark.parametrize("content", [b"[]", b'"m"', b"5", b"true"])
    async def test_not_an_object(self, api: httpx.AsyncClient, content: bytes) -> None:
        """JSON that is not an object is refused."""
        assert 400 == (await api.post("/backend/load", content=content)).status_code

    @pytest.mark.parametrize("depth", [90, 500, 900])
    async def test_deep(self, api: httpx.AsyncClient, depth: int) -> None:
        """However deep JSON goes, the answer is one of the two that there are."""
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        content = b'{"model":"m","messages":[],"tools":[' + nested + b"]}"

        response = await api.post("/v1/chat/completions", content=content)

        assert response.status_code in (200, 400)

    @pytest.mark.parametrize("value", ['{"a":[%s]}', '{"a":[[%s]]}', '{"a":[{"b":[%s]}]}'])
    async def test_many_values(
        self, client_for: Callable[[GatewaySettings], httpx.AsyncClient], value: str
    ) -> None:
        """JSON of any form that would keep the event loop for long is refused before it does."""
        tool = value % ",".join("0" * 150_000)
        whole = {}
        async with client_for(GatewaySettings()) as api:
            for count in (1, 2):
                content = f'{{"model":"m","messages":[],"tools":[{",".join([tool] * count)}]}}'
                whole[count] = await api.post("/v1/chat/completions", content=content)

        assert 200 == whole[1].status_code
        assert {"field": "tools"} == error_of(whole[2])["metadata"]

    @pytest.mark.parametrize("depth", [90, 500, 900])
    async def test_deep_and_wrong(self, api: httpx.AsyncClient, depth: int) -> None:
        """What is wrong with a field is told however deep the value is that stands there."""
        content = b'{"model":' + b"[" * depth + b"]" * depth + b"}"

        error = error_of(await api.post("/backend/load", content=content))

        assert 400 == error["code"]

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ({"max_tokens": "5"}, 5),
            ({"max_tokens": 5.0}, 5),
            ({"max_tokens": 5, "unknown": {"a": []}}, 5),
            ({"max_tokens": 5, "temperature": None, "stop": None}, 5),
        ],
    )
    async def test_what_the_codec_reads(
        self,
        api: httpx.AsyncClient,
        services: Services,
        body: dict[str, object],
        expected: int,
    ) -> None:
        """The check is no stricter than the codec: numbers as text, unknown fields, null."""
        response = await api.post("/v1/chat/completions", json={"messages": [], **body})

        assert (200, expected) == (response.status_code, services.request.max_tokens)


class TestLimit:
    async def test_announced(self, api: httpx.AsyncClient, services: Services) -> None:
        """A body that says it is too large is refused unread."""
        response = await api.post("/backend/load", content=b" " * (SMALL_LIMIT + 1))

        error = error_of(response)
        assert (413, "BODY_TOO_LARGE") == (error["code"], error["reason"])
        assert {"limit": str(SMALL_LIMIT)} == error["metadata"]
        assert services.request is None

    async def test_chunked(self, api: httpx.AsyncClient) -> None:
        """A body that does not say is refused as soon as it is too large."""

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(SMALL_LIMIT // 1024 + 1):
                yield b" " * 1024

        response = await api.post("/backend/load", content=pieces())

        assert "BODY_TOO_LARGE" == error_of(response)["reason"]

    async def test_just_fits(self, api: httpx.AsyncClient) -> None:
        """The limit itself is allowed."""
        content = b'{"model": "m"}'.ljust(SMALL_LIMIT)

        assert 200 == (await api.post("/backend/load", content=content)).status_code
