"""What a call can fail with. The class follows from the gRPC code, the reason is the service's.

::

    LocalplaneError
    ├── InvalidArgumentError
    ├── UnauthenticatedError
    ├── PermissionDeniedError
    ├── NotFoundError
    ├── UnavailableError
    │   └── NotReachableError     reason NOT_REACHABLE: nobody answered
    └── DeadlineExceededError
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

STATUS_DETAILS = "grpc-status-details-bin"
"""The trailing metadata that carries reasons."""

NOT_REACHABLE = "NOT_REACHABLE"
"""Reason of the errors that no service said, because none answered."""


class LocalplaneError(Exception):
    """A call failed."""

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        code: grpc.StatusCode,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        method: str = "",
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        """For people. It may change."""
        self.reason = reason
        """For programs. Stable, such as `MODEL_NOT_FOUND`; the name of the code where the service gave none."""
        self.code = code
        """The gRPC code."""
        self.metadata: Mapping[str, str] = dict(metadata or {})
        """Whatever varies in the message, by name."""
        self.retry_after = retry_after
        """When trying again may help, in seconds. None when it does not."""
        self.method = method
        """The method that was called: `/localplane.v1.BackendService/LoadModel`."""
        self.request_id = request_id
        """Name of the call in the service's log. None when no service answered."""

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})"


class InvalidArgumentError(LocalplaneError):
    """An argument is wrong, whatever the state of the service."""


class UnauthenticatedError(LocalplaneError):
    """A key is needed, and none or an unknown one was given."""


class PermissionDeniedError(LocalplaneError):
    """The key is known and does not suffice."""


class NotFoundError(LocalplaneError):
    """What was asked for does not exist, or is not loaded."""


class UnavailableError(LocalplaneError):
    """Not now; trying again later may help."""


class NotReachableError(UnavailableError):
    """Nobody answers at the target, or the connection broke."""


class DeadlineExceededError(LocalplaneError):
    """The deadline of the call passed."""


KINDS: Mapping[grpc.StatusCode, type[LocalplaneError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
}
"""The class of each code that has one."""


def error_of(failed: Any, *, target: str, method: str) -> LocalplaneError:
    """Make an error of what gRPC raised.

    Args:
        failed: A `grpc.RpcError` of either kind of channel; both know code, details and trailing metadata.
        target: Where the service was called.
        method: What was called there.
    """
    code: grpc.StatusCode = failed.code()
    words = failed.details() or code.name
    trailing = _pairs(failed.trailing_metadata())
    said = _status(trailing.get(STATUS_DETAILS))
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    retry_after = None
    for detail in said.details:
        detail.Unpack(info)
        if detail.Unpack(retry):
            retry_after = retry.retry_delay.ToMilliseconds() / 1000
    kind = KINDS.get(code, LocalplaneError)
    reason = info.reason or code.name
    if code is grpc.StatusCode.UNAVAILABLE and not info.reason:
        # gRPC strings causes together; the last one is what the system said.
        kind, reason = NotReachableError, NOT_REACHABLE
        words = f"cannot reach {target}: {words.rpartition(': ')[2]}"
    return kind(
        words,
        reason=reason,
        code=code,
        metadata=info.metadata,
        retry_after=retry_after,
        method=method,
        request_id=_text(trailing.get("x-request-id")),
    )


def _pairs(metadata: Iterable[Any] | None) -> dict[str, str | bytes]:
    return {key: value for key, value in metadata or ()}  # noqa: C416 - gRPC's pairs are not plain tuples


def _status(details: str | bytes | None) -> status_pb2.Status:
    return status_pb2.Status.FromString(details if isinstance(details, bytes) else b"")


def _text(value: str | bytes | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
