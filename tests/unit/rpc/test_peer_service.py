"""The network's nodes on the wire, in LocalAI's names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.message import Message

from localplane.v1 import peer_service_pb2 as pb
from localplane_gateway.codec import codec_for
from localplane_server.p2p.network import Node, Role
from localplane_server.rpc.peer_service import PeerServicer


class Network:
    """A network with a few nodes."""

    is_on = True
    token = "dG9rZW4="

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def nodes(self, role: Role) -> Sequence[Node]:
        if role is Role.MLX_WORKER:
            return ()
        old = self.now - timedelta(minutes=5)
        return [
            Node(
                name="a",
                id="host-a",
                tunnel_address="127.0.0.1:4000",
                service_id=role.value,
                last_seen=self.now,
            ),
            Node(name="b", id="host-b", tunnel_address="", service_id=role.value, last_seen=old),
        ]


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def servicer(network: Network) -> PeerServicer:
    return PeerServicer(network)


def as_json(message: Message) -> Any:
    return json.loads(codec_for(type(message)).encode(message))


async def test_nodes(servicer: PeerServicer, network: Network) -> None:
    """The list of all nodes has LocalAI's capitalised names; both names of the workers are the same list."""
    answer = as_json(await servicer.ListNodes(pb.ListNodesRequest(), None))

    node = answer["federated_nodes"][0]
    assert {"Name", "ID", "TunnelAddress", "ServiceID", "LastSeen"} == node.keys()
    assert ("a", "host-a", "127.0.0.1:4000") == (node["Name"], node["ID"], node["TunnelAddress"])
    assert network.now == datetime.fromisoformat(node["LastSeen"])
    assert 2 == len(answer["nodes"])
    assert answer["llama_cpp_nodes"] == answer["nodes"] != answer["federated_nodes"]
    assert [] == answer["mlx_nodes"]


async def test_workers(servicer: PeerServicer) -> None:
    """The lists by kind have camelCase names and tell who is online."""
    answer = as_json(await servicer.ListWorkers(pb.ListWorkersRequest(), None))

    keys = {"name", "id", "tunnelAddress", "serviceID", "lastSeen", "isOnline"}
    assert keys == answer["nodes"][0].keys()
    assert [True, False] == [node["isOnline"] for node in answer["nodes"]]
    assert answer["llama_cpp"]["nodes"] == answer["nodes"]
    assert {"nodes": []} == answer["mlx"]


async def test_federation(servicer: PeerServicer) -> None:
    """Only nodes that answer whole requests."""
    answer = as_json(await servicer.ListFederation(pb.ListFederationRequest(), None))

    assert ["federated"] * 2 == [node["serviceID"] for node in answer["nodes"]]


async def test_stats(servicer: PeerServicer) -> None:
    """Online and all, for each kind; the workers under both names."""
    answer = as_json(await servicer.GetPeerStats(pb.GetPeerStatsRequest(), None))

    some, none = {"online": 1, "total": 2}, {"online": 0, "total": 0}
    assert {
        "llama_cpp_workers": some,
        "federated": some,
        "mlx_workers": none,
        "workers": some,
    } == answer


async def test_token(servicer: PeerServicer) -> None:
    """The token is the body, as it is."""
    answer = await servicer.GetNetworkToken(pb.GetNetworkTokenRequest(), None)

    assert b"dG9rZW4=" == answer.data
