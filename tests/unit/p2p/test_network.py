"""Nodes of a network, and no network."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from localplane_server.p2p.network import Node, NoNetwork, Role

SEEN = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(("seconds", "is_online"), [(0.0, True), (39.9, True), (40.0, False)])
def test_online(seconds: float, is_online: bool) -> None:  # noqa: FBT001 - a table's column
    """A node is online for forty seconds after it announced itself."""
    node = Node(name="n", id="i", tunnel_address="", service_id="worker", last_seen=SEEN)

    assert is_online is node.is_online(SEEN + timedelta(seconds=seconds))


def test_no_network() -> None:
    """There is nothing to join, and nobody for any role."""
    network = NoNetwork()

    assert (False, "") == (network.is_on, network.token)
    assert [()] * 3 == [network.nodes(role) for role in Role]
