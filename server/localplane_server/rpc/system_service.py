"""The gRPC face of the service itself."""

from __future__ import annotations

from typing import Any

from google.api import httpbody_pb2

from localplane.v1 import resources_pb2, summary_pb2, system_service_pb2, system_service_pb2_grpc
from localplane_server import __version__
from localplane_server.readiness import Readiness
from localplane_server.resources.inventory import Inventory
from localplane_server.rpc.convert import resources_to_proto
from localplane_server.rpc.summary import Summaries
from localplane_server.scheduling.scheduler import Scheduler
from localplane_server.scheduling.snapshots import BackendState
from localplane_server.supervision.programs import BackendPrograms

OK = httpbody_pb2.HttpBody(content_type="text/plain; charset=utf-8", data=b"OK")

_LOADED = (BackendState.READY, BackendState.BUSY)


class SystemServicer(system_service_pb2_grpc.SystemServiceServicer):
    """Unpacks the request, calls the domain, packs the answer."""

    def __init__(
        self,
        scheduler: Scheduler,
        programs: BackendPrograms,
        readiness: Readiness,
        inventory: Inventory,
        summaries: Summaries,
    ) -> None:
        self._scheduler = scheduler
        self._programs = programs
        self._readiness = readiness
        self._inventory = inventory
        self._summaries = summaries

    async def GetSystem(
        self, request: system_service_pb2.GetSystemRequest, context: Any
    ) -> system_service_pb2.GetSystemResponse:
        return system_service_pb2.GetSystemResponse(
            backends=self._programs.names(),
            loaded_models=[
                system_service_pb2.LoadedModel(id=one.model, backend=one.backend)
                for one in self._scheduler.snapshots()
                if one.state in _LOADED
            ],
        )

    async def GetVersion(
        self, request: system_service_pb2.GetVersionRequest, context: Any
    ) -> system_service_pb2.GetVersionResponse:
        return system_service_pb2.GetVersionResponse(version=f"v{__version__}")

    async def GetSummary(
        self, request: system_service_pb2.GetSummaryRequest, context: Any
    ) -> summary_pb2.Summary:
        return await self._summaries.summary(context.invocation_metadata() or ())

    async def GetResources(
        self, request: system_service_pb2.GetResourcesRequest, context: Any
    ) -> resources_pb2.Resources:
        return resources_to_proto(await self._inventory.read())

    async def Live(
        self, request: system_service_pb2.LiveRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        return OK

    async def Ready(
        self, request: system_service_pb2.ReadyRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        self._readiness.check()
        return OK
