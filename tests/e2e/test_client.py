"""The Python client against a service: what it answers with is what REST answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.message import Message

from localplane_client import AsyncClient, Client, NotFoundError
from served import Served, served


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Iterator[Served]:
    """A service with a model that was asked once."""
    models = tmp_path_factory.mktemp("home") / "data" / "models"
    models.mkdir(parents=True)
    shutil.copy(tiny_gguf, models / "tiny.gguf")
    with served(folder=models.parent) as service:
        yield service


def test_blocking(service: Served) -> None:
    """Figures, resources, peers and tokens, as the service has them."""
    with Client(service.grpc) as client:
        spent = client.complete("hello", model="tiny.gguf", max_tokens=3).usage.total_tokens
        tokens = client.get_token_metrics("tiny.gguf")
        listed = client.list_token_metrics()
        summary = client.get_summary()
        resources = client.get_resources()
        figures = client.get_metrics()
        token = client.get_network_token()
        with pytest.raises(NotFoundError) as caught:
            client.get_token_metrics("nobody")

        assert (spent, True, 3) == (
            tokens.total.total_tokens,
            tokens.loaded,
            tokens.tokens_generated,
        )
        assert [("tiny.gguf", spent)] == [
            (one.model, one.total.total_tokens) for one in listed.models
        ]
        assert spent == listed.models[0].last_minute.counts.total_tokens
        assert service.get("/version").json()["version"] == summary.version
        assert ["tiny.gguf"] == list(summary.models.names)
        assert service.get("/api/resources").json()["cpu"]["count"] == resources.cpu.count
        assert "localplane_" in figures.data.decode()
        assert b"" == token.data
        assert "MODEL_NOT_FOUND" == caught.value.reason
        assert [] == list(client.list_nodes().nodes)
        assert [] == list(client.list_workers().nodes)
        assert [] == list(client.list_federation().nodes)
        assert 0 == client.get_peer_stats().workers.total


async def test_async(service: Served) -> None:
    """The other client answers the same."""
    async with AsyncClient(service.grpc) as client:
        with Client(service.grpc) as blocking:
            pairs: list[tuple[Message, Message]] = [
                (await client.get_summary(), blocking.get_summary()),
                (await client.list_nodes(), blocking.list_nodes()),
                (await client.get_network_token(), blocking.get_network_token()),
                (await client.list_workers(), blocking.list_workers()),
                (await client.list_federation(), blocking.list_federation()),
                (await client.get_peer_stats(), blocking.get_peer_stats()),
            ]
        resources = await client.get_resources()
        figures = await client.get_metrics()
        tokens = await client.get_token_metrics("tiny.gguf")
        listed = await client.list_token_metrics(page_size=1)

    assert [] == [type(one).__name__ for one, other in pairs if one != other]
    assert 0 < resources.memory.total
    assert figures.content_type.startswith("text/plain")
    assert "tiny.gguf" == tokens.model
    assert 1 >= len(listed.models)
