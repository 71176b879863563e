"""What the API promises of its errors, written down a second time, and the judgement of answers.

The server and the gateway have tables of their own. Whoever changes one of them has to change this one too, and
`docs/errors.md`, and so has to mean it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx

from contract.transports import CallError

Code = grpc.StatusCode


class Promise(NamedTuple):
    """How one reason is told."""

    code: grpc.StatusCode | None
    """The code of gRPC. None where HTTP alone has the error."""
    status: int
    """The status of HTTP."""
    is_retried: bool = False
    """Whether the answer says when to try again."""


PROMISES: Mapping[str, Promise] = {
    "ALREADY_EXISTS": Promise(Code.ALREADY_EXISTS, 409),
    "ARCHIVE_REFUSED": Promise(Code.INTERNAL, 500),
    "AUTOLOAD_DISABLED": Promise(Code.FAILED_PRECONDITION, 400),
    "BACKEND_FAILED": Promise(Code.INTERNAL, 500),
    "BACKEND_GONE": Promise(Code.UNAVAILABLE, 503, is_retried=True),
    "BACKEND_NOT_INSTALLED": Promise(Code.FAILED_PRECONDITION, 400),
    "BACKEND_STATUS_FAILED": Promise(Code.INTERNAL, 500),
    "BACKEND_UNAVAILABLE": Promise(Code.UNAVAILABLE, 503, is_retried=True),
    "BODY_TOO_LARGE": Promise(None, 413),
    "CAPACITY_EXHAUSTED": Promise(Code.RESOURCE_EXHAUSTED, 503, is_retried=True),
    "CROSS_SITE": Promise(None, 403),
    "DEADLINE_EXCEEDED": Promise(Code.DEADLINE_EXCEEDED, 504),
    "DIGEST_MISMATCH": Promise(Code.INTERNAL, 500),
    "DOWNLOAD_FAILED": Promise(Code.INTERNAL, 500),
    "DRAINING": Promise(Code.UNAVAILABLE, 503, is_retried=True),
    "EXTERNAL_SERVER_TAKEN": Promise(Code.FAILED_PRECONDITION, 409),
    "EXTRA_NOT_INSTALLED": Promise(Code.FAILED_PRECONDITION, 501),
    "FORBIDDEN": Promise(Code.PERMISSION_DENIED, 403),
    "GALLERY_NOT_FOUND": Promise(Code.NOT_FOUND, 404),
    "INSTALL_FAILED": Promise(Code.INTERNAL, 500),
    "INSUFFICIENT_STORAGE": Promise(Code.RESOURCE_EXHAUSTED, 507),
    "INTERNAL": Promise(Code.INTERNAL, 500),
    "INVALID_ARGUMENT": Promise(Code.INVALID_ARGUMENT, 400),
    "INVALID_MODEL_NAME": Promise(Code.INVALID_ARGUMENT, 400),
    "JOB_FINISHED": Promise(Code.FAILED_PRECONDITION, 400),
    "JOB_NOT_FOUND": Promise(Code.NOT_FOUND, 404),
    "LOAD_COOLDOWN": Promise(Code.UNAVAILABLE, 503, is_retried=True),
    "LOAD_FAILED": Promise(Code.INTERNAL, 500),
    "METHOD_NOT_ALLOWED": Promise(None, 405),
    "MISDIRECTED_REQUEST": Promise(None, 421),
    "METRICS_DISABLED": Promise(Code.NOT_FOUND, 404),
    "MODEL_NOT_FOUND": Promise(Code.NOT_FOUND, 404),
    "MODEL_NOT_IN_GALLERY": Promise(Code.NOT_FOUND, 404),
    "MODEL_NOT_LOADED": Promise(Code.NOT_FOUND, 404),
    "MODEL_TOO_LARGE": Promise(Code.FAILED_PRECONDITION, 400),
    "NOT_READY": Promise(Code.UNAVAILABLE, 503, is_retried=True),
    "NOT_SUPPORTED_BY_BACKEND": Promise(Code.UNIMPLEMENTED, 501),
    "OFFLINE": Promise(Code.FAILED_PRECONDITION, 400),
    "REQUEST_ID_REUSED": Promise(Code.ALREADY_EXISTS, 409),
    "ROUTE_NOT_FOUND": Promise(None, 404),
    "SOURCE_REFUSED": Promise(Code.INVALID_ARGUMENT, 400),
    "TOO_MANY_REQUESTS": Promise(Code.RESOURCE_EXHAUSTED, 429, is_retried=True),
    "UNAUTHENTICATED": Promise(Code.UNAUTHENTICATED, 401),
    "UNSAFE_FILES": Promise(Code.INTERNAL, 500),
    "UNSUPPORTED_MEDIA_TYPE": Promise(None, 415),
}
"""Every reason there is."""

OF_METHODS: Mapping[tuple[str, str], int] = {
    ("BackendService.GetBackendStatus", "MODEL_NOT_LOADED"): 500,
    ("BackendService.ShutdownBackend", "MODEL_NOT_LOADED"): 500,
}
"""Statuses of HTTP that differ for one method."""

OF_THE_LIBRARY: Mapping[tuple[grpc.StatusCode, str], str] = {
    (Code.UNIMPLEMENTED, "Method not found!"): "there is no such method",
    (Code.RESOURCE_EXHAUSTED, "larger than max"): "the message is over the limit",
    (Code.RESOURCE_EXHAUSTED, "metadata size exceeds"): "the metadata are over the limit",
    (
        Code.DEADLINE_EXCEEDED,
        "Deadline Exceeded",
    ): "the deadline passed before the service could say so",
}
"""What the gRPC library says by itself, without a reason: the code, a part of the text, and when."""

FORESEEN = PROMISES.keys() - {"INTERNAL"}
"""What input can lead to. Nothing that a caller sends may have the service fail in a way that nobody foresaw."""

_OURS = (Path.home(), Path.cwd(), Path(sys.prefix))
_INSIDES = re.compile(
    "|".join(
        [
            "Traceback",
            r'File "',
            r"\.py\b",
            r"<class '",
            r" at 0x[0-9a-f]",
            *(re.escape(str(path)) for path in _OURS if len(path.parts) > 1),
        ]
    )
)


def check_call_error(error: CallError) -> None:
    """Hold an error of a channel against the table."""
    check_text(error.message, *error.metadata.values())
    if not error.reason:
        said = [code for code, text in OF_THE_LIBRARY if text in error.message]
        assert error.code in said, f"no reason, and not the library's: {error.code} {error.message}"
        return
    assert error.reason in FORESEEN, str(error)
    assert PROMISES[error.reason].code is error.code, str(error)
    assert error.message


def check_response(response: httpx.Response, method: str) -> None:
    """Hold an answer of REST against the table: its status, its shape, what it tells.

    Args:
        response: The answer, read in full.
        method: The method that the route stands for, such as `ModelService.GetModel`. Empty when there is none.
    """
    assert response.headers["x-request-id"]
    assert "nosniff" == response.headers["x-content-type-options"]
    text = response.text
    check_text(_without_programs(text))
    if response.status_code < httpx.codes.BAD_REQUEST:
        assert response.status_code in (
            httpx.codes.OK,
            httpx.codes.NO_CONTENT,
            httpx.codes.NOT_MODIFIED,
        )
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            for line in text.splitlines():
                if line.startswith('data: {"error"'):
                    check_error_body(json.loads(line.removeprefix("data: ")), method)
        return
    assert "application/json" == response.headers["content-type"]
    if response.request.method == "HEAD":
        assert not text
        return
    assert response.status_code == check_error_body(response.json(), method)
    is_retried = PROMISES[response.json()["error"]["reason"]].is_retried
    assert is_retried == ("retry-after" in response.headers)
    is_unknown = response.status_code == httpx.codes.UNAUTHORIZED
    assert is_unknown == (response.headers.get("www-authenticate") == "Bearer")


def check_error_body(body: Any, method: str) -> int:
    """Hold the body of an error against the table and return the status that it states."""
    assert ["error"] == list(body)
    error = body["error"]
    assert ["code", "message", "type", "reason", "metadata"] == list(error)
    assert error["reason"] in FORESEEN, error
    expected = OF_METHODS.get((method, error["reason"]), PROMISES[error["reason"]].status)
    assert expected == error["code"], error
    assert "" == error["type"]
    assert error["message"]
    assert isinstance(error["message"], str)
    assert all(isinstance(value, str) for value in error["metadata"].values())
    status: int = error["code"]
    return status


def check_text(*texts: str) -> None:
    """Refuse what tells of the inside of the service: traces of the stack, and paths of the machine."""
    for text in texts:
        found = _INSIDES.search(text)
        assert found is None, f"{found} in {text[:1000]}"


def _without_programs(text: str) -> str:
    """Leave out what the list of backends tells on purpose, to those who may start them."""
    return re.sub(r'"RunFile":"[^"]*"', "", text)
