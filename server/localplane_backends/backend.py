"""What all backend programs answer alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import grpc

from localplane.localai import backend_pb2, backend_pb2_grpc

Request = backend_pb2.PredictOptions | backend_pb2.DetokenizeRequest | backend_pb2.MetricsRequest
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


LONGEST_MESSAGE = 1000
"""Characters of an error's message. It travels as a header, and a caller that gets more headers than
it takes learns nothing but that."""


class Backend(backend_pb2_grpc.BackendServicer):
    """A servicer of the backend protocol that serves one model, once `LoadModel` has loaded it.

    A subclass sets `name`, sets `loaded` when it has loaded a model, and overrides the methods that
    it offers; the others answer UNIMPLEMENTED.
    """

    name = "backend"
    """Begins the messages of errors."""
    loaded: backend_pb2.ModelOptions | None = None
    """What the loaded model was loaded with."""

    async def Health(
        self, request: backend_pb2.HealthMessage, context: Context
    ) -> backend_pb2.Reply:
        return backend_pb2.Reply(message=b"OK")

    async def require_loaded(self, request: Request, context: Context) -> None:
        """End the call unless a model is loaded and is the one that the caller means."""
        if self.loaded is None:
            await self.refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "model not loaded")
        if isinstance(request, backend_pb2.PredictOptions):
            meant, have = request.ModelIdentity, self.loaded.Model
            if meant and have and meant != have:
                # LocalAI's own text; its callers look for it.
                await context.abort(grpc.StatusCode.NOT_FOUND, "model identity mismatch")

    async def refuse(self, context: Context, code: grpc.StatusCode, message: str) -> NoReturn:
        """End the call with an error that names this backend."""
        if len(message) > LONGEST_MESSAGE:
            message = f"{message[:LONGEST_MESSAGE]}..."
        await context.abort(code, f"{self.name}: {message}")
        raise AssertionError  # abort() raises

    async def close(self) -> None:
        """Let go of whatever outlives a process. Called once, when the program ends."""


def _unimplemented(method: str) -> Callable[[Backend, Any, Context], Awaitable[NoReturn]]:
    async def refuse(self: Backend, _request: Any, context: Context) -> NoReturn:
        await self.refuse(context, grpc.StatusCode.UNIMPLEMENTED, f"{method} is not implemented")

    return refuse


# The generated methods raise, which grpc logs with a stack trace at every call.
for _method in backend_pb2.DESCRIPTOR.services_by_name["Backend"].methods:
    if _method.name not in vars(Backend):
        setattr(Backend, _method.name, _unimplemented(_method.name))
