"""What all backend programs answer alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import grpc

from localplane.localai import backend_pb2, backend_pb2_grpc

Request = backend_pb2.PredictOptions | backend_pb2.DetokenizeRequest | backend_pb2.MetricsRequest
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

RETRY_AFTER = "x-retry-after"
"""Trailing metadata of errors: seconds after which the call may come again."""
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

    async def broken(self) -> None:
        """Return when the backend cannot go on; the program then ends with code 1. Most never do."""
        await asyncio.Event().wait()

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

    async def refuse(
        self,
        context: Context,
        code: grpc.StatusCode,
        message: str,
        *,
        retry_seconds: float | None = None,
    ) -> NoReturn:
        """End the call with an error that names this backend.

        Args:
            context: Of the call.
            code: What kind of error it is.
            message: What is wrong.
            retry_seconds: When the call may come again, if the backend itself is well and only what it needs is not.
        """
        if len(message) > LONGEST_MESSAGE:
            message = f"{message[:LONGEST_MESSAGE]}..."
        again = () if retry_seconds is None else ((RETRY_AFTER, f"{retry_seconds:g}"),)
        await context.abort(code, f"{self.name}: {message}", again)
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
