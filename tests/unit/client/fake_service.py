"""A service of a few methods, on a socket file, that does what the model's name says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from localplane.v1 import (
    inference_pb2,
    inference_service_pb2,
    inference_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
)
from localplane_server.errors import DrainingError, LocalplaneError, ModelNotFoundError
from localplane_server.rpc.status import status_of

# To the type checker a servicer must have every method; here a few are enough.
ModelBase: Any = model_service_pb2_grpc.ModelServiceServicer
InferenceBase: Any = inference_service_pb2_grpc.InferenceServiceServicer

CLOSE_SECONDS = 1.0


class Models(ModelBase):  # type: ignore[misc]  # see above
    """Answers with the name that it was asked for."""

    def __init__(self) -> None:
        self.authorization: str | None = None
        self.remaining: float | None = None

    def GetModel(self, request: model_service_pb2.GetModelRequest, context: Any) -> model_pb2.Model:  # noqa: N802 - the proto's
        self.authorization = dict(context.invocation_metadata()).get("authorization")
        self.remaining = context.time_remaining()
        match request.name:
            case "missing":
                _abort(context, ModelNotFoundError("missing"))
            case "draining":
                _abort(context, DrainingError("on its way out", retry_after_seconds=2.5))
            case "slow":
                _wait_for_end(context)
        return model_pb2.Model(name=request.name)


class Inference(InferenceBase):  # type: ignore[misc]  # see above
    """Answers with the words of the last message, or without end."""

    def __init__(self) -> None:
        self.has_ended = threading.Event()
        self.request: inference_service_pb2.ChatRequest | None = None

    def ChatStream(  # noqa: N802 - the proto's
        self, request: inference_service_pb2.ChatRequest, context: Any
    ) -> Iterator[inference_service_pb2.ChatCompletionChunk]:
        self.request = request
        context.add_callback(self.has_ended.set)
        for word in request.messages[-1].content.string_value.split():
            delta = inference_pb2.ChatDelta(content=word)
            choice = inference_service_pb2.ChatChunkChoice(delta=delta)
            yield inference_service_pb2.ChatCompletionChunk(choices=[choice])
        if request.model == "endless":
            _wait_for_end(context)
        if request.model == "breaks":
            _abort(context, DrainingError("enough"))


@contextmanager
def service(folder: Path) -> Iterator[tuple[str, Models, Inference]]:
    """Run the service for as long as the context is open; give its target and its parts."""
    models, inference = Models(), Inference()
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, server)
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(inference, server)
    target = f"unix:{folder / 'socket'}"
    server.add_insecure_port(target)
    server.start()
    try:
        yield target, models, inference
    finally:
        server.stop(None).wait(CLOSE_SECONDS)


def _abort(context: Any, error: LocalplaneError) -> None:
    status = status_of(error)
    trailing = (*status.trailing_metadata, ("x-request-id", "r1"))
    context.set_trailing_metadata(trailing)
    context.abort(status.code, status.details)


def _wait_for_end(context: Any) -> None:
    ended = threading.Event()
    if context.add_callback(ended.set):
        ended.wait()
