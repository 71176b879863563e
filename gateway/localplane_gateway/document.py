"""The OpenAPI document that configures the gateway."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import yaml

Spec = dict[str, Any]

_NULL = {"type": "null"}


class Document:
    """The document, as it was generated from the protos.

    Args:
        raw: The document as read, references unresolved.
    """

    def __init__(self, raw: Spec) -> None:
        self.raw = raw
        self.json = orjson.dumps(raw)
        """What clients get of it."""
        self._schemas = _as_json_schemas(raw["components"]["schemas"])

    def operation(self, path: str, verb: str) -> Spec:
        """Get an operation, references unresolved."""
        operation: Spec = self.raw["paths"][path][verb]
        return operation

    def body_validator(self, operation: Spec) -> jsonschema_rs.Draft202012Validator | None:
        """Make the validator of an operation's JSON body; None when it takes none."""
        body = operation.get("requestBody")
        if body is None:
            return None
        schema = _as_json_schema(body["content"]["application/json"]["schema"])
        return jsonschema_rs.Draft202012Validator(
            {"allOf": [schema], "components": {"schemas": self._schemas}}
        )


def load_document() -> Document:
    """Read the document: the one inside an installed package, else the checkout's."""
    packaged = files("localplane_gateway") / "openapi.yaml"
    checkout = Path(__file__).resolve().parent.parent / "openapi.yaml"
    text = packaged.read_bytes() if packaged.is_file() else checkout.read_bytes()
    # The safe loader, in C.
    return Document(yaml.load(text, Loader=yaml.CSafeLoader))


def _as_json_schemas(schemas: Spec) -> Spec:
    return {name: _as_json_schema(schema) for name, schema in schemas.items()}


def _as_json_schema(schema: Any) -> Any:
    """Say in JSON Schema what a schema of OpenAPI 3.0 says.

    Numbers may be text besides, as in protobuf's JSON.
    """
    if not isinstance(schema, dict):  # `additionalProperties: true`
        return schema
    converted = {
        key: value for key, value in schema.items() if key not in ("description", "nullable")
    }
    for key in ("allOf", "anyOf", "oneOf"):
        if key in schema:
            converted[key] = [_as_json_schema(part) for part in schema[key]]
    for key in ("items", "additionalProperties"):
        if key in schema:
            converted[key] = _as_json_schema(schema[key])
    if "properties" in schema:
        converted["properties"] = _as_json_schemas(schema["properties"])
    kinds = [schema["type"]] if "type" in schema else []
    if kinds == ["integer"] and "enum" not in schema:
        kinds.append("string")
        converted["pattern"] = "^-?[0-9]+$"
    elif kinds == ["number"]:
        kinds.append("string")
    if schema.get("nullable"):
        if not kinds:
            # Unlike with anyOf, what is wrong inside is still reported where it is.
            return {"if": _NULL, "else": converted}
        kinds.append("null")
    if kinds:
        converted["type"] = kinds
    return converted
