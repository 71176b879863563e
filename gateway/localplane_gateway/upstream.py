"""The server behind a gateway that runs alone."""

from __future__ import annotations

import hashlib
import time
from typing import Literal

import grpc

from localplane.v1 import system_service_pb2, system_service_pb2_grpc

REMEMBER_SECONDS = 10.0
"""How long a key that was found good is not asked about again. Each call is still checked by the server itself."""
REMEMBER_KEYS = 1024
"""How many keys are remembered. Beyond that, all are forgotten."""
ANSWER_SECONDS = 5.0
"""How long the server may take to say whether a key is good."""


def open_channel(address: str) -> grpc.aio.Channel:
    """Return a channel to a server. Messages are limited by the server and by the gateway, not by the channel."""
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ],
    )


class UpstreamAuthenticator:
    """Asks the server whether a key is good, before a request is read any further.

    The server checks every call anyway. This check only makes the answer to a bad key come before all others, as it
    does where gateway and server are one process.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._system = system_service_pb2_grpc.SystemServiceStub(channel)
        self._good: dict[tuple[bytes, str], float] = {}

    async def check(self, credentials: str | None, access: Literal["user", "admin"]) -> None:
        """Return if the key opens what asks for the access.

        Raises:
            grpc.aio.AioRpcError: If it does not, or the server does not answer.
        """
        known = (hashlib.sha256((credentials or "").encode()).digest(), access)
        now = time.monotonic()
        if self._good.get(known, 0.0) > now:
            return
        metadata = (("authorization", f"Bearer {credentials}"),) if credentials else ()
        if access == "admin":
            system = system_service_pb2.GetSystemRequest()
            await self._system.GetSystem(system, metadata=metadata, timeout=ANSWER_SECONDS)
        else:
            version = system_service_pb2.GetVersionRequest()
            await self._system.GetVersion(version, metadata=metadata, timeout=ANSWER_SECONDS)
        if len(self._good) >= REMEMBER_KEYS:
            self._good.clear()
        self._good[known] = now + REMEMBER_SECONDS

    async def is_open(self) -> bool:
        """Return whether the server answers callers without a key.

        Raises:
            grpc.aio.AioRpcError: If the server does not answer.
        """
        try:
            await self.check(None, "user")
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return False
            raise
        return True
