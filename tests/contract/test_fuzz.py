"""Random input for every route and method. `make fuzz` sends more of it, and other each time."""

from __future__ import annotations

import json
import os
from typing import Any

import httpx
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.surface import (
    GOOD_VALUES,
    METHODS,
    STREAMED,
    WITH_FIELDS,
    Route,
    good_path,
    good_values,
    json_name,
)
from contract.walk import Walk
from localplane_server.setting_values import MEBIBYTE

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("unharmed")]

SETTINGS = {"max_body_size": 2 * MEBIBYTE}

EXAMPLES = os.environ.get("LOCALPLANE_FUZZ_EXAMPLES")
fuzzed = settings(
    max_examples=int(EXAMPLES or 15),
    derandomize=EXAMPLES is None,
    deadline=None,  # the walk has a bound of its own
    print_blob=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,  # the service outlives all examples, as it should
        HealthCheck.too_slow,
    ],
)

NUMBERS = st.integers(-(2**70), 2**70) | st.floats() | st.integers(-2, 20)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=50)
# Names of fields, so that an object in the wrong place is not only of unknown ones.
NAMES = st.sampled_from(["type", "text", "content", "function", "name", "schema", "json_schema"])
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(NAMES | st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)


def bodies(descriptor: Descriptor, depth: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of a message's fields, whose values are mostly of their types."""
    fields = {json_name(field): values(field, depth) for field in descriptor.fields}
    return st.fixed_dictionaries({}, optional=fields)


def values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    """Values for a field."""
    if field.message_type is not None:
        is_ours = field.message_type.full_name.startswith("localplane.")
        one = bodies(field.message_type, depth - 1) if is_ours and depth else ANYTHING
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        one = st.text(max_size=100)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        one = st.booleans()
    else:
        one = NUMBERS
    typed = st.lists(one, max_size=3) if field.is_repeated else one
    good = GOOD_VALUES.get(field.name)
    return typed | ANYTHING if good is None else st.just(good) | typed | ANYTHING


async def send(client: httpx.AsyncClient, route: Route, body: bytes) -> None:
    walk = Walk(route.method)
    headers = {"content-type": "application/json"}
    await walk.rest(repr(body), client, route.verb, good_path(route), content=body, headers=headers)
    walk.finish()


@pytest.fixture
def client(transports: dict[str, Any]) -> httpx.AsyncClient:
    """A client of the gateway inside the service."""
    found: httpx.AsyncClient = transports["rest"]._client
    return found


@pytest.mark.parametrize("route", WITH_FIELDS, ids=lambda route: f"{route.verb} {route.path}")
class TestRoutes:
    @fuzzed
    @given(data=st.data())
    async def test_objects(self, client: httpx.AsyncClient, route: Route, data: Any) -> None:
        """Whatever object comes, the answer is one of the table."""
        body = data.draw(bodies(METHODS[route.method].input_type))

        await send(client, route, json.dumps(body).encode())

    @fuzzed
    @given(data=st.data())
    async def test_damaged(self, client: httpx.AsyncClient, route: Route, data: Any) -> None:
        """A good body with bytes cut out and others put in is read, or refused, like any other."""
        body = json.dumps(good_values(route.method)).encode()
        at = data.draw(st.integers(0, len(body)))
        until = data.draw(st.integers(at, len(body)))
        junk = data.draw(
            st.binary(max_size=8) | st.sampled_from([b'"', b"{", b"}", b"[", b"\\", b","])
        )

        await send(client, route, body[:at] + junk + body[until:])


@pytest.mark.parametrize("route", STREAMED, ids=lambda route: f"{route.verb} {route.path}")
@fuzzed
@given(data=st.data())
async def test_streams(client: httpx.AsyncClient, route: Route, data: Any) -> None:
    """A streamed answer is no exception."""
    body = data.draw(bodies(METHODS[route.method].input_type))

    await send(client, route, json.dumps({**body, "stream": True}).encode())


@pytest.mark.parametrize("method", sorted(METHODS))
@fuzzed
@given(request=st.binary(max_size=64))
async def test_bytes(transports: dict[str, Any], method: str, request: bytes) -> None:
    """Random bytes over gRPC are a message or none."""
    channel: Any = transports["grpc"]._channel
    walk = Walk(method)
    await walk.wire(request.hex(), channel, request)
    walk.finish()
