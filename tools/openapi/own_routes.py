"""The routes that the gateway answers itself, without a method behind them."""

from __future__ import annotations

from openapi.schemas import Schema

_NOT_FOUND: Schema = {"$ref": "#/components/responses/Error"}


def _operation(name: str, summary: str, media_types: list[str], schema: Schema) -> Schema:
    return {
        "operationId": f"Gateway.{name}",
        "tags": ["Gateway"],
        "summary": summary,
        "responses": {
            "200": {
                "description": "The answer.",
                "content": {media_type: {"schema": schema} for media_type in media_types},
            },
            "default": _NOT_FOUND,
        },
        "security": [],
    }


_TEXT: Schema = {"type": "string"}
_FILE: Schema = {"type": "string", "format": "binary"}
_ASSET = _operation(
    "GetDocsAsset",
    "Gets a file that the page of this document needs",
    ["text/css", "text/javascript", "image/png"],
    _FILE,
)
_ASSET["parameters"] = [
    {"name": "file", "in": "path", "required": True, "description": "Its name.", "schema": _TEXT}
]

OWN_PATHS: dict[str, Schema] = {
    "/openapi.json": {
        "get": _operation(
            "GetDocument",
            "Gets this document",
            ["application/json"],
            {"type": "object", "additionalProperties": True},
        )
    },
    "/docs": {
        "get": _operation("GetDocs", "Gets a page that shows this document", ["text/html"], _TEXT)
    },
    "/docs/{file}": {"get": _ASSET},
}
