"""What a server is asked for, read from the protocol's `PredictOptions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localplane.localai import backend_pb2
from localplane_backends import bodies
from localplane_backends.bodies import Kind
from localplane_backends.openai.dialect import Dialect
from localplane_backends.openai.registration import Registration

ROUTES: Mapping[Kind, str] = {"chat": "/chat/completions", "completion": "/completions"}


def read(
    request: backend_pb2.PredictOptions,
    *,
    model: str,
    registration: Registration,
    dialect: Dialect,
    stream: bool,
) -> tuple[Kind, dict[str, Any]]:
    """Return what to ask the server for.

    Args:
        request: The call.
        model: The model, as the server knows it.
        registration: What else to add, and what not to.
        dialect: What the server understands beyond OpenAI's API.
        stream: Whether the answer is to come piece by piece.

    Raises:
        BodyError: If the call makes no sense, or asks for what the server does not do.
    """
    kind, body = bodies.read(request)
    for name, value in body.items():
        if isinstance(value, float):
            # They come with 32 bits; more digits would only look exact.
            body[name] = float(f"{value:.7g}")
    if dialect is Dialect.LLAMA and kind == "completion":
        bodies.use_schema(body)
    if dialect is Dialect.VLLM and "repeat_penalty" in body:
        body["repetition_penalty"] = body.pop("repeat_penalty")
    body["model"] = model
    if dialect is Dialect.LLAMA:
        body["timings_per_token"] = True
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
        if dialect is Dialect.VLLM:
            body["stream_options"]["continuous_usage_stats"] = True
    return kind, adapted(body, registration)


def adapted(body: dict[str, Any], registration: Registration) -> dict[str, Any]:
    """Return a body with the names and the additions that the operator has set."""
    names = registration.parameters
    answer = {
        name: value for old, value in body.items() if (name := names.get(old, old)) is not None
    }
    return answer | dict(registration.body)
