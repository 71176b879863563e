"""Who may call an operation: the rule for pages, then the key."""

from __future__ import annotations

from typing import Any, Protocol

import grpc
from starlette.types import ASGIApp, Receive, Scope, Send

from localplane_gateway.bindings import Access, Binding
from localplane_gateway.connexion_parts import AbstractOperation, RoutedAPI
from localplane_gateway.errors import RpcError
from localplane_gateway.exchange import Exchange
from localplane_gateway.layers import OperationLayer
from localplane_gateway.origin import BrowserRule
from localplane_gateway.settings import GatewaySettings


class Authenticator(Protocol):
    """Knows the keys."""

    async def check(self, credentials: str | None, access: Access) -> None:
        """Check a key.

        Args:
            credentials: The key that was given, if one was.
            access: What it must open.

        Raises:
            grpc.aio.AioRpcError: If it does not; as a method would, with the code and the reason.
        """


class AccessOperation:
    """Lets a request through to one operation, or refuses it."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access | None,
        browsers: BrowserRule,
        authenticator: Authenticator | None,
    ) -> None:
        self._app = app
        self._access = access
        self._browsers = browsers
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request and pass it on."""
        exchange = Exchange.of(scope)
        self._browsers.check(exchange, is_public=self._access is None)
        if self._access is not None and self._authenticator is not None:
            try:
                await self._authenticator.check(exchange.credentials, self._access)
            except grpc.aio.AioRpcError as error:
                raise RpcError(error, {}) from error
        await self._app(scope, receive, send)


class AccessApi(RoutedAPI):  # type: ignore[misc] # Connexion has no types
    """Makes the checks of a document's operations."""

    def __init__(
        self,
        *args: Any,
        bindings: dict[str, Binding],
        browsers: BrowserRule,
        authenticator: Authenticator | None,
        settings: GatewaySettings,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._bindings = bindings
        self._browsers = browsers
        self._authenticator = authenticator
        self._public_methods = settings.public_methods
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> AccessOperation:
        """Make the check of one operation. The gateway's own, without a method, are public."""
        binding = self._bindings.get(operation.operation_id)
        access = binding.access if binding else None
        if binding and binding.call.path in self._public_methods:
            access = None
        return AccessOperation(self.next_app, access, self._browsers, self._authenticator)


class AccessMiddleware(OperationLayer):
    """Takes the place of Connexion's security, which parses every header anew for every scheme."""

    api_cls = AccessApi
