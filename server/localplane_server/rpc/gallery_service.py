"""The gRPC face of galleries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from localplane.v1 import (
    gallery_pb2,
    gallery_service_pb2,
    gallery_service_pb2_grpc,
    job_pb2,
)
from localplane_server.gallery.galleries import Galleries
from localplane_server.gallery.installs.plan import Planner
from localplane_server.gallery.installs.request import target
from localplane_server.gallery.installs.works import DELETE, INSTALL, deletion
from localplane_server.gallery.source import SourceState
from localplane_server.gallery_setting import GallerySetting
from localplane_server.jobs.job import Job
from localplane_server.jobs.jobs import Jobs
from localplane_server.models.names import check_name
from localplane_server.rpc.available_models import AvailableModels, is_known, query_of
from localplane_server.rpc.base_url import base_url
from localplane_server.rpc.http_facts import (
    BASE_URL,
    HEADER,
    IDEMPOTENCY_KEY,
    IF_NONE_MATCH,
    http_fact,
)
from localplane_server.rpc.install_requests import install_request
from localplane_server.rpc.model_plans import plan_to_proto
from localplane_server.rpc.pages import next_page_headers


class GalleryServicer(gallery_service_pb2_grpc.GalleryServiceServicer):
    """Unpacks the request, calls the domain, packs the answer."""

    def __init__(
        self,
        galleries: Galleries,
        available: AvailableModels,
        jobs: Jobs,
        planner: Planner,
        *,
        look: Callable[[str], object],
        public_url: str | None,
    ) -> None:
        """Set up.

        Args:
            galleries: The galleries.
            available: What is in them.
            jobs: Install and delete.
            planner: Tells what an installation would come to.
            look: Refuses a URL from which nothing may be fetched, as far as the URL itself tells.
            public_url: Where the service is reached, if not where a request says.
        """
        self._galleries = galleries
        self._available = available
        self._jobs = jobs
        self._planner = planner
        self._look = look
        self._public_url = public_url

    async def ListGalleries(
        self, request: gallery_service_pb2.ListGalleriesRequest, context: Any
    ) -> gallery_service_pb2.ListGalleriesResponse:
        return self._list()

    async def AddGallery(
        self, request: gallery_service_pb2.AddGalleryRequest, context: Any
    ) -> gallery_service_pb2.ListGalleriesResponse:
        setting = GallerySetting(request.name, request.url, tuple(request.mirrors))
        await self._galleries.add(setting)
        return self._list()

    async def RemoveGallery(
        self, request: gallery_service_pb2.RemoveGalleryRequest, context: Any
    ) -> gallery_service_pb2.ListGalleriesResponse:
        await self._galleries.remove(request.name)
        return self._list()

    async def ListAvailableModels(
        self, request: gallery_service_pb2.ListAvailableModelsRequest, context: Any
    ) -> gallery_service_pb2.ListAvailableModelsResponse:
        tag, response = await self._available.list(request)
        headers = [(f"{HEADER}etag", tag)]
        headers += next_page_headers(
            context, "models/available", response.next_page_token, **query_of(request)
        )
        await context.send_initial_metadata(tuple(headers))
        if is_known(tag, http_fact(context, IF_NONE_MATCH)):
            return gallery_service_pb2.ListAvailableModelsResponse()
        return response

    async def ApplyModel(
        self, request: gallery_service_pb2.ApplyModelRequest, context: Any
    ) -> job_pb2.JobReference:
        wanted = install_request(request)
        for uri in wanted.sources:
            self._look(uri)
        # So that one model is one job, however it is called.
        await self._galleries.look(wanted.id)
        job = await self._jobs.submit(
            INSTALL, wanted.target, wanted.to_json(), request_id=_request_id(request, context)
        )
        return self._reference(job, context)

    async def PlanModel(
        self, request: gallery_service_pb2.PlanModelRequest, context: Any
    ) -> gallery_pb2.ModelPlan:
        return plan_to_proto(await self._planner.plan(install_request(request)))

    async def DeleteModel(
        self, request: gallery_service_pb2.DeleteModelRequest, context: Any
    ) -> job_pb2.JobReference:
        name = check_name(request.name)
        job = await self._jobs.submit(
            DELETE,
            target(name),
            deletion(name),
            request_id=_request_id(request, context),
        )
        return self._reference(job, context)

    def _reference(self, job: Job, context: Any) -> job_pb2.JobReference:
        base = base_url(self._public_url, http_fact(context, BASE_URL)) or "/"
        return job_pb2.JobReference(uuid=job.id, status=f"{base}models/jobs/{job.id}")

    def _list(self) -> gallery_service_pb2.ListGalleriesResponse:
        return gallery_service_pb2.ListGalleriesResponse(
            galleries=[_gallery_to_proto(state) for state in self._galleries.states()]
        )


def _request_id(request: Any, context: Any) -> str:
    return request.request_id or http_fact(context, IDEMPOTENCY_KEY)


def _gallery_to_proto(state: SourceState) -> gallery_pb2.Gallery:
    index = state.index
    gallery = gallery_pb2.Gallery(
        url=state.setting.url,
        name=state.setting.name,
        mirrors=state.setting.mirrors,
        models=None if index is None else len(index.entries),
        source=state.source or None,
        error=state.error or None,
        reading=state.is_reading,
    )
    if state.read_at is not None:
        gallery.read_at.FromDatetime(state.read_at)
    if index is not None:
        gallery.problem_count = index.problem_count
        gallery.problems.extend(
            gallery_pb2.GalleryProblem(entry=one.entry, line=one.line, message=one.message)
            for one in index.problems
        )
    return gallery
