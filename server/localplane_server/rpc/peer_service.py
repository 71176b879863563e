"""The gRPC face of the peer-to-peer network."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.api import httpbody_pb2

from localplane.v1 import peer_pb2, peer_service_pb2, peer_service_pb2_grpc
from localplane_server.p2p.network import Network, Node, Role
from localplane_server.rpc.convert import timestamp


class PeerServicer(peer_service_pb2_grpc.PeerServiceServicer):
    """Unpacks the request, calls the domain, packs the answer."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def ListNodes(
        self, request: peer_service_pb2.ListNodesRequest, context: Any
    ) -> peer_service_pb2.ListNodesResponse:
        workers = self._nodes(Role.LLAMA_CPP_WORKER)
        return peer_service_pb2.ListNodesResponse(
            llama_cpp_nodes=workers,
            federated_nodes=self._nodes(Role.FEDERATED),
            mlx_nodes=self._nodes(Role.MLX_WORKER),
            nodes=workers,
        )

    async def GetNetworkToken(
        self, request: peer_service_pb2.GetNetworkTokenRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        return httpbody_pb2.HttpBody(
            content_type="text/plain; charset=utf-8", data=self._network.token.encode()
        )

    async def ListWorkers(
        self, request: peer_service_pb2.ListWorkersRequest, context: Any
    ) -> peer_service_pb2.ListWorkersResponse:
        workers = self._statuses(Role.LLAMA_CPP_WORKER)
        return peer_service_pb2.ListWorkersResponse(
            llama_cpp=peer_service_pb2.NodeList(nodes=workers),
            mlx=peer_service_pb2.NodeList(nodes=self._statuses(Role.MLX_WORKER)),
            nodes=workers,
        )

    async def ListFederation(
        self, request: peer_service_pb2.ListFederationRequest, context: Any
    ) -> peer_service_pb2.ListFederationResponse:
        return peer_service_pb2.ListFederationResponse(nodes=self._statuses(Role.FEDERATED))

    async def GetPeerStats(
        self, request: peer_service_pb2.GetPeerStatsRequest, context: Any
    ) -> peer_service_pb2.PeerStats:
        workers = self._count(Role.LLAMA_CPP_WORKER)
        return peer_service_pb2.PeerStats(
            llama_cpp_workers=workers,
            federated=self._count(Role.FEDERATED),
            mlx_workers=self._count(Role.MLX_WORKER),
            workers=workers,
        )

    def _nodes(self, role: Role) -> list[peer_pb2.Node]:
        return [
            peer_pb2.Node(
                name=node.name,
                id=node.id,
                tunnel_address=node.tunnel_address,
                service_id=node.service_id,
                last_seen=timestamp(node.last_seen),
            )
            for node in self._network.nodes(role)
        ]

    def _statuses(self, role: Role) -> list[peer_pb2.NodeStatus]:
        now = datetime.now(UTC)
        return [_status(node, now) for node in self._network.nodes(role)]

    def _count(self, role: Role) -> peer_pb2.NodeCount:
        now = datetime.now(UTC)
        nodes = self._network.nodes(role)
        return peer_pb2.NodeCount(
            online=sum(node.is_online(now) for node in nodes), total=len(nodes)
        )


def _status(node: Node, now: datetime) -> peer_pb2.NodeStatus:
    return peer_pb2.NodeStatus(
        name=node.name,
        id=node.id,
        tunnel_address=node.tunnel_address,
        service_id=node.service_id,
        last_seen=timestamp(node.last_seen),
        is_online=node.is_online(now),
    )
