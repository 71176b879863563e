"""The gRPC face of galleries."""

from __future__ import annotations

from typing import Any

from localplane.v1 import gallery_pb2, gallery_service_pb2, gallery_service_pb2_grpc
from localplane_server.gallery.galleries import Galleries
from localplane_server.gallery.source import SourceState
from localplane_server.gallery_setting import GallerySetting
from localplane_server.rpc.available_models import AvailableModels, is_known, next_link
from localplane_server.rpc.http_facts import BASE_URL, HEADER, IF_NONE_MATCH, http_fact


class GalleryServicer(gallery_service_pb2_grpc.GalleryServiceServicer):
    """Unpacks the request, calls the domain, packs the answer."""

    def __init__(self, galleries: Galleries, available: AvailableModels) -> None:
        self._galleries = galleries
        self._available = available

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
        if token := response.next_page_token:
            link = next_link(request, token, http_fact(context, BASE_URL))
            headers += [(f"{HEADER}x-next-page-token", token), (f"{HEADER}link", link)]
        await context.send_initial_metadata(tuple(headers))
        if is_known(tag, http_fact(context, IF_NONE_MATCH)):
            return gallery_service_pb2.ListAvailableModelsResponse()
        return response

    def _list(self) -> gallery_service_pb2.ListGalleriesResponse:
        return gallery_service_pb2.ListGalleriesResponse(
            galleries=[_gallery_to_proto(state) for state in self._galleries.states()]
        )


def _gallery_to_proto(state: SourceState) -> gallery_pb2.Gallery:
    index = state.index
    gallery = gallery_pb2.Gallery(
        url=state.setting.url,
        name=state.setting.name,
        mirrors=state.setting.mirrors,
        models=None if index is None else len(index.entries),
        source=state.source or None,
        error=state.error or None,
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
