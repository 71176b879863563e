"""The table of errors is total, and says what it should."""

from __future__ import annotations

import base64
import inspect
import re
from collections import Counter
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from localplane_server import errors
from localplane_server.rpc.status import CODES, code_of, status_of

LEAVES = [
    one
    for _, one in inspect.getmembers(errors, inspect.isclass)
    if issubclass(one, errors.LocalplaneError)
    and "reason" in vars(one)
    and one is not errors.LocalplaneError
]


def details(error: errors.LocalplaneError) -> dict[str, object]:
    status = status_of(error)
    binary = dict(status.trailing_metadata)["grpc-status-details-bin"]
    assert isinstance(binary, bytes)
    found: dict[str, object] = {}
    for packed in status_pb2.Status.FromString(binary).details:
        name = packed.TypeName().rpartition(".")[2]
        message = getattr(error_details_pb2, name)()
        packed.Unpack(message)
        found[name] = message
    return found


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_every_reason_has_a_code(leaf: type[errors.LocalplaneError]) -> None:
    """An error that a caller can get is in the table."""
    assert any(kind in CODES for kind in leaf.__mro__)


def test_reasons_are_unique() -> None:
    """Two errors of one reason would be one error to a program."""
    counts = Counter(leaf.reason for leaf in LEAVES)

    assert [] == [reason for reason, count in counts.items() if count > 1]


def test_the_drawn_tree_names_every_error() -> None:
    """The tree in the module's docstring is the tree."""
    drawn = set(re.findall(r"\w+Error\b", errors.__doc__ or ""))
    real = {
        name
        for name, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, errors.LocalplaneError | errors.StartupError)
    }

    assert real == drawn


def test_error_info() -> None:
    """Reason, domain and what varies in the message."""
    info = details(errors.ModelNotLoadedError("m"))["ErrorInfo"]

    assert (
        error_details_pb2.ErrorInfo(
            reason="MODEL_NOT_LOADED", domain="localplane.dev", metadata={"model": "m"}
        )
        == info
    )


def test_bad_request_names_the_field() -> None:
    """A wrong argument says which."""
    found = details(errors.InvalidArgumentError("n is wrong", field="n"))["BadRequest"]
    violation = error_details_pb2.BadRequest.FieldViolation(field="n", description="n is wrong")

    assert error_details_pb2.BadRequest(field_violations=[violation]) == found


def test_retry_info_says_when() -> None:
    """What may work later says when."""
    found = details(errors.DrainingError("later", retry_after_seconds=1.5))["RetryInfo"]

    assert isinstance(found, error_details_pb2.RetryInfo)
    assert 1.5 == found.retry_delay.ToTimedelta().total_seconds()


def test_a_leaf_has_the_code_of_its_kind() -> None:
    """The kind decides."""
    assert grpc.StatusCode.NOT_FOUND is code_of(errors.ModelNotFoundError("m"))


@pytest.mark.parametrize("text", ["x", "%", "\0", "é", "\U0001f600", "a log line | "])
@pytest.mark.parametrize("count", [10, 1000, 100_000])
def test_a_status_fits_the_headers(text: str, count: int) -> None:
    """Clients refuse more than 8 KiB of headers. What is cut is the middle: a log ends with the cause."""
    message = f"it began {text * count} and ended"
    error = errors.InvalidArgumentError(message, field="f", log=text * count)
    status = status_of(error)
    binary = dict(status.trailing_metadata)["grpc-status-details-bin"]
    assert isinstance(binary, bytes)

    assert len(quote(status.details, safe=" /:;,|")) + len(base64.b64encode(binary)) < 7300
    assert status.details.startswith("it began")
    assert status.details.endswith("and ended")
    assert status.details == message or count > 10
