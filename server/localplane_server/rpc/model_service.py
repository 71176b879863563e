"""The gRPC face of models."""

from __future__ import annotations

from typing import Any

import re2

from localplane.v1 import model_pb2, model_service_pb2, model_service_pb2_grpc
from localplane_server.errors import InvalidArgumentError
from localplane_server.models.catalog import ModelCatalog
from localplane_server.rpc.convert import model_to_proto
from localplane_server.rpc.installed_backends import backend_problems
from localplane_server.rpc.pages import page
from localplane_server.scheduling.scheduler import Scheduler
from localplane_server.supervision.programs import BackendPrograms


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Unpacks the request, calls the domain, packs the answer."""

    def __init__(
        self, catalog: ModelCatalog, scheduler: Scheduler, programs: BackendPrograms
    ) -> None:
        self._catalog = catalog
        self._scheduler = scheduler
        self._programs = programs

    async def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: Any
    ) -> model_service_pb2.ListModelsResponse:
        exclude = request.exclude_configured if request.HasField("exclude_configured") else True
        configured = [("0" + model.name, model.name) for model in self._catalog.configured()]
        loose = [
            ("1" + model.name, model.name)
            for model in self._catalog.loose(exclude_configured=exclude)
        ]
        matches = _matcher(request.filter)
        shown, token = page(
            [entry for entry in configured + loose if matches(entry[1])],
            lambda entry: entry[0],
            request.page_size,
            request.page_token,
        )
        return model_service_pb2.ListModelsResponse(
            object="list",
            data=[model_pb2.ModelEntry(id=name, object="model") for _, name in shown],
            next_page_token=token or None,
        )

    async def GetModel(
        self, request: model_service_pb2.GetModelRequest, context: Any
    ) -> model_pb2.Model:
        model = self._catalog.get(request.name)
        return model_to_proto(model, self._catalog.size(model), self._scheduler.state(model.name))

    async def ReloadModels(
        self, request: model_service_pb2.ReloadModelsRequest, context: Any
    ) -> model_service_pb2.ReloadModelsResponse:
        self._catalog.reload()
        self._programs.reload()
        return model_service_pb2.ReloadModelsResponse(
            message="models reloaded",
            models=len(self._catalog.configured()) + len(self._catalog.loose()),
            problems=[
                model_pb2.ModelProblem(file=problem.file, message=problem.message)
                for problem in self._catalog.problems
            ],
            backend_problems=backend_problems(self._programs),
        )


def _matcher(expression: str) -> Any:
    """Return what tells whether a name matches. RE2 takes linear time whatever the expression."""
    if not expression:
        return str
    try:
        options = re2.Options()
        options.log_errors = False
        return re2.compile(expression, options).search
    except re2.error as error:
        message = f"filter is not a regular expression: {error}"
        raise InvalidArgumentError(message, field="filter") from error
