"""Puts the gateway together: Connexion, with the layers of this package."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from starlette.types import ASGIApp

from localplane_gateway.access import AccessMiddleware, Authenticator
from localplane_gateway.bindings import bind, import_services
from localplane_gateway.channel import Channel
from localplane_gateway.connexion_parts import (
    API,
    ConnexionMiddleware,
    OpenAPISpecification,
    Resolver,
)
from localplane_gateway.docs import OWN
from localplane_gateway.document import Document, Spec, load_document
from localplane_gateway.edge import Edge, Observer
from localplane_gateway.origin import BrowserRule, HostRule
from localplane_gateway.routing import Routing
from localplane_gateway.settings import GatewaySettings
from localplane_gateway.transcoder import Transcoder
from localplane_gateway.validation import ValidationMiddleware


class GeneratedSpecification(OpenAPISpecification):  # type: ignore[misc] # Connexion has no types
    """A document that is known to be one, because it is generated and its tests validate it."""

    @classmethod
    def _validate_spec(cls, spec: Spec) -> None:
        """Do nothing: Connexion takes a tenth of a second for it at each start."""


class GatewayApp(ConnexionMiddleware):  # type: ignore[misc] # Connexion has no types
    """Connexion with its layers made at once instead of by the first request."""

    def make_layers(self, served: Spec, /, **parts: object) -> None:
        """Make the layers, and with them one callable per operation.

        Args:
            served: What is served of the document.
            parts: What the layers take besides.
        """
        specification = GeneratedSpecification(served)
        self.apis.append(API(specification, base_path=None, **self.options.__dict__, **parts))
        self.app, self.middleware_stack = self._build_middleware_stack()


def build_app(
    channel: Channel,
    settings: GatewaySettings,
    authenticator: Authenticator | None = None,
    observer: Observer | None = None,
    on_start: Callable[[], None] | None = None,
) -> ASGIApp:
    """Build the gateway as an ASGI application.

    Args:
        channel: Where the methods are called: a channel of `grpc.aio`, or one like it.
        settings: What the gateway is told.
        authenticator: Checks keys before a body is read. Without one, keys are passed on and the
            methods decide.
        observer: Is told of every finished request.
        on_start: Is told that a request began, before anything else is done for it.
    """
    # It would log a line for everything that a client gets wrong.
    logging.getLogger("connexion").setLevel(logging.ERROR)
    import_services()
    document = load_document()
    browsers = BrowserRule(settings)
    edge = partial(
        Edge,
        hosts=HostRule(settings),
        browsers=browsers,
        observer=observer,
        on_start=on_start,
    )
    app = GatewayApp(
        Transcoder(_nothing),
        middlewares=[
            edge,
            partial(Routing, browsers=browsers),
            AccessMiddleware,
            ValidationMiddleware,
        ],
        # Operations are called by their methods' descriptors; there are no functions to find.
        resolver=Resolver(lambda _: _nothing),
    )
    app.make_layers(
        _served(document, settings),
        authenticator=authenticator,
        bindings=_bindings(document),
        browsers=browsers,
        channel=channel,
        document=document,
        settings=settings,
    )
    return app


def _bindings(document: Document) -> dict[str, object]:
    return {
        operation["operationId"]: bind(verb, operation)
        for item in document.raw["paths"].values()
        for verb, operation in item.items()
        if "x-localplane-method" in operation
    }


def _served(document: Document, settings: GatewaySettings) -> Spec:
    """Get what is served of the document."""
    if settings.docs_enabled:
        return document.raw
    paths = {
        path: item
        for path, item in document.raw["paths"].items()
        if not item.get("get", {}).get("operationId", "").startswith(OWN)
    }
    return document.raw | {"paths": paths}


async def _nothing(*_: object) -> None:
    """Stand where Connexion wants an application, and is never called."""
    raise AssertionError
