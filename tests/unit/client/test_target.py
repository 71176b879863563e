"""Where a service is."""

from __future__ import annotations

import pytest

from localplane_client.target import (
    DEFAULT_TARGET,
    InvalidTargetError,
    api_key_from,
    checked_target,
    target_from,
)


@pytest.mark.parametrize(
    "target", ["127.0.0.1:50051", "box.lan:1", "[::1]:65535", "unix:/run/x", "unix:x"]
)
def test_targets(target: str) -> None:
    """A host with a port, or a socket file."""
    assert target == checked_target(target)


@pytest.mark.parametrize(
    "target",
    ["", "host", "host:", ":50051", "host:0", "host:65536", "::1:50051", "http://host:1", "unix:"],
)
def test_no_targets(target: str) -> None:
    """All else is refused by name, before gRPC makes a guess."""
    with pytest.raises(InvalidTargetError, match="expected HOST:PORT or unix:PATH"):
        checked_target(target)


def test_environment() -> None:
    """A variable that is empty counts as not set."""
    assert [DEFAULT_TARGET, DEFAULT_TARGET, "h:1"] == [
        target_from({}),
        target_from({"LOCALPLANE_GRPC": ""}),
        target_from({"LOCALPLANE_GRPC": "h:1"}),
    ]
    assert [None, None, "a"] == [
        api_key_from({}),
        api_key_from({"LOCALPLANE_API_KEY": " ,b"}),
        api_key_from({"LOCALPLANE_API_KEY": "a,b"}),
    ]
