"""The outermost layer: what holds for every request, whatever becomes of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from localplane_gateway.errors import (
    ClientGoneError,
    GatewayError,
    InternalError,
    StoppingError,
)
from localplane_gateway.exchange import Exchange
from localplane_gateway.origin import BrowserRule, HostRule

logger = logging.getLogger(__name__)

_CLIENT_GONE = 499


class Observer(Protocol):
    """Is told of every finished request."""

    def __call__(
        self, *, method: str, route: str, status: int, seconds: float, request_id: str
    ) -> None:
        """Take note of a request.

        Args:
            method: The verb.
            route: Path of the operation, such as `/api/models/{name}`; empty when there is none.
            status: HTTP status; of a stream that failed after it began, the status of its error.
            seconds: How long it took.
            request_id: Its identifier, as the answer names it.
        """


class Edge:
    """Checks the host, turns errors into answers, and tells the observer.

    Args:
        app: The next layer.
        hosts: The rule for hosts.
        browsers: The rule for pages, which also says who may read answers.
        observer: Who is told of finished requests.
        on_start: Who is told that a request began.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: HostRule,
        browsers: BrowserRule,
        observer: Observer | None,
        on_start: Callable[[], None] | None,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._browsers = browsers
        self._observer = observer
        self._on_start = on_start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            message = f"the gateway has no use for {scope['type']}"
            raise NotImplementedError(message)
        began = time.perf_counter()
        exchange = Exchange(scope, receive, send)
        if self._on_start is not None:
            self._on_start()
        try:
            if self._browsers.allows_others:
                exchange.add_headers(self._browsers.answer_headers(exchange))
            self._hosts.check(exchange)
            await self._app(scope, receive, send)
        except GatewayError as error:
            await exchange.fail(error)
        except ClientGoneError:
            exchange.outcome = _CLIENT_GONE
        except asyncio.CancelledError:  # the server ends
            if not exchange.started:
                await exchange.fail(StoppingError())
            raise
        except Exception:
            if exchange.started:
                exchange.outcome = InternalError().status
                raise  # there is no other way to tell the client than to break off
            logger.exception("request failed", extra={"route": exchange.route})
            await exchange.fail(InternalError())
        finally:
            exchange.leave()
            if self._observer is not None:
                self._observer(
                    method=exchange.method,
                    route=exchange.route,
                    status=exchange.outcome,
                    seconds=time.perf_counter() - began,
                    request_id=exchange.request_id.decode(),
                )
