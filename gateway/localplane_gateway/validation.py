"""Bodies: read within the limit, parsed once, and checked against the document."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from localplane_gateway.bindings import Binding
from localplane_gateway.connexion_parts import AbstractOperation, RoutedAPI
from localplane_gateway.document import Document
from localplane_gateway.errors import InvalidRequestError, UnsupportedMediaTypeError
from localplane_gateway.exchange import Exchange
from localplane_gateway.layers import OperationLayer
from localplane_gateway.limits import read_body
from localplane_gateway.settings import GatewaySettings

# curl says the last one of whatever `-d` sends. A page of another site can send it too, without
# being asked; but such a request does not come this far unless the operation is a public read.
_JSON_TYPES = frozenset({"", "application/json", "text/json", "application/x-www-form-urlencoded"})


class ValidationOperation:
    """Reads and checks the body of one operation."""

    def __init__(
        self,
        app: ASGIApp,
        validator: jsonschema_rs.Draft202012Validator,
        binding: Binding,
        max_body_bytes: int,
    ) -> None:
        self._app = app
        self._validator = validator
        self._binding = binding
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body as JSON object."""
        exchange = Exchange.of(scope)
        content = await read_body(exchange.headers, receive, self._max_body_bytes)
        exchange.body = _parse(content, exchange.headers.get(b"content-type", b""))
        if not self._validator.is_valid(exchange.body):
            raise self._complaint(exchange.body)
        await self._app(scope, receive, send)

    def _complaint(self, body: dict[str, Any]) -> InvalidRequestError:
        """Put the first thing that is wrong into words. Its value may be large: it is left out."""
        try:
            error = next(self._validator.iter_errors(body))
        except ValueError:  # it repeats the value, but not one of any depth
            message = "cannot read the body: it is nested too deeply"
            return InvalidRequestError(message)
        kind = error.kind.as_dict()
        path = list(error.instance_path)
        if error.kind.name == "required":
            path.append(kind["property"])
            field = _written(path)
            message = f"{field} is required"
        elif error.kind.name == "type":
            field = _written(path)
            expected = " or ".join(name for name in kind["types"] if name != "null")
            message = f"cannot read {field}: it must be of type {expected}"
        else:
            field = _written(path)
            message = f"cannot read {field}: it has a wrong type or form"
        reason = self._binding.reasons.get(str(path[0]), "") if path else ""
        return InvalidRequestError(message, field=field, reason=reason)


class ValidationApi(RoutedAPI):  # type: ignore[misc] # Connexion has no types
    """Makes the checks of a document's operations."""

    def __init__(
        self,
        *args: Any,
        bindings: dict[str, Binding],
        document: Document,
        settings: GatewaySettings,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._bindings = bindings
        self._document = document
        self._settings = settings
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> ASGIApp:
        """Make the check of one operation; one that takes no body needs none."""
        next_app: ASGIApp = self.next_app
        binding = self._bindings.get(operation.operation_id)
        spec = self._document.operation(operation.path, operation.method)
        validator = self._document.body_validator(spec)
        if binding is None or validator is None:
            return next_app
        limit = self._settings.max_body_bytes
        return ValidationOperation(next_app, validator, binding, limit)


class ValidationMiddleware(OperationLayer):
    """Takes the place of Connexion's validation, which makes its validators anew every time."""

    api_cls = ValidationApi


def _parse(content: bytes, content_type: bytes) -> dict[str, Any]:
    if not content:
        return {}
    media_type = content_type.decode("latin-1").partition(";")[0].strip().lower()
    if media_type not in _JSON_TYPES and not media_type.endswith("+json"):
        raise UnsupportedMediaTypeError(media_type)
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        message = f"cannot parse the body as JSON: {error}"
        raise InvalidRequestError(message) from error
    if body is None:
        return {}
    if not isinstance(body, dict):
        message = "cannot read the body: it must be a JSON object"
        raise InvalidRequestError(message)
    return body


def _written(path: list[str | int]) -> str:
    """Write a path as a client would: `messages[0].role`."""
    parts = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(parts).lstrip(".")
