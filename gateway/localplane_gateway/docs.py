"""The document for programs, and the page that shows it to people, from local files only."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from starlette.types import ASGIApp, Receive, Scope, Send
from swagger_ui_bundle import swagger_ui_path

from localplane_gateway.document import Document
from localplane_gateway.errors import RouteNotFoundError
from localplane_gateway.exchange import Exchange
from localplane_gateway.pages import PAGE_HEADERS

OWN = "Gateway."
"""What the ids of the gateway's own operations begin with."""

_MEDIA_TYPES = {
    "favicon-32x32.png": b"image/png",
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    "swagger-ui.css": b"text/css; charset=utf-8",
}
_START = "start.js"
_CACHED = [(b"cache-control", b"public, max-age=3600")]

# Paths are relative, so that the page also works behind a proxy that puts something in front.
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Localplane API</title>
<link rel="icon" href="{assets}favicon-32x32.png">
<link rel="stylesheet" href="{assets}swagger-ui.css">
</head>
<body>
<div id="swagger-ui" data-document="{document}"></div>
<script src="{assets}swagger-ui-bundle.js"></script>
<script src="{assets}start.js"></script>
</body>
</html>
"""
_SCRIPT = b"""\
SwaggerUIBundle({
  url: document.getElementById("swagger-ui").dataset.document,
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""


def own_operation(operation_id: str, document: Document) -> ASGIApp:
    """Make the callable of an operation that the gateway answers itself."""
    makers: dict[str, Callable[[Document], ASGIApp]] = {
        "Gateway.GetDocument": _document_operation,
        "Gateway.GetDocs": lambda _: _answer_page,
        "Gateway.GetDocsAsset": lambda _: _answer_asset,
    }
    return makers[operation_id](document)


def _document_operation(document: Document) -> ASGIApp:
    async def answer(scope: Scope, _receive: Receive, _send: Send) -> None:
        await Exchange.of(scope).respond(200, document.json)

    return answer


async def _answer_page(scope: Scope, _receive: Receive, _send: Send) -> None:
    exchange = Exchange.of(scope)
    is_folder = exchange.raw_path.endswith(b"/")
    page = _PAGE.format(
        assets="" if is_folder else "docs/",
        document="../openapi.json" if is_folder else "openapi.json",
    )
    content_type = b"text/html; charset=utf-8"
    await exchange.respond(200, page.encode(), content_type, headers=PAGE_HEADERS)


async def _answer_asset(scope: Scope, _receive: Receive, _send: Send) -> None:
    exchange = Exchange.of(scope)
    name = exchange.path_values["file"]
    if name == _START:
        content_type = b"text/javascript; charset=utf-8"
        await exchange.respond(200, _SCRIPT, content_type, headers=_CACHED)
        return
    if name not in _MEDIA_TYPES:
        raise RouteNotFoundError(f"/docs/{name}")
    await exchange.respond(200, _asset(name), _MEDIA_TYPES[name], headers=_CACHED)


@cache
def _asset(name: str) -> bytes:
    content: bytes = (swagger_ui_path / name).read_bytes()
    return content
