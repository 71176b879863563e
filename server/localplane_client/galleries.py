"""Methods of the GalleryService."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.struct_pb2 import Struct

from localplane.v1 import gallery_pb2, gallery_service_pb2, job_pb2
from localplane_client.methods import unary


class GalleryMethods:
    """Galleries, the models that they offer, and installing and deleting models."""

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

    @unary("GalleryService/ApplyModel", job_pb2.JobReference)
    def apply_model(
        self,
        id: str = "",  # noqa: A002 - LocalAI's name
        *,
        url: str = "",
        config_url: str = "",
        config_file: Mapping[str, Any] | None = None,
        name: str = "",
        overrides: Mapping[str, Any] | None = None,
        files: Iterable[gallery_pb2.GalleryFile] = (),
        variant: str = "",
        request_id: str = "",
    ) -> gallery_service_pb2.ApplyModelRequest:
        """Install a model, `gallery@name` or a name, and get the job that does it.

        Of the first four arguments one says what it is.
        """
        return gallery_service_pb2.ApplyModelRequest(
            id=id,
            url=url,
            config_url=config_url,
            config_file=_struct(config_file),
            name=name,
            overrides=_struct(overrides),
            files=files,
            variant=variant,
            request_id=request_id,
        )

    @unary("GalleryService/PlanModel", gallery_pb2.ModelPlan)
    def plan_model(
        self,
        id: str = "",  # noqa: A002 - LocalAI's name
        *,
        url: str = "",
        config_url: str = "",
        config_file: Mapping[str, Any] | None = None,
        name: str = "",
        overrides: Mapping[str, Any] | None = None,
        files: Iterable[gallery_pb2.GalleryFile] = (),
        variant: str = "",
    ) -> gallery_service_pb2.PlanModelRequest:
        """Find out what installing a model would come to, without fetching or changing anything.

        Of the first four arguments one says what it is.
        """
        return gallery_service_pb2.PlanModelRequest(
            id=id,
            url=url,
            config_url=config_url,
            config_file=_struct(config_file),
            name=name,
            overrides=_struct(overrides),
            files=files,
            variant=variant,
        )

    @unary("GalleryService/DeleteModel", job_pb2.JobReference)
    def delete_model(
        self, name: str, *, request_id: str = ""
    ) -> gallery_service_pb2.DeleteModelRequest:
        """Delete a model, and get the job that does it."""
        return gallery_service_pb2.DeleteModelRequest(name=name, request_id=request_id)


def _struct(values: Mapping[str, Any] | None) -> Struct | None:
    if values is None:
        return None
    struct = Struct()
    struct.update(dict(values))
    return struct
