"""Keys: how they are given, and what is refused without one."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc
import httpx
import pytest
from grpc.aio import Metadata

from gateway.fake_services import Services, failure
from gateway.gateways import CURRENT, SMALL_LIMIT, client_of, error_of
from localplane_gateway.app import build_app
from localplane_gateway.bindings import Access
from localplane_gateway.settings import GatewaySettings


class Seen:
    """What observers and authenticators were told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, int]] = []
        self.checks: list[tuple[str | None, str]] = []
        self.starts = 0

    def __call__(
        self, *, method: str, route: str, status: int, seconds: float, request_id: str
    ) -> None:
        assert seconds > 0
        assert request_id
        self.requests.append((method, route, status))

    def start(self) -> None:
        self.starts += 1

    async def check(self, credentials: str | None, access: Access) -> None:
        self.checks.append((credentials, access))
        keys = {"user-key": "user", "admin-key": "admin"}
        code = grpc.StatusCode.UNAUTHENTICATED
        status = failure(code, "UNAUTHENTICATED", "An authentication key is required")
        if (role := keys.get(credentials or "")) is not None:
            if access in ("user", role):
                return
            code = grpc.StatusCode.PERMISSION_DENIED
            status = failure(code, "FORBIDDEN")
        details = ("grpc-status-details-bin", status.SerializeToString())
        raise grpc.aio.AioRpcError(code, Metadata(), Metadata(details), status.message)


SEEN = Seen()
APP = build_app(
    CURRENT,
    GatewaySettings(max_body_bytes=SMALL_LIMIT),
    SEEN,
    SEEN,
    SEEN.start,
)


@pytest.fixture
def seen() -> Seen:
    """What the application's authenticator and observer were told in this test."""
    SEEN.requests.clear()
    SEEN.checks.clear()
    SEEN.starts = 0
    return SEEN


@pytest.fixture
async def locked(seen: Seen, services: Services) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a gateway that asks for keys."""
    assert services.request is None
    assert not seen.checks
    async with client_of(APP) as client:
        yield client


class TestCredentials:
    @pytest.mark.parametrize(
        "headers",
        [
            {"authorization": "Bearer admin-key"},
            {"authorization": "bearer  admin-key "},
            {"authorization": "admin-key"},
            {"x-api-key": "admin-key"},
            {"xi-api-key": "admin-key"},
            {"cookie": "a=b; token=admin-key; c=d"},
            {"cookie": 'token="admin-key"'},
            {"authorization": "Basic YTpi", "x-api-key": "admin-key"},
            {"authorization": "Bearer admin-key", "x-api-key": "other"},
        ],
    )
    async def test_ways_to_give_a_key(
        self, locked: httpx.AsyncClient, services: Services, headers: dict[str, str]
    ) -> None:
        """Each usual way is understood, and methods see one of them."""
        response = await locked.get("/backend/monitor?model=m", headers=headers)

        assert (200, "Bearer admin-key") == (
            response.status_code,
            services.metadata["authorization"],
        )

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"authorization": "Basic YTpi"},
            {"authorization": "Bearer"},
            {b"x-api-key": b"caf\xc3\xa9"},
            {"cookie": "token="},
        ],
    )
    async def test_none(
        self, locked: httpx.AsyncClient, seen: Seen, headers: dict[str, str]
    ) -> None:
        """Anything else is no key."""
        response = await locked.get("/version", headers=headers)

        assert (401, [(None, "user")]) == (response.status_code, seen.checks)


class TestRefusals:
    @pytest.mark.parametrize(
        ("method", "path", "content"),
        [
            ("GET", "/version", b""),
            ("POST", "/backend/load", b"{"),
            ("POST", "/backend/load", b" " * (SMALL_LIMIT + 1)),
            ("POST", "/v1/chat/completions", b"{}"),
        ],
    )
    async def test_before_the_body(
        self, locked: httpx.AsyncClient, services: Services, method: str, path: str, content: bytes
    ) -> None:
        """Without a key nobody learns what is wrong with a body, and no method is called."""
        response = await locked.request(method, path, content=content)

        error = error_of(response)
        assert (401, "UNAUTHENTICATED") == (error["code"], error["reason"])
        assert "Bearer" == response.headers["www-authenticate"]
        assert services.request is None

    async def test_role(self, locked: httpx.AsyncClient) -> None:
        """A user's key does not open what is an administrator's."""
        headers = {"x-api-key": "user-key"}

        used = await locked.get("/version", headers=headers)
        refused = await locked.get("/system", headers=headers)

        assert (200, 403, "FORBIDDEN") == (
            used.status_code,
            refused.status_code,
            error_of(refused)["reason"],
        )

    @pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/openapi.json"])
    async def test_public(self, locked: httpx.AsyncClient, seen: Seen, path: str) -> None:
        """What is public asks for none."""
        assert (200, []) == ((await locked.get(path)).status_code, seen.checks)

    async def test_unknown_paths(self, locked: httpx.AsyncClient) -> None:
        """What is not there is not there, and a wrong verb is wrong, with or without a key."""
        assert (404, 405, 204) == (
            (await locked.get("/nowhere")).status_code,
            (await locked.delete("/version")).status_code,
            (await locked.options("/version")).status_code,
        )

    async def test_cross_site_first(self, locked: httpx.AsyncClient, seen: Seen) -> None:
        """A foreign page cannot try keys."""
        headers = {"origin": "https://evil.example", "authorization": "Bearer guess"}

        response = await locked.get("/version", headers=headers)

        assert ("CROSS_SITE", []) == (error_of(response)["reason"], seen.checks)


class TestObserver:
    async def test_every_request(
        self, locked: httpx.AsyncClient, seen: Seen, services: Services
    ) -> None:
        """The observer is told of each request once, by the route of the document; before, of its start."""
        headers = {"x-api-key": "admin-key"}
        await locked.get("/api/models/a%2Fb", headers=headers)
        await locked.get("/api/models/a%2Fb")
        await locked.get("/nowhere")
        await locked.get("/version", headers={"host": "evil.example"})
        services.failure = failure(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_LOADED")
        await locked.post("/backend/shutdown", json={"model": "m"}, headers=headers)

        assert [
            ("GET", "/api/models/{name}", 200),
            ("GET", "/api/models/{name}", 401),
            ("GET", "", 404),
            ("GET", "", 421),
            ("POST", "/backend/shutdown", 500),
        ] == seen.requests
        assert 5 == seen.starts
