"""The OpenAPI document as a whole."""

from __future__ import annotations

from typing import Any

import yaml

from openapi.descriptors import Descriptors, GeneratorError
from openapi.operations import methods_with_routes, routes
from openapi.own_routes import OWN_PATHS
from openapi.schemas import Schema, Schemas

_HEADER = "# Made by `make gen` from proto/. Changes belong there.\n"

_INFO: Schema = {
    "title": "Localplane",
    "version": "v1",
    "license": {"name": "Apache-2.0"},
    "description": (
        "The management plane for local AI backends. The canonical interface is gRPC; this one is "
        "made from the same protos.\n\n"
        "A field of a request that is a single value, or a list of them, may be given as query "
        "parameter too, where the body leaves it out. Fields that are not known are ignored, and "
        "null is the same as leaving a field out."
    ),
}

_SECURITY_SCHEMES: Schema = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x_api_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "xi_api_key": {"type": "apiKey", "in": "header", "name": "xi-api-key"},
    "token": {"type": "apiKey", "in": "cookie", "name": "token"},
}

_ERROR: Schema = {
    "type": "object",
    "description": "What every failure looks like.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "type", "reason", "metadata"],
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "message": {"type": "string", "description": "For people."},
                "type": {"type": "string", "description": "Always empty."},
                "reason": {"type": "string", "description": "Stable, for programs."},
                "metadata": {
                    "type": "object",
                    "description": "What varies in the message, by name.",
                    "additionalProperties": {"type": "string"},
                },
            },
        }
    },
}

_RESPONSES = {
    "BadRequest": "The request is wrong: `INVALID_ARGUMENT` and its like.",
    "Unauthenticated": "A key is needed: `UNAUTHENTICATED`.",
    "Forbidden": "The key does not suffice, or a foreign page asks: `FORBIDDEN`, `CROSS_SITE`.",
    "BodyTooLarge": "The body is over the limit: `BODY_TOO_LARGE`.",
    "UnsupportedMediaType": "The body is not JSON: `UNSUPPORTED_MEDIA_TYPE`.",
    "Error": "Any other failure.",
}


def render(descriptors: Descriptors, files: list[str]) -> str:
    """Write the document of the services in the files."""
    text = yaml.dump(
        _document(descriptors, files),
        Dumper=_Dumper,
        sort_keys=False,
        width=120,
        allow_unicode=True,
    )
    return _HEADER + text


def _document(descriptors: Descriptors, files: list[str]) -> Schema:
    methods = list(methods_with_routes(descriptors, files))
    schemas = Schemas(
        descriptors,
        requests=[method.proto.input_type.lstrip(".") for method in methods],
        responses=[
            answer.output_type.lstrip(".") for method in methods for answer in method.answers
        ],
    )
    paths: dict[str, Schema] = {path: dict(item) for path, item in OWN_PATHS.items()}
    for method in methods:
        for path, verb, operation in routes(method, descriptors, schemas):
            if verb in paths.setdefault(path, {}):
                message = f"cannot route {verb} {path} twice"
                raise GeneratorError(message)
            paths[path][verb] = operation
    names = {method.service_name: method.service.name for method in methods}
    return {
        "openapi": "3.0.3",
        "info": _INFO,
        "security": [{name: []} for name in _SECURITY_SCHEMES],
        "tags": [
            {"name": name, "description": descriptors.comment(full_name)}
            for full_name, name in sorted(names.items())
        ],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": _SECURITY_SCHEMES,
            "responses": {
                name: {
                    "description": text,
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}
                    },
                }
                for name, text in _RESPONSES.items()
            },
            "schemas": dict(sorted((schemas.components | {"Error": _ERROR}).items())),
        },
    }


class _Dumper(yaml.SafeDumper):
    """Writes long texts as blocks, and everything where it stands instead of as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
