"""Galleries on the command line of a running service, and over its restarts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.test_cli import document, run
from index_server import IndexServer, index_server
from localplane_server.cli.session import ERROR, NOT_FOUND
from served import Served, served, wait_until

INDEX = """
- {name: alpha, description: "talks\\u001b[31m a lot", tags: [llm], size: 1GB}
- {name: beta, overrides: {backend: whisper}}
- {name: bad, overrides: [1]}
"""
ARGUMENTS = ("--allow-private-hosts", "127.0.0.1", "--galleries", "[]")


@pytest.fixture(scope="module")
def server() -> Iterator[IndexServer]:
    """A server of indexes."""
    with index_server() as server:
        yield server


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with nothing but the built-in gallery."""
    with served(*ARGUMENTS, folder=tmp_path_factory.mktemp("home") / "data") as service:
        yield service


def offered(service: Served, gallery: str) -> list[str]:
    """Return the names of all models once a gallery was read, or could not be."""

    def is_read() -> bool:
        service.get("/models/available").raise_for_status()
        found = {one["name"]: one for one in service.get("/models/galleries").json()}[gallery]
        return found["models"] is not None or bool(found["error"])

    wait_until(is_read)
    return [model["name"] for model in service.get("/models/available").json()]


def test_commands(service: Served, server: IndexServer) -> None:
    """A gallery is added, searched, listed with what is wrong with it, and removed."""
    url = server.put("/index.yaml", INDEX)
    added = run(service, "models", "galleries", "add", "ours", url, "--mirror", f"{url}?2")
    assert 0 == added.returncode
    assert "ours" in added.stdout

    offered(service, "ours")
    found = run(service, "models", "search", "talks", "lot")
    assert 0 == found.returncode
    assert "ours@alpha" in found.stdout
    assert "\x1b" not in found.stdout
    assert "beta" not in found.stdout
    assert "no models" in run(service, "models", "search", "no such thing").stdout
    assert ["beta"] == [
        model["name"] for model in document(service, "models", "search", "--backend", "whisper")
    ]
    assert ["alpha"] == [
        model["name"]
        for model in document(service, "models", "search", "--tag", "LLM", "--not-installed")
        if model["gallery"]["name"] == "ours"
    ]
    assert [] == document(service, "models", "search", "--installed")

    listed = run(service, "models", "galleries", "list").stdout
    assert "ours has 1 entry that cannot be used" in listed
    assert "line 4: bad: its overrides is no mapping" in listed
    assert ["localplane", "ours"] == [
        gallery["name"] for gallery in document(service, "models", "galleries", "list")
    ]

    taken = run(service, "models", "galleries", "add", "OURS", url)
    assert (ERROR, True) == (taken.returncode, "already exists" in taken.stderr)
    removed = run(service, "models", "galleries", "remove", "ours")
    assert (0, False) == (removed.returncode, "ours" in removed.stdout)
    again = run(service, "models", "galleries", "remove", "ours")
    assert (NOT_FOUND, True) == (again.returncode, "galleries list" in again.stderr)


def test_unreachable(service: Served, server: IndexServer) -> None:
    """A search tells on the side of a gallery that cannot be read."""
    run(service, "models", "galleries", "add", "gone", f"{server.url}/gone.yaml")
    offered(service, "localplane")
    offered(service, "gone")
    found = run(service, "models", "search", "smollm2")

    assert 0 == found.returncode
    assert "localplane@smollm2" in found.stdout
    assert "cannot read gallery gone" in found.stderr
    run(service, "models", "galleries", "remove", "gone")


def test_over_restarts(tmp_path: Path, server: IndexServer) -> None:
    """What was added stays added, what was removed stays removed, and a copy does where the server is gone."""
    folder = tmp_path / "data"
    url = server.put("/kept.yaml", "- {name: kept}\n", etag='"1"')
    with served(*ARGUMENTS, folder=folder) as service:
        service.post("/models/galleries", name="ours", url=url).raise_for_status()
        assert "kept" in offered(service, "ours")
        run(service, "models", "galleries", "remove", "localplane")
    server.asked.clear()
    with served(*ARGUMENTS, folder=folder) as service:
        assert ["kept"] == offered(service, "ours")
    assert [] == server.paths(), "the copy is fresh"
    del server.pages["/kept.yaml"]
    with served(*ARGUMENTS, "--offline", folder=folder) as service:
        assert ["kept"] == offered(service, "ours")
