"""What is asked to be installed, from protobuf."""

from __future__ import annotations

from localplane.v1 import gallery_service_pb2
from localplane_server.gallery.entry import GalleryFile
from localplane_server.gallery.installs.request import InstallRequest
from localplane_server.rpc.convert import plain


def install_request(
    request: gallery_service_pb2.ApplyModelRequest | gallery_service_pb2.PlanModelRequest,
) -> InstallRequest:
    """Return what a message asks to be installed.

    Raises:
        InvalidArgumentError: If nothing says what to install, or a field cannot be used.
    """
    return InstallRequest(
        id=request.id,
        url=request.url,
        config_url=request.config_url,
        name=request.name,
        overrides=plain(request.overrides),
        files=tuple(
            GalleryFile(filename=one.filename, uri=one.uri, sha256=one.sha256)
            for one in request.files
        ),
        config_file=plain(request.config_file) if request.HasField("config_file") else None,
        variant=request.variant,
    )
