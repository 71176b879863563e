"""Layers that do something of their own for each operation of the document."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from localplane_gateway.connexion_parts import ROUTING_CONTEXT, RoutedMiddleware


class OperationLayer(RoutedMiddleware):  # type: ignore[misc] # Connexion has no types
    """Connexion's kind of layer for one document, in which finding the operation is one look-up."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app)
        self._operations: dict[str, ASGIApp] = {}

    def add_api(self, specification: Any, **kwargs: Any) -> Any:
        """Make the layer's callables for the operations of the document."""
        api = super().add_api(specification, **kwargs)
        self._operations = dict(api.operations)
        return api

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Hand a request to the callable of its operation."""
        operation_id = scope["extensions"][ROUTING_CONTEXT]["operation_id"]
        return self._operations[operation_id](scope, receive, send)
