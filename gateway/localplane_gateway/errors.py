"""Answers that are errors, and the one shape that they have.

::

    GatewayError
    ├── RpcError                   whatever a method or the authenticator answered
    ├── InvalidRequestError        INVALID_ARGUMENT, or the reason that the field's proto names
    ├── CrossSiteError             CROSS_SITE
    ├── RouteNotFoundError         ROUTE_NOT_FOUND
    ├── MethodNotAllowedError      METHOD_NOT_ALLOWED
    ├── BodyTooLargeError          BODY_TOO_LARGE
    ├── UnsupportedMediaTypeError  UNSUPPORTED_MEDIA_TYPE
    ├── MisdirectedRequestError    MISDIRECTED_REQUEST
    ├── StoppingError              DRAINING
    └── InternalError              INTERNAL

    ClientGoneError                nobody is left to answer
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import grpc
import orjson
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from localplane_gateway.http_status import BY_CODE, BY_REASON, http_status

logger = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]

_STATUS_DETAILS = "grpc-status-details-bin"
# What the gRPC library itself says of these is about the insides of the service.
_OPAQUE = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS}


class GatewayError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status."""
        self.reason = reason
        """Stable, for programs."""
        self.message = message
        """For people."""
        self.metadata = metadata or {}
        """What varies in the message, by name."""
        self.headers = headers or []
        """Headers of the answer, beside the usual ones."""

    def body(self) -> bytes:
        """Write the error as JSON."""
        return orjson.dumps(
            {
                "error": {
                    "code": self.status,
                    "message": self.message,
                    "type": "",
                    "reason": self.reason,
                    "metadata": dict(self.metadata),
                }
            }
        )


class InvalidRequestError(GatewayError):
    """The body, the path or the query cannot be read as the method's request."""

    def __init__(self, message: str, *, field: str = "", reason: str = "") -> None:
        super().__init__(
            BY_CODE[grpc.StatusCode.INVALID_ARGUMENT],
            reason or "INVALID_ARGUMENT",
            message,
            metadata={"field": field} if field else None,
        )


class CrossSiteError(GatewayError):
    """A page of another site asks."""

    def __init__(self) -> None:
        status = BY_CODE[grpc.StatusCode.PERMISSION_DENIED]
        super().__init__(status, "CROSS_SITE", "requests from pages of other sites are refused")


class _HttpError(GatewayError):
    """An error of HTTP itself, which no method answers."""

    def __init__(
        self, reason: str, message: str, headers: Headers | None = None, **metadata: str
    ) -> None:
        super().__init__(BY_REASON[reason], reason, message, metadata=metadata, headers=headers)


class RouteNotFoundError(_HttpError):
    """There is nothing at this path."""

    def __init__(self, path: str) -> None:
        super().__init__("ROUTE_NOT_FOUND", "Resource not found", path=path)


class MethodNotAllowedError(_HttpError):
    """The path does not know this verb."""

    def __init__(self, method: str, allow: str) -> None:
        headers = [(b"allow", allow.encode())]
        super().__init__(
            "METHOD_NOT_ALLOWED", "Method Not Allowed", headers, method=method, allow=allow
        )


class BodyTooLargeError(_HttpError):
    """The body is over the limit. The connection ends with the answer; the rest is not read."""

    def __init__(self, limit: int) -> None:
        message = f"the body is larger than {limit} bytes"
        headers = [(b"connection", b"close")]
        super().__init__("BODY_TOO_LARGE", message, headers, limit=str(limit))


class UnsupportedMediaTypeError(_HttpError):
    """The body is not JSON."""

    def __init__(self, content_type: str) -> None:
        message = f"cannot read a body of type {content_type}: send application/json"
        super().__init__("UNSUPPORTED_MEDIA_TYPE", message, content_type=content_type)


class MisdirectedRequestError(_HttpError):
    """The Host header names a host that this service is not known by."""

    def __init__(self, host: str) -> None:
        message = f"this service is not known as {host}: allow the host where it is started"
        super().__init__("MISDIRECTED_REQUEST", message, host=host)


class StoppingError(GatewayError):
    """The gateway stops before the request could be answered."""

    def __init__(self) -> None:
        super().__init__(
            BY_CODE[grpc.StatusCode.UNAVAILABLE],
            "DRAINING",
            "the service is stopping",
            headers=[(b"retry-after", b"1")],
        )


class InternalError(GatewayError):
    """Something of ours broke. The log says what; the client is not told."""

    def __init__(self) -> None:
        super().__init__(BY_CODE[grpc.StatusCode.INTERNAL], "INTERNAL", "internal error")


class RpcError(GatewayError):
    """A method answered with an error, or could not be reached.

    Args:
        error: What the call raised.
        of_method: The method's own statuses by reason.
    """

    def __init__(self, error: grpc.aio.AioRpcError, of_method: Mapping[str, int]) -> None:
        code: grpc.StatusCode = error.code()
        details: str = error.details() or ""
        reason, metadata, retry_seconds = _read_details(error)
        if not reason:
            logger.warning("call ended without a reason", extra={"code": code, "details": details})
            reason = code.name
            if code in _OPAQUE:
                reason, details = "INTERNAL", "internal error"
            elif code is grpc.StatusCode.UNAVAILABLE:
                details = "the service cannot be reached"
            elif code is grpc.StatusCode.RESOURCE_EXHAUSTED:
                # Of messages, and where a gateway takes larger ones than the service behind it.
                reason, details = "BODY_TOO_LARGE", "the body is larger than the service takes"
        headers: Headers = []
        if code is grpc.StatusCode.UNAUTHENTICATED:
            headers.append((b"www-authenticate", b"Bearer"))
        if retry_seconds is not None:
            headers.append((b"retry-after", str(max(1, math.ceil(retry_seconds))).encode()))
        status = http_status(code, reason, of_method)
        super().__init__(status, reason, details, metadata=metadata, headers=headers)


class ClientGoneError(Exception):
    """The client closed the connection before it was answered."""


def _read_details(error: grpc.aio.AioRpcError) -> tuple[str, dict[str, str], float | None]:
    """Get reason, metadata and seconds until a retry from the details that came with an error."""
    reason, metadata, retry_seconds = "", dict[str, str](), None
    for detail in _status(error).details:
        info = error_details_pb2.ErrorInfo()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(retry):
            retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, metadata, retry_seconds


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    trailing: Any = error.trailing_metadata()  # its type knows no items
    for key, value in trailing or ():
        if key == _STATUS_DETAILS:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                logger.warning("call ended with details that are not google.rpc.Status")
    return status_pb2.Status()
