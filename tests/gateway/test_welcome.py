"""`/` through the gateway: a page for browsers, JSON for programs."""

from __future__ import annotations

import httpx

from gateway.fake_services import Services

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def test_json(api: httpx.AsyncClient, services: Services) -> None:
    """Plain clients get JSON with exactly what the summary has; what is unset is left out."""
    services.summary.base_url = "http://127.0.0.1:8080/"
    services.summary.models.SetInParent()
    response = await api.get("/")

    assert "application/json" == response.headers["content-type"]
    assert {
        "Title": "Localplane v0.1.0",
        "Version": "v0.1.0",
        "BaseURL": "http://127.0.0.1:8080/",
        "Models": [],
    } == response.json()
    assert "content-security-policy" not in response.headers


async def test_page(api: httpx.AsyncClient) -> None:
    """Browsers get a page that no cache keeps and nobody frames."""
    response = await api.get("/", headers=BROWSER)

    assert 200 == response.status_code
    assert "text/html; charset=utf-8" == response.headers["content-type"]
    assert response.text.startswith("<!doctype html>")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "DENY" == response.headers["x-frame-options"]


async def test_either_form_says_what_it_depends_on(api: httpx.AsyncClient) -> None:
    """A cache must not give one form to who asks for the other, nor one caller's to another."""
    for headers in ({}, BROWSER):
        response = await api.get("/", headers=headers)
        assert {"Accept", "Content-Type"} <= set(response.headers["vary"].split(", "))
        assert "no-store" == response.headers["cache-control"]


async def test_head(api: httpx.AsyncClient) -> None:
    """HEAD has the page's headers without the page."""
    response = await api.head("/", headers=BROWSER)

    assert (200, b"") == (response.status_code, response.content)
    assert int(response.headers["content-length"]) > 0


async def test_what_the_method_is_told(api: httpx.AsyncClient, services: Services) -> None:
    """It hears what the client accepts, and where the client sees the service."""
    await api.get("/", headers={**BROWSER, "authorization": "Bearer key"})

    assert BROWSER["accept"] == services.metadata["x-http-accept"]
    assert "http://127.0.0.1:8080" == services.metadata["x-http-base-url"]
    assert "Bearer key" == services.metadata["authorization"]


async def test_foreign_page(api: httpx.AsyncClient) -> None:
    """A page of another site may lead its reader here, but is not let in by its script's rules."""
    response = await api.get("/", headers={**BROWSER, "sec-fetch-site": "cross-site"})

    assert 200 == response.status_code
    assert "access-control-allow-origin" not in response.headers
