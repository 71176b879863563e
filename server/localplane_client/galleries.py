"""Methods of the GalleryService."""

from __future__ import annotations

from collections.abc import Sequence

from localplane.v1 import gallery_service_pb2
from localplane_client.methods import unary


class GalleryMethods:
    """Galleries, and the models that can be installed from them."""

    @unary("GalleryService/ListGalleries", gallery_service_pb2.ListGalleriesResponse)
    def list_galleries(self) -> gallery_service_pb2.ListGalleriesRequest:
        """List the galleries, with what is wrong with each."""
        return gallery_service_pb2.ListGalleriesRequest()

    @unary("GalleryService/AddGallery", gallery_service_pb2.ListGalleriesResponse)
    def add_gallery(
        self, name: str, url: str, *, mirrors: Sequence[str] = ()
    ) -> gallery_service_pb2.AddGalleryRequest:
        """Add a gallery for good, and get the list."""
        return gallery_service_pb2.AddGalleryRequest(name=name, url=url, mirrors=mirrors)

    @unary("GalleryService/RemoveGallery", gallery_service_pb2.ListGalleriesResponse)
    def remove_gallery(self, name: str) -> gallery_service_pb2.RemoveGalleryRequest:
        """Remove a gallery for good, and get the list."""
        return gallery_service_pb2.RemoveGalleryRequest(name=name)

    @unary("GalleryService/ListAvailableModels", gallery_service_pb2.ListAvailableModelsResponse)
    def list_available_models(
        self,
        *,
        term: str = "",
        tag: str = "",
        backend: str = "",
        installed: bool | None = None,
        view: gallery_service_pb2.GalleryModelView.ValueType = (
            gallery_service_pb2.GALLERY_MODEL_VIEW_UNSPECIFIED
        ),
        page_size: int = 0,
        page_token: str = "",
    ) -> gallery_service_pb2.ListAvailableModelsRequest:
        """List the models that can be installed, as far as they have all that is asked for."""
        return gallery_service_pb2.ListAvailableModelsRequest(
            term=term,
            tag=tag,
            backend=backend,
            installed=installed,
            view=view,
            page_size=page_size,
            page_token=page_token,
        )
