"""Methods of the ModelService."""

from __future__ import annotations

from localplane.v1 import model_pb2, model_service_pb2
from localplane_client.methods import unary


class ModelMethods:
    """Listing and describing models."""

    @unary("ModelService/ListModels", model_service_pb2.ListModelsResponse)
    def list_models(
        self,
        *,
        filter: str = "",  # noqa: A002 - the field's name
        exclude_configured: bool = True,
        page_size: int = 0,
        page_token: str = "",
    ) -> model_service_pb2.ListModelsRequest:
        """List the models whose name matches a regular expression."""
        return model_service_pb2.ListModelsRequest(
            filter=filter,
            exclude_configured=exclude_configured,
            page_size=page_size,
            page_token=page_token,
        )

    @unary("ModelService/GetModel", model_pb2.Model)
    def get_model(self, name: str) -> model_service_pb2.GetModelRequest:
        """Get a model by its name, alias or file name."""
        return model_service_pb2.GetModelRequest(name=name)

    @unary("ModelService/ReloadModels", model_service_pb2.ReloadModelsResponse)
    def reload_models(self) -> model_service_pb2.ReloadModelsRequest:
        """Have the models folder read again."""
        return model_service_pb2.ReloadModelsRequest()
