"""Every failure has one shape, and its status from one table."""

from __future__ import annotations

import logging

import grpc
import httpx
import pytest

from gateway.fake_services import Services, failure
from gateway.gateways import error_of
from localplane_gateway import http_status

Code = grpc.StatusCode


class TestTable:
    def test_every_code_has_a_status(self) -> None:
        """No code of gRPC is forgotten."""
        assert set(grpc.StatusCode) == set(http_status.BY_CODE)

    @pytest.mark.parametrize(
        ("code", "reason", "status"),
        [
            (Code.INVALID_ARGUMENT, "DIMENSION_MISMATCH", 400),
            (Code.UNAUTHENTICATED, "UNAUTHENTICATED", 401),
            (Code.PERMISSION_DENIED, "FORBIDDEN", 403),
            (Code.NOT_FOUND, "MODEL_NOT_FOUND", 404),
            (Code.NOT_FOUND, "MODEL_NOT_LOADED", 404),
            (Code.ALREADY_EXISTS, "ALREADY_EXISTS", 409),
            (Code.FAILED_PRECONDITION, "AUTOLOAD_DISABLED", 400),
            (Code.UNIMPLEMENTED, "NOT_SUPPORTED_BY_BACKEND", 501),
            (Code.FAILED_PRECONDITION, "EXTRA_NOT_INSTALLED", 501),
            (Code.RESOURCE_EXHAUSTED, "CAPACITY_EXHAUSTED", 503),
            (Code.RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS", 429),
            (Code.RESOURCE_EXHAUSTED, "INSUFFICIENT_STORAGE", 507),
            (Code.UNAVAILABLE, "DRAINING", 503),
            (Code.INTERNAL, "BACKEND_FAILED", 500),
            (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", 504),
            (Code.CANCELLED, "CANCELLED", 499),
        ],
    )
    async def test_reasons(
        self,
        api: httpx.AsyncClient,
        services: Services,
        code: grpc.StatusCode,
        reason: str,
        status: int,
    ) -> None:
        """A reason has the status that the API promises, and brings its message and metadata."""
        services.failure = failure(code, reason, "cannot do it with m", model="m")

        error = error_of(await api.post("/backend/load", json={"model": "m"}))

        assert {
            "code": status,
            "message": "cannot do it with m",
            "type": "",
            "reason": reason,
            "metadata": {"model": "m"},
        } == error


class TestMethods:
    @pytest.mark.parametrize(
        ("path", "status"),
        [("/backend/monitor", 500), ("/v1/backend/shutdown", 500), ("/backend/load", 404)],
    )
    async def test_own_status(
        self, api: httpx.AsyncClient, services: Services, path: str, status: int
    ) -> None:
        """A method may answer one reason with a status of its own, on each of its routes."""
        services.failure = failure(Code.NOT_FOUND, "MODEL_NOT_LOADED")

        assert status == error_of(await api.post(path, json={"model": "m"}))["code"]

    @pytest.mark.parametrize(("seconds", "header"), [(0.1, "1"), (1.2, "2"), (30, "30")])
    async def test_retry(
        self, api: httpx.AsyncClient, services: Services, seconds: float, header: str
    ) -> None:
        """`RetryInfo` becomes Retry-After in whole seconds, at least one."""
        services.failure = failure(Code.UNAVAILABLE, "DRAINING", retry_seconds=seconds)

        response = await api.get("/version")

        assert (503, "DRAINING", header) == (
            response.status_code,
            error_of(response)["reason"],
            response.headers["retry-after"],
        )

    async def test_unauthenticated(self, api: httpx.AsyncClient, services: Services) -> None:
        """401 says how to authenticate, also when it is the method that refuses."""
        services.failure = failure(Code.UNAUTHENTICATED, "UNAUTHENTICATED")

        response = await api.get("/version")

        assert (401, "Bearer") == (response.status_code, response.headers["www-authenticate"])


class TestWithoutReason:
    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            (Code.UNKNOWN, (500, "INTERNAL", "internal error")),
            (Code.INTERNAL, (500, "INTERNAL", "internal error")),
            (Code.DATA_LOSS, (500, "INTERNAL", "internal error")),
            (Code.UNAVAILABLE, (503, "UNAVAILABLE", "the service cannot be reached")),
            (
                Code.RESOURCE_EXHAUSTED,
                (413, "BODY_TOO_LARGE", "the body is larger than the service takes"),
            ),
        ],
    )
    async def test_of_the_library(
        self,
        api: httpx.AsyncClient,
        services: Services,
        code: grpc.StatusCode,
        expected: tuple[int, str, str],
    ) -> None:
        """What the gRPC library answers has the code's status, and does not show insides."""
        services.bare_failure = (code, "secret insides")

        error = error_of(await api.get("/version"))

        assert expected == (error["code"], error["reason"], error["message"])

    async def test_exception(
        self,
        api: httpx.AsyncClient,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A bug of ours is logged with its trace; the client learns only that there was one."""

        def broken(*_: object) -> None:
            message = "secret insides"
            raise ValueError(message)

        monkeypatch.setattr("localplane_gateway.transcoder._metadata", broken)
        with caplog.at_level(logging.ERROR):
            response = await api.get("/version")

        assert (500, "INTERNAL", "internal error") == (
            response.status_code,
            error_of(response)["reason"],
            error_of(response)["message"],
        )
        assert "secret insides" in caplog.text
