"""The tables of the server and the gateway are the one that the API promises, reason by reason."""

from __future__ import annotations

import inspect
from typing import Any

import grpc
import pytest

from contract.error_table import OF_METHODS, PROMISES
from contract.surface import METHODS, option
from localplane.v1 import options_pb2
from localplane_gateway import errors as gateway_errors
from localplane_gateway.http_status import BY_CODE, BY_REASON, http_status
from localplane_server import errors
from localplane_server.rpc.server import SERVICES
from localplane_server.rpc.status import CODES, code_of, status_of


def _leaves() -> dict[str, type[errors.LocalplaneError]]:
    found = [
        one
        for _, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, errors.LocalplaneError) and "reason" in vars(one)
    ]
    return {one.reason: one for one in found}


LEAVES = _leaves()
"""The errors of the server, by reason."""

OF_HTTP = {
    error.reason: error
    for error in (
        gateway_errors.InvalidRequestError("m"),
        gateway_errors.CrossSiteError(),
        gateway_errors.RouteNotFoundError("/"),
        gateway_errors.MethodNotAllowedError("GET", "POST"),
        gateway_errors.BodyTooLargeError(1),
        gateway_errors.UnsupportedMediaTypeError("a/b"),
        gateway_errors.MisdirectedRequestError("h"),
        gateway_errors.StoppingError(),
        gateway_errors.InternalError(),
    )
}
"""The errors of the gateway, by reason."""


def test_every_reason_is_promised() -> None:
    """A new reason is not in the API before it is in the table."""
    assert set(PROMISES) == {*LEAVES, *OF_HTTP}


def test_every_gateway_error_is_here() -> None:
    """The list above leaves out none but the one that passes on what methods answer."""
    base = gateway_errors.GatewayError
    named = {
        one
        for _, one in inspect.getmembers(gateway_errors, inspect.isclass)
        if issubclass(one, base) and one is not base and not one.__name__.startswith("_")
    }

    assert named == {gateway_errors.RpcError, *(type(error) for error in OF_HTTP.values())}


@pytest.mark.parametrize("reason", sorted(LEAVES))
def test_server(reason: str) -> None:
    """Each reason of the server has the promised code, the promised status, and says when to retry if promised."""
    # Leaves differ in their arguments; of this one, only the class matters.
    leaf: Any = LEAVES[reason]
    error = leaf.__new__(leaf)
    errors.LocalplaneError.__init__(error, "m")
    error.field, error.retry_after_seconds = "", 1.0
    trailing = dict(status_of(error).trailing_metadata)
    says_when = b"google.rpc.RetryInfo" in trailing["grpc-status-details-bin"]
    promise = PROMISES[reason]

    assert promise.code is code_of(error)
    assert promise.status == http_status(code_of(error), reason, {})
    assert promise.is_retried == says_when


@pytest.mark.parametrize("reason", sorted(OF_HTTP))
def test_gateway(reason: str) -> None:
    """Each reason of the gateway has the promised status, and those that the server has too have one and the same."""
    error = OF_HTTP[reason]

    assert PROMISES[reason].status == error.status
    assert PROMISES[reason].is_retried == (b"retry-after" in dict(error.headers))
    assert (PROMISES[reason].code is None) == (reason not in LEAVES)


def test_statuses_of_methods() -> None:
    """No method has a status of its own that the table does not know."""
    declared = {
        (name, special.reason): special.status
        for name, method in METHODS.items()
        for special in option(method, options_pb2.http_status)
    }

    assert dict(OF_METHODS) == declared


def test_every_service_is_served() -> None:
    """What is declared is served, so it is walked over a connection."""
    declared = {method.containing_service.full_name for method in METHODS.values()}

    assert set(SERVICES) == declared


def test_nothing_is_left_over() -> None:
    """No table has an entry that nothing leads to."""
    kinds = {kind for leaf in LEAVES.values() for kind in leaf.__mro__}

    assert set(CODES) <= kinds
    assert set(grpc.StatusCode) == set(BY_CODE)
    assert {reason for reason in BY_REASON if reason not in PROMISES} <= PLANNED


PLANNED = {"CAPACITY_EXHAUSTED", "INSUFFICIENT_STORAGE"}
"""Reasons that the gateway knows ahead of the server, which may be newer."""
