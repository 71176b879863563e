"""Every method of the clients is what the protos say."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_type_hints

import pytest
from google.protobuf import descriptor_pool

from localplane_client import AsyncClient, Client
from localplane_client.client import Methods
from localplane_client.methods import Streaming, Unary
from localplane_server.rpc.server import SERVICES

DECLARED = {
    name: value
    for kind in Methods.__mro__
    for name, value in vars(kind).items()
    if isinstance(value, Unary | Streaming)
}


def _rpc(declared: Any) -> Any:
    service, _, name = declared.method.path.removeprefix("/").partition("/")
    return descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]


@pytest.mark.parametrize("name", sorted(DECLARED))
class TestMethods:
    def test_name(self, name: str) -> None:
        """Its name is the RPC's, so who knows the one knows the other."""
        rpc = _rpc(DECLARED[name])

        assert name == re.sub(r"(?<!^)(?=[A-Z])", "_", rpc.name).lower()

    def test_types(self, name: str) -> None:
        """What it sends, what it answers with, and whether that comes in pieces."""
        declared = DECLARED[name]
        rpc = _rpc(declared)
        made = get_type_hints(declared._make_request)["return"]

        assert (rpc.input_type, rpc.output_type, rpc.server_streaming) == (
            made.DESCRIPTOR,
            declared.method.answer.DESCRIPTOR,
            isinstance(declared, Streaming),
        )

    def test_arguments(self, name: str) -> None:
        """Its arguments are fields of the request."""
        declared = DECLARED[name]
        hints = get_type_hints(declared._make_request)
        parameters = inspect.signature(declared._make_request).parameters
        named = [one for one in parameters if one not in ("self", "options")]
        if "options" in parameters:
            named += hints["options"].__args__[0].__annotations__

        assert set() == set(named) - {field.name for field in _rpc(declared).input_type.fields}

    def test_documentation(self, name: str) -> None:
        """It says what it does, on both clients."""
        assert DECLARED[name].__doc__
        assert getattr(Client, name) is getattr(AsyncClient, name)


def test_nothing_is_missing() -> None:
    """Whatever the service can be asked over gRPC, the clients can ask."""
    pool = descriptor_pool.Default()
    rpcs = {
        f"/{name}/{method.name}"
        for name in SERVICES
        for method in pool.FindServiceByName(name).methods
    }

    assert rpcs == {declared.method.path for declared in DECLARED.values()}
