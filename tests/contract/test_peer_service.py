"""The peer-to-peer network over every transport, for a service that is in none."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from google.protobuf.message import Message

from contract.transports import Transport
from localplane.v1 import peer_pb2
from localplane.v1 import peer_service_pb2 as pb
from localplane_server.app import App

pytestmark = pytest.mark.asyncio(loop_scope="module")

NONE = {"online": 0, "total": 0}
NOBODY = peer_pb2.NodeCount()


@pytest.mark.parametrize(
    ("method", "request_", "answer"),
    [
        ("ListNodes", pb.ListNodesRequest(), pb.ListNodesResponse()),
        (
            "ListWorkers",
            pb.ListWorkersRequest(),
            pb.ListWorkersResponse(llama_cpp=pb.NodeList(), mlx=pb.NodeList()),
        ),
        ("ListFederation", pb.ListFederationRequest(), pb.ListFederationResponse()),
        (
            "GetPeerStats",
            pb.GetPeerStatsRequest(),
            pb.PeerStats(
                llama_cpp_workers=NOBODY, federated=NOBODY, mlx_workers=NOBODY, workers=NOBODY
            ),
        ),
    ],
)
async def test_off(transport: Transport, method: str, request_: Message, answer: Message) -> None:
    """Nobody is known, and that is an answer, not an error."""
    assert answer == await transport.call(f"PeerService.{method}", request_)


async def test_token(transport: Transport) -> None:
    """Without a network the token is empty text."""
    answer = await transport.call("PeerService.GetNetworkToken", pb.GetNetworkTokenRequest())

    assert b"" == answer.data
    assert "text/plain; charset=utf-8" == answer.content_type


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "/api/p2p",
            {"llama_cpp_nodes": [], "federated_nodes": [], "mlx_nodes": [], "nodes": []},
        ),
        (
            "/api/p2p/workers",
            {"llama_cpp": {"nodes": []}, "mlx": {"nodes": []}, "nodes": []},
        ),
        ("/api/p2p/federation", {"nodes": []}),
        (
            "/api/p2p/stats",
            {"llama_cpp_workers": NONE, "federated": NONE, "mlx_workers": NONE, "workers": NONE},
        ),
    ],
)
async def test_json(app: App, path: str, expected: dict[str, Any]) -> None:
    """LocalAI's shapes to the letter: lists are never null, and both eras' names are there."""
    async with httpx.AsyncClient(base_url=f"http://{app.http}") as client:
        answer = await client.get(path)

    assert (200, expected) == (answer.status_code, answer.json())
