"""Methods of the PeerService."""

from __future__ import annotations

from google.api import httpbody_pb2

from localplane.v1 import peer_service_pb2
from localplane_client.methods import unary


class PeerMethods:
    """The peer-to-peer network. While the service is in none, there is nobody in the lists."""

    @unary("PeerService/ListNodes", peer_service_pb2.ListNodesResponse)
    def list_nodes(self) -> peer_service_pb2.ListNodesRequest:
        """List the nodes of the network by what they are for."""
        return peer_service_pb2.ListNodesRequest()

    @unary("PeerService/GetNetworkToken", httpbody_pb2.HttpBody)
    def get_network_token(self) -> peer_service_pb2.GetNetworkTokenRequest:
        """Get the token with which another node joins the network, in the answer's `data`."""
        return peer_service_pb2.GetNetworkTokenRequest()

    @unary("PeerService/ListWorkers", peer_service_pb2.ListWorkersResponse)
    def list_workers(self) -> peer_service_pb2.ListWorkersRequest:
        """List the nodes that compute parts of a model for others."""
        return peer_service_pb2.ListWorkersRequest()

    @unary("PeerService/ListFederation", peer_service_pb2.ListFederationResponse)
    def list_federation(self) -> peer_service_pb2.ListFederationRequest:
        """List the nodes that answer whole requests for others."""
        return peer_service_pb2.ListFederationRequest()

    @unary("PeerService/GetPeerStats", peer_service_pb2.PeerStats)
    def get_peer_stats(self) -> peer_service_pb2.GetPeerStatsRequest:
        """Count the nodes of each kind."""
        return peer_service_pb2.GetPeerStatsRequest()
