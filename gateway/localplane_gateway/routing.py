"""Which operation a request is for.

Takes the place of Connexion's routing, which tries one pattern after the other on the decoded path:
here a literal path is one look-up, and a path with parameters a walk over its segments. Segments
are split before they are decoded, so that `%2F` in a name does not end it.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from localplane_gateway.connexion_parts import (
    ROUTING_CONTEXT,
    AbstractOperation,
    AbstractRoutingAPI,
    SpecMiddleware,
)
from localplane_gateway.errors import (
    InvalidRequestError,
    MethodNotAllowedError,
    RouteNotFoundError,
)
from localplane_gateway.exchange import Exchange
from localplane_gateway.origin import BrowserRule


class Route:
    """A path of the document and its operations."""

    __slots__ = ("allow", "extensions", "names", "template")

    def __init__(self, template: str) -> None:
        self.template = template
        self.names = [part[1:-1] for part in template.split("/") if part.startswith("{")]
        """Names of the parameters, in their order."""
        self.extensions: dict[str, dict[str, Any]] = {}
        """What the layers behind look up to find the operation, by verb."""
        self.allow = ""
        """Verbs that the path knows, for the header."""

    def add(self, verb: str, operation_id: str) -> None:
        """Add the operation of a verb."""
        context = {"api_base_path": "", "operation_id": operation_id}
        for name in ("GET", "HEAD") if verb == "get" else (verb.upper(),):
            self.extensions[name] = {ROUTING_CONTEXT: context}
        self.allow = ", ".join(sorted({*self.extensions, "OPTIONS"}))


class _Node:
    __slots__ = ("literals", "parameter", "route")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.route: Route | None = None

    def child(self, part: str) -> _Node:
        if not part.startswith("{"):
            return self.literals.setdefault(part, _Node())
        if self.parameter is None:
            self.parameter = _Node()
        return self.parameter


class Routes:
    """The paths of a document."""

    def __init__(self) -> None:
        self._root = _Node()
        self._literal: dict[bytes, Route] = {}

    def add(self, template: str, verb: str, operation_id: str) -> None:
        """Add an operation."""
        node = self._root
        for part in template.split("/")[1:]:
            node = node.child(part)
        if node.route is None:
            node.route = Route(template)
        node.route.add(verb, operation_id)
        if not node.route.names:
            self._literal[template.encode()] = node.route

    def find(self, raw_path: bytes) -> tuple[Route, list[str]]:
        """Find the route of a path, and the values of its parameters in their order.

        Raises:
            RouteNotFoundError: If there is none.
            InvalidRequestError: If the path is not UTF-8.
        """
        if route := self._literal.get(raw_path):
            return route, []
        parts = [_decoded(part) for part in raw_path.decode("latin-1").split("/")[1:]]
        while len(parts) > 1 and not parts[-1]:
            parts.pop()
        values: list[str] = []
        found = _walk(self._root, parts, 0, values)
        if found is None:
            raise RouteNotFoundError("/" + "/".join(parts))
        return found, values


class Routing(SpecMiddleware):  # type: ignore[misc] # Connexion has no types
    """Finds the operation of a request, and answers OPTIONS.

    Args:
        app: The next layer.
        browsers: The rule for pages.
    """

    def __init__(self, app: ASGIApp, *, browsers: BrowserRule) -> None:
        self._app = app
        self._browsers = browsers
        self._routes = Routes()

    def add_api(self, specification: Any, **kwargs: Any) -> None:
        """Take the operations of a document."""
        _RoutingApi(specification, routes=self._routes, **kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its operation."""
        exchange = Exchange.of(scope)
        route, values = self._routes.find(exchange.raw_path)
        exchange.route = route.template
        extensions = route.extensions.get(exchange.method)
        if extensions is None:
            if exchange.method == "OPTIONS":
                await self._answer_options(exchange, route.allow.encode())
                return
            raise MethodNotAllowedError(exchange.method, route.allow)
        if values:
            exchange.path_values = dict(zip(route.names, values, strict=True))
        scope["extensions"] = {**scope.get("extensions", {}), **extensions}
        await self._app(scope, receive, send)

    async def _answer_options(self, exchange: Exchange, allow: bytes) -> None:
        headers = [(b"allow", allow), *self._browsers.preflight_headers(exchange, allow)]
        await exchange.respond_empty(204, headers=headers)


class _RoutingApi(AbstractRoutingAPI):  # type: ignore[misc] # Connexion has no types
    """Lets Connexion read the document and collects what it finds."""

    def __init__(self, specification: Any, *, routes: Routes, **kwargs: Any) -> None:
        self._routes = routes
        super().__init__(specification, **kwargs)

    def make_operation(self, operation: AbstractOperation) -> str:
        operation_id: str = operation.operation_id
        return operation_id

    @staticmethod
    def _framework_path_and_name(operation: AbstractOperation, path: str) -> tuple[str, str]:
        return path, operation.operation_id

    def _add_operation_internal(
        self, method: str, path: str, operation: str, name: str | None = None
    ) -> None:
        self._routes.add(path, method, operation)


def _walk(node: _Node, parts: list[str], at: int, values: list[str]) -> Route | None:
    """Follow a path; a literal segment comes before a parameter."""
    if at == len(parts):
        return node.route
    part = parts[at]
    if (literal := node.literals.get(part)) and (found := _walk(literal, parts, at + 1, values)):
        return found
    if part and node.parameter is not None:
        values.append(part)
        if found := _walk(node.parameter, parts, at + 1, values):
            return found
        values.pop()
    return None


def _decoded(part: str) -> str:
    if "%" not in part:
        return part
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        message = "cannot read the path: it is not UTF-8"
        raise InvalidRequestError(message) from None
