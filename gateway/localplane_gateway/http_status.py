"""Which HTTP status an error has. Nobody else chooses the status of what a method answers."""

from __future__ import annotations

from collections.abc import Mapping

import grpc

BY_CODE: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""The status of each code."""

BY_REASON: Mapping[str, int] = {
    "BODY_TOO_LARGE": 413,
    "CAPACITY_EXHAUSTED": 503,
    "EXTERNAL_SERVER_TAKEN": 409,
    "EXTRA_NOT_INSTALLED": 501,
    "INSUFFICIENT_STORAGE": 507,
    "METHOD_NOT_ALLOWED": 405,
    "MISDIRECTED_REQUEST": 421,
    "ROUTE_NOT_FOUND": 404,
    "UNSUPPORTED_MEDIA_TYPE": 415,
}
"""The status of a reason where it is not that of its code, or where HTTP alone has the error."""


def http_status(code: grpc.StatusCode, reason: str, of_method: Mapping[str, int]) -> int:
    """Choose the status: the method's own for the reason, else the reason's, else the code's."""
    return of_method.get(reason) or BY_REASON.get(reason) or BY_CODE[code]
