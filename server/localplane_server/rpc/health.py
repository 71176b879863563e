"""The health and reflection services of the gRPC project."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthReporter:
    """Tells `grpc.health.v1` about the readiness of the service, as a whole and for each service name."""

    def __init__(self, services: Iterable[str]) -> None:
        self.servicer = health.aio.HealthServicer()
        self._names = ("", *services)

    async def set_ready(self, *, is_ready: bool) -> None:
        """Tell it, and all who watch it."""
        status = SERVING if is_ready else NOT_SERVING
        for name in self._names:
            await self.servicer.set(name, status)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self.servicer, server)


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
