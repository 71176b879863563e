"""The health and reflection services of the gRPC project."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from localplane_server import events
from localplane_server.errors import LocalplaneError
from localplane_server.models.catalog import ModelCatalog
from localplane_server.scheduling.scheduler import Scheduler
from localplane_server.scheduling.snapshots import BackendState
from localplane_server.watching.signal import Signal

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

BACKEND_PREFIX = "backend/"
"""What stands before the name of a model whose backend is asked for."""
MOST_WATCHERS = 256
"""Watchers of health. They need no key, so somebody could come with any number of them."""
LOOK_SECONDS = 2.0
"""How often a watcher looks whether a model has come or gone, which nobody tells."""

_LOADED = (BackendState.READY, BackendState.BUSY)


class HealthReporter(health_pb2_grpc.HealthServicer):
    """Tells `grpc.health.v1` whether the service is ready, as a whole and by the name of each service, and which
    backends serve: `backend/<model>`, by any name of the model.

    The library's own servicer lets one watcher that does not read hold up all others, and whoever sets a status.
    """  # noqa: D205 - one sentence

    def __init__(
        self,
        services: Iterable[str],
        scheduler: Scheduler,
        catalog: ModelCatalog,
        bus: events.Events,
    ) -> None:
        self._services = frozenset(("", *services))
        self._scheduler = scheduler
        self._catalog = catalog
        self._is_ready = False
        self._is_closed = False
        self._watchers = 0
        self._changed = Signal()
        bus.listen(events.BackendChanged, self._backend_changed)

    def set_ready(self, *, is_ready: bool) -> None:
        """Tell all who watch whether the service is ready."""
        self._is_ready = is_ready
        self._changed.set()

    def close(self) -> None:
        """Tell all who watch that nothing serves any more, and end their calls."""
        self._is_closed = True
        self._changed.set()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self, server)

    async def Check(  # noqa: N802 - the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """Answer with the status of a name."""
        status = self._status(request.service)
        if status is SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802 - the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse]:
        """Yield the status of a name, and each other one that it gets."""
        if self._watchers >= MOST_WATCHERS:
            message = f"cannot watch: there are {self._watchers} watchers, which is the most"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        # What nobody tells: a model's configuration was written or deleted.
        seconds = LOOK_SECONDS if request.service.startswith(BACKEND_PREFIX) else None
        told = None
        self._watchers += 1
        try:
            while True:
                status = self._status(request.service)
                if status != told:
                    told = status
                    yield health_pb2.HealthCheckResponse(status=status)
                    continue  # the reader may have taken its time
                if self._is_closed:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._changed.wait()
        finally:
            self._watchers -= 1

    def _status(self, name: str) -> Any:  # its type is one of the stubs alone
        if name in self._services:
            return SERVING if self._is_ready and not self._is_closed else NOT_SERVING
        if not name.startswith(BACKEND_PREFIX):
            return SERVICE_UNKNOWN
        model = name.removeprefix(BACKEND_PREFIX)
        state = self._scheduler.state(model)
        if state is BackendState.STOPPED:
            try:
                state = self._scheduler.state(self._catalog.get(model).name)
            except LocalplaneError:  # there is no such model, or the name cannot be one
                return SERVICE_UNKNOWN
        return SERVING if state in _LOADED and not self._is_closed else NOT_SERVING

    def _backend_changed(self, event: events.BackendChanged) -> None:
        if not event.calls_only:
            self._changed.set()


class ReflectedPool:
    """The pool of descriptors as reflection asks it: methods are symbols too, which the pool itself does not find."""

    def __init__(self) -> None:
        self._pool: Any = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802 - protobuf's name
        """Return the file that declares a symbol.

        Raises:
            KeyError: If none does.
        """
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file


def add_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Add reflection to a server, so that tools find out what it has.

    grpcio-reflection has version v1alpha. Version v1 has the same messages under another name, and tools ask for it
    first, so the same servicer is added under both.
    """
    names = (*services, "grpc.reflection.v1alpha.ServerReflection")
    servicer: Any = reflection.aio.ReflectionServicer(names, pool=ReflectedPool())
    add: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
    add(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    v1 = grpc.method_handlers_generic_handler(
        "grpc.reflection.v1.ServerReflection", {"ServerReflectionInfo": handler}
    )
    server.add_generic_rpc_handlers((v1,))
