"""How the answer of a method becomes an answer of HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest

from gateway.fake_services import Services
from gateway.gateways import app_for, client_of
from localplane_gateway.settings import GatewaySettings


class TestBodies:
    async def test_json(self, api: httpx.AsyncClient) -> None:
        """A message is JSON: numbers, also of 64 bits, and null for what is not known."""
        response = await api.get("/backend/monitor?model=m")

        body = response.json()
        assert "application/json" == response.headers["content-type"]
        assert (2, {"total": 2**40, "breakdown": {"weights": 2**39}}, None) == (
            body["state"],
            body["memory"],
            body["pid"],
        )

    async def test_bare_array(self, api: httpx.AsyncClient, services: Services) -> None:
        """With `response_body` the answer is that field alone, also when it is empty."""
        full = await api.get("/backends")
        services.pieces = 0
        empty = await api.get("/backends")

        assert ["llama", "piper"] == [backend["Name"] for backend in full.json()]
        assert [] == empty.json()

    async def test_bytes(self, api: httpx.AsyncClient) -> None:
        """`HttpBody` passes through with its own media type, else with the method's."""
        live, ready = await api.get("/healthz"), await api.get("/readyz")

        assert (b"OK", "text/plain; charset=utf-8") == (
            live.content,
            live.headers["content-type"],
        )
        assert (b"OK", "text/plain") == (ready.content, ready.headers["content-type"])


class TestHeaders:
    async def test_from_the_method(self, api: httpx.AsyncClient, services: Services) -> None:
        """A method sets headers through its initial metadata, of which nothing else gets out."""
        services.headers = [("link", "</x>; rel=next"), ("x-next-page-token", "t")]

        headers = (await api.get("/v1/models")).headers

        assert ("</x>; rel=next", "t") == (headers["link"], headers["x-next-page-token"])
        assert "other" not in headers

    async def test_request_id(self, api: httpx.AsyncClient, services: Services) -> None:
        """A sane id of the client is kept and passed on; else one is made."""
        given = await api.get("/version", headers={"x-request-id": "my-id.1"})
        passed_on = services.metadata["x-request-id"]
        made = await api.get("/nowhere")
        replaced = await api.get("/nowhere", headers={"x-request-id": "a b" * 100})

        assert ("my-id.1", "my-id.1") == (given.headers["x-request-id"], passed_on)
        assert re.fullmatch("[0-9a-f]{12}-[0-9a-f]+", made.headers["x-request-id"])
        assert re.fullmatch("[0-9a-f]{12}-[0-9a-f]+", replaced.headers["x-request-id"])

    async def test_no_sniffing(self, api: httpx.AsyncClient) -> None:
        """Browsers are told to believe the media type."""
        assert "nosniff" == (await api.get("/version")).headers["x-content-type-options"]


class TestMetadata:
    async def test_of_the_request(self, api: httpx.AsyncClient, services: Services) -> None:
        """Methods are told what the client accepts and sends, and under which URL it came."""
        headers = {
            "accept": "text/html",
            "content-type": "application/json",
            "idempotency-key": "k",
            "last-event-id": "7",
            "x-http-accept": "forged",
        }

        await api.post("/models/reload", headers=headers)

        seen = {key: value for key, value in services.metadata.items() if "x-http" in key}
        assert {
            "x-http-accept": "text/html",
            "x-http-base-url": "http://127.0.0.1:8080",
            "x-http-content-type": "application/json",
            "x-http-idempotency-key": "k",
            "x-http-last-event-id": "7",
        } == seen

    async def test_public_url(
        self, client_for: Callable[[GatewaySettings], httpx.AsyncClient], services: Services
    ) -> None:
        """A configured URL is the one that methods are told."""
        settings = GatewaySettings(public_url="https://api.example/prefix/")
        async with client_for(settings) as client:
            await client.get("/version", headers={"x-forwarded-host": "evil.example"})

        assert "https://api.example/prefix" == services.metadata["x-http-base-url"]

    @pytest.mark.parametrize("value", ["é", "a\tb"])
    async def test_not_ascii(self, api: httpx.AsyncClient, services: Services, value: str) -> None:
        """What gRPC could not carry is left out, and the call goes on."""
        raw = value.encode()
        headers = {b"accept": raw, b"authorization": b"Bearer " + raw}

        response = await api.get("/version", headers=headers)

        assert 200 == response.status_code
        assert {"x-http-accept", "authorization"}.isdisjoint(services.metadata)


class TestDocs:
    async def test_document(self, api: httpx.AsyncClient) -> None:
        """Programs get the whole document."""
        document = (await api.get("/openapi.json")).json()

        assert ("3.0.3", True) == (document["openapi"], "/backend/monitor" in document["paths"])

    @pytest.mark.parametrize("path", ["/docs", "/docs/"])
    async def test_page(self, api: httpx.AsyncClient, path: str) -> None:
        """The page and all that it names are there, and nothing of it comes from elsewhere."""
        page = await api.get(path)

        links = re.findall(r'(?:src|href|data-document)="([^"]+)"', page.text)
        answers = [await api.get(str(page.url.join(link))) for link in links]
        assert [200] * 5 == [answer.status_code for answer in answers]
        assert "http" not in page.text.replace("text/html", "")
        assert "default-src 'self'" in page.headers["content-security-policy"]

    @pytest.mark.parametrize("name", ["nothing.js", "..%2F__init__.py", "index.html"])
    async def test_other_files(self, api: httpx.AsyncClient, name: str) -> None:
        """No other file gets out."""
        assert 404 == (await api.get(f"/docs/{name}")).status_code

    @pytest.mark.parametrize("path", ["/docs", "/docs/start.js", "/openapi.json"])
    async def test_closed(self, path: str) -> None:
        """The operator can close them."""
        async with client_of(app_for(GatewaySettings(docs_enabled=False))) as client:
            assert 404 == (await client.get(path)).status_code
