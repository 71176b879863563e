"""What the engine is asked for, read from the protocol's `PredictOptions`."""

from __future__ import annotations

from typing import Any

from localplane.localai import backend_pb2
from localplane_backends import bodies
from localplane_backends.bodies import Kind


def read(request: backend_pb2.PredictOptions) -> tuple[Kind, dict[str, Any]]:
    """Return what to ask the engine for; see `bodies.read`.

    Raises:
        BodyError: If the engine cannot be asked for it.
    """
    kind, body = bodies.read(request)
    # Makes the engine report between the batches of a prompt, which is where it can be cancelled.
    body["return_progress"] = True
    # Every piece then says how many tokens there are so far: more than there are pieces, as a token
    # may end inside a character.
    body["timings_per_token"] = True
    if kind == "completion":
        bodies.use_schema(body)
    elif isinstance(body.get("tool_choice"), dict):
        # The engine cannot be told which function to call, and would call any or none. So it must
        # call one, and sees no other.
        name = bodies.function_name(body["tool_choice"])
        body["tools"] = [tool for tool in body["tools"] if bodies.function_name(tool) == name]
        body["tool_choice"] = "required"
    return kind, body
