"""What web pages can and cannot do."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from gateway.fake_services import Services
from gateway.gateways import app_for, client_of, error_of
from localplane_gateway.settings import GatewaySettings

ClientFor = Callable[[GatewaySettings], httpx.AsyncClient]

ALLOWING = GatewaySettings(
    allowed_hosts=frozenset({"models.lan"}),
    allowed_origins=frozenset({"https://app.example"}),
    public_url="https://api.example:8443/prefix",
)


class TestHosts:
    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1:8080",
            "127.0.0.1",
            "localhost:1",
            "LOCALHOST",
            "localhost.",
            "[::1]:8080",
            "models.lan:99",
            "Models.LAN",
            "api.example",
        ],
    )
    async def test_known(self, client_for: ClientFor, host: str) -> None:
        """Loopback's names, allowed names and the public name are known, with any port."""
        async with client_for(ALLOWING) as client:
            assert 200 == (await client.get("/version", headers={"host": host})).status_code

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "localhost.evil.example",
            "evil.example:127.0.0.1",
            "evil.example@localhost",
            "127.0.0.2",
            "[::2]:8080",
            "",
        ],
    )
    @pytest.mark.parametrize("path", ["/version", "/healthz", "/nowhere", "/docs"])
    async def test_unknown(self, host: str, path: str, services: Services) -> None:
        """No other name gets anything at all: it may be a stranger's that was made to lead here."""
        async with client_of(app_for(ALLOWING)) as client:
            response = await client.get(path, headers={"host": host})

        error = error_of(response)
        assert (421, "MISDIRECTED_REQUEST") == (error["code"], error["reason"])
        assert services.request is None

    async def test_own_address(self, services: Services) -> None:
        """The address that a connection reached is known without being allowed."""
        assert services.request is None
        transport = httpx.ASGITransport(app_for(ALLOWING))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://10.1.2.3:8080"
        ) as client:
            assert 200 == (await client.get("/version")).status_code


class TestPages:
    @pytest.mark.parametrize(
        "headers",
        [
            {"sec-fetch-site": "cross-site"},
            {"origin": "https://evil.example"},
            {"origin": "https://evil.example", "sec-fetch-site": "same-site"},
            {"origin": "null"},
            {"origin": "http://127.0.0.1:9999"},
            {"origin": "http://127.0.0.1:8080.evil.example"},
            {"origin": "file://127.0.0.1:8080"},
        ],
    )
    @pytest.mark.parametrize(
        ("method", "path"),
        [("POST", "/backend/load"), ("GET", "/version"), ("POST", "/v1/chat/completions")],
    )
    async def test_foreign(
        self,
        client_for: ClientFor,
        services: Services,
        headers: dict[str, str],
        method: str,
        path: str,
    ) -> None:
        """A page of another site gets nothing done, whatever form it gives its body."""
        form = {"content-type": "application/x-www-form-urlencoded"}
        async with client_for(ALLOWING) as client:
            response = await client.request(
                method, path, headers=headers | form, content=b'{"model": "m"}'
            )

        error = error_of(response)
        assert (403, "CROSS_SITE") == (error["code"], error["reason"])
        assert services.request is None
        assert "access-control-allow-origin" not in response.headers

    @pytest.mark.parametrize("path", ["/healthz", "/docs", "/openapi.json"])
    async def test_public_reads(self, client_for: ClientFor, path: str) -> None:
        """What is public may be loaded from anywhere, though not read by scripts."""
        headers = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
        async with client_for(ALLOWING) as client:
            response = await client.get(path, headers=headers)

        assert 200 == response.status_code
        assert "access-control-allow-origin" not in response.headers

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8080"},
            {"sec-fetch-site": "none"},
            {"origin": "https://127.0.0.1:8080"},
            {"origin": "https://api.example:8443"},
            {"origin": "https://app.example", "sec-fetch-site": "cross-site"},
        ],
    )
    async def test_own(self, client_for: ClientFor, headers: dict[str, str]) -> None:
        """Programs, the service's own pages and allowed pages get through."""
        async with client_for(ALLOWING) as client:
            response = await client.post("/backend/load", headers=headers, json={"model": "m"})

        assert 200 == response.status_code


class TestCors:
    async def test_allowed_page(self, client_for: ClientFor) -> None:
        """A page of an allowed origin may read answers, errors included."""
        headers = {"origin": "https://app.example"}
        async with client_for(ALLOWING) as client:
            good = await client.get("/version", headers=headers)
            bad = await client.get("/nowhere", headers=headers)

        assert ["https://app.example"] * 2 == [
            response.headers["access-control-allow-origin"] for response in (good, bad)
        ]
        assert "Origin" == good.headers["vary"]

    async def test_preflight(self, client_for: ClientFor) -> None:
        """Its browser is told what it may send."""
        headers = {"origin": "https://app.example", "access-control-request-method": "POST"}
        async with client_for(ALLOWING) as client:
            response = await client.options("/backend/load", headers=headers)

        assert (204, "OPTIONS, POST") == (
            response.status_code,
            response.headers["access-control-allow-methods"],
        )
        assert "authorization" in response.headers["access-control-allow-headers"]

    async def test_foreign_preflight(self, client_for: ClientFor) -> None:
        """Another page's browser is told nothing, so it sends nothing."""
        headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        async with client_for(ALLOWING) as client:
            response = await client.options("/backend/load", headers=headers)

        assert 204 == response.status_code
        assert not [name for name in response.headers if name.startswith("access-control")]
