"""The one table of errors: what each kind of error is on the wire."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from localplane_server import errors

DOMAIN = "localplane.dev"
"""Domain of the reasons, as `google.rpc.ErrorInfo` wants one."""

CODES: dict[type[errors.LocalplaneError], grpc.StatusCode] = {
    errors.InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.ExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.InsufficientStorageError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.FailedError: grpc.StatusCode.INTERNAL,
    errors.OverdueError: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""The code of each kind. A leaf has its kind's."""

LARGEST_STATUS_BYTES = 7 * 1024
"""Of headers, which is how a status travels. Clients take 8 KiB for sure; the other headers need some of it."""

INTERNAL = "internal error"
"""All that a caller is told of an error that nobody foresaw."""


_GAP = " ... "
_LONGEST_TEXT = 4096
_SHORTEST_TEXT = 64
# What gRPC writes as it is into the header of the message; the rest it escapes.
_IS_PLAIN = [
    chr(byte).isascii() and chr(byte).isprintable() and chr(byte) != "%" for byte in range(256)
]


def code_of(error: errors.LocalplaneError) -> grpc.StatusCode:
    """Return the gRPC code of an error."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return grpc.StatusCode.INTERNAL


def status_of(error: errors.LocalplaneError) -> grpc.Status:
    """Return an error as a gRPC status with `ErrorInfo`, and `BadRequest` or `RetryInfo` where they fit.

    Texts that are too long for the headers lose their middles: a client that gets more headers than it takes is told
    nothing but that.
    """
    longest = _LONGEST_TEXT
    status = _status_with_texts(error, longest)
    while _header_bytes(status) > LARGEST_STATUS_BYTES and longest > _SHORTEST_TEXT:
        longest //= 2
        status = _status_with_texts(error, longest)
    return status


def _status_with_texts(error: errors.LocalplaneError, longest: int) -> grpc.Status:
    """Return the status of an error whose texts have at most so many characters."""
    message = _shortened(error.message, longest)
    metadata = {name: _shortened(value, longest) for name, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    details: list[Message] = [info]
    if isinstance(error, errors.InvalidArgumentError) and error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=message
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.UnavailableError | errors.ExhaustedError):
        delay = Duration()
        delay.FromMilliseconds(int(error.retry_after_seconds * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return _status(code_of(error), message, details)


def internal_status() -> grpc.Status:
    """Return the status of an error that nobody foresaw."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN)
    return _status(grpc.StatusCode.INTERNAL, INTERNAL, [info])


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    half = (longest - len(_GAP)) // 2
    return text[:half] + _GAP + text[-half:]


def _header_bytes(status: grpc.Status) -> int:
    """Return what a status takes in headers: its text with escapes, and its details in base64."""
    text = status.details.encode()
    plain = sum(_IS_PLAIN[byte] for byte in text)
    binary = sum(len(value) for _, value in status.trailing_metadata)
    return plain + 3 * (len(text) - plain) + binary * 4 // 3


def _status(code: grpc.StatusCode, message: str, details: list[Message]) -> grpc.Status:
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    status: grpc.Status = rpc_status.to_status(
        status_pb2.Status(code=code.value[0], message=message, details=packed)
    )
    return status
