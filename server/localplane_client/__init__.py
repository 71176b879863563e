"""The client of a Localplane service: `Client` blocks, `AsyncClient` awaits, both have the same methods.

::

    from localplane_client import Client

    with Client.from_environment() as client:
        client.load_model("smollm2")
        with client.chat_stream("Say hello.", model="smollm2") as pieces:
            for piece in pieces:
                print(text_of(piece), end="", flush=True)

A method has the name of its RPC, takes the fields of its request and returns the message that the RPC answers.
"""

from __future__ import annotations

from localplane_client.client import AsyncClient, Client
from localplane_client.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    LocalplaneError,
    NotFoundError,
    NotReachableError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from localplane_client.inference import text_of
from localplane_client.target import DEFAULT_TARGET, InvalidTargetError

__all__ = [
    "DEFAULT_TARGET",
    "AsyncClient",
    "Client",
    "DeadlineExceededError",
    "InvalidArgumentError",
    "InvalidTargetError",
    "LocalplaneError",
    "NotFoundError",
    "NotReachableError",
    "PermissionDeniedError",
    "UnauthenticatedError",
    "UnavailableError",
    "text_of",
]
