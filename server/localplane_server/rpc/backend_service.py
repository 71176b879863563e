"""The gRPC face of backends."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from localplane.v1 import (
    backend_log_pb2,
    backend_pb2,
    backend_service_pb2,
    backend_service_pb2_grpc,
)
from localplane_server.errors import InvalidArgumentError
from localplane_server.models.catalog import ModelCatalog
from localplane_server.rpc.backend_status import report_to_proto
from localplane_server.rpc.convert import backend_to_proto, stops_to_proto
from localplane_server.rpc.http_facts import LAST_EVENT_ID, http_fact
from localplane_server.rpc.installed_backends import backend_problems, installed_to_proto
from localplane_server.rpc.log_records import log_record_to_proto, sequence_of
from localplane_server.rpc.pages import page
from localplane_server.rpc.watches import KINDS, place_of, selection
from localplane_server.scheduling.backend_feed import BackendFeed
from localplane_server.scheduling.backend_logs import BackendLogs
from localplane_server.scheduling.monitor import Monitor
from localplane_server.scheduling.scheduler import Scheduler
from localplane_server.supervision.programs import BackendPrograms

LONGEST_GRACE_SECONDS = 3600.0


class BackendServicer(backend_service_pb2_grpc.BackendServiceServicer):
    """Unpacks the request, calls the domain, packs the answer."""

    def __init__(
        self,
        scheduler: Scheduler,
        monitor: Monitor,
        programs: BackendPrograms,
        catalog: ModelCatalog,
        feed: BackendFeed,
        *,
        logs: BackendLogs,
        grace_seconds: float,
    ) -> None:
        self._scheduler = scheduler
        self._monitor = monitor
        self._programs = programs
        self._catalog = catalog
        self._feed = feed
        self._logs = logs
        self._grace_seconds = grace_seconds

    async def GetBackendStatus(
        self, request: backend_service_pb2.GetBackendStatusRequest, context: Any
    ) -> backend_pb2.BackendStatus:
        return report_to_proto(await self._monitor.report(request.model))

    async def ListBackends(
        self, request: backend_service_pb2.ListBackendsRequest, context: Any
    ) -> backend_service_pb2.ListBackendsResponse:
        shown, token = page(
            self._scheduler.snapshots(),
            lambda snapshot: snapshot.model,
            request.page_size,
            request.page_token,
        )
        return backend_service_pb2.ListBackendsResponse(
            backends=[backend_to_proto(one, self._monitor.last_sample(one)) for one in shown],
            next_page_token=token,
        )

    async def WatchBackends(
        self, request: backend_service_pb2.WatchBackendsRequest, context: Any
    ) -> AsyncGenerator[backend_service_pb2.WatchBackendsResponse]:
        select = selection(request.models, self._catalog)
        async with aclosing(self._feed.watch(place_of(request, context), select=select)) as batches:
            async for batch in batches:
                yield backend_service_pb2.WatchBackendsResponse(
                    revision=str(batch.revision),
                    kind=KINDS[batch.kind],
                    backends=[
                        backend_to_proto(one.snapshot, one.sample) for one in batch.changed.values()
                    ],
                    removed=batch.removed,
                )

    async def ListInstalledBackends(
        self, request: backend_service_pb2.ListInstalledBackendsRequest, context: Any
    ) -> backend_service_pb2.ListInstalledBackendsResponse:
        return backend_service_pb2.ListInstalledBackendsResponse(
            backends=[installed_to_proto(one) for one in self._programs.all()],
            problems=backend_problems(self._programs),
        )

    async def LoadModel(
        self, request: backend_service_pb2.LoadModelRequest, context: Any
    ) -> backend_service_pb2.LoadModelResponse:
        wait = request.wait if request.HasField("wait") else True
        name = await self._scheduler.load(request.model, wait=wait)
        if not wait:
            return backend_service_pb2.LoadModelResponse(message="model is loading")
        return backend_service_pb2.LoadModelResponse(loaded=[name], message="model loaded")

    async def ShutdownBackend(
        self, request: backend_service_pb2.ShutdownBackendRequest, context: Any
    ) -> backend_service_pb2.ShutdownBackendResponse:
        report = await self._scheduler.stop(
            request.model, force=request.force, grace_seconds=self._grace(request)
        )
        return backend_service_pb2.ShutdownBackendResponse(
            message="model stopped",
            seconds=report.seconds,
            freed_bytes=report.freed_bytes,
            cut_calls=report.cut_calls,
        )

    async def ShutdownAll(
        self, request: backend_service_pb2.ShutdownAllRequest, context: Any
    ) -> backend_service_pb2.ShutdownAllResponse:
        outcomes = await self._scheduler.stop_all(
            force=request.force, grace_seconds=self._grace(request)
        )
        return stops_to_proto(outcomes)

    async def TailBackendLog(
        self, request: backend_service_pb2.TailBackendLogRequest, context: Any
    ) -> AsyncGenerator[backend_log_pb2.BackendLogRecord]:
        after = request.after_sequence if request.HasField("after_sequence") else None
        lines = request.lines if request.HasField("lines") else None
        # A browser that connects again repeats the address, and says in the header how far it has come since.
        if (seen := sequence_of(http_fact(context, LAST_EVENT_ID))) is not None:
            after, lines = seen, None
        records = self._logs.tail(
            request.model, lines=lines, after_sequence=after, follow=request.follow
        )
        async with aclosing(records):
            async for record in records:
                yield log_record_to_proto(record)

    def _grace(
        self,
        request: backend_service_pb2.ShutdownBackendRequest
        | backend_service_pb2.ShutdownAllRequest,
    ) -> float:
        if not request.HasField("grace_seconds"):
            return self._grace_seconds
        if not 0 <= request.grace_seconds <= LONGEST_GRACE_SECONDS:
            message = f"grace_seconds must be between 0 and {LONGEST_GRACE_SECONDS:g}"
            raise InvalidArgumentError(message, field="grace_seconds")
        return request.grace_seconds
