"""A model of the built-in gallery is installed, loaded, used and deleted, over REST and over gRPC.

Its file is there already, so that nothing is downloaded: that is tested with files of our own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from localplane_client import Client
from served import Served, served, wait_until

pytest.importorskip("xllamacpp", reason="the extra llama is not installed")

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def models(tmp_path: Path, smollm2: Path) -> Path:
    """The models folder, with the model's file."""
    models = tmp_path / "data" / "models"
    models.mkdir(parents=True)
    shutil.copy(smollm2, models / FILE)
    return models


@pytest.fixture
def service(models: Path) -> Iterator[Served]:
    """A service that stays off the network."""
    with served("--offline", folder=models.parent) as service:
        yield service


def test_rest(service: Served, models: Path) -> None:
    """Over REST."""

    def done(path: str, **body: str) -> None:
        job = f"/models/jobs/{service.post(path, **body).raise_for_status().json()['uuid']}"
        wait_until(lambda: bool(service.get(job).json()["processed"]))
        assert not service.get(job).json()["error"]

    offered = service.get("/models/available").json()
    assert ["minilm", "smollm2"] == sorted(one["name"] for one in offered)
    done("/models/apply", id="localplane@smollm2")
    assert ["smollm2"] == [one["id"] for one in service.get("/v1/models").json()["data"]]
    service.load("smollm2")
    messages = [{"role": "user", "content": "Say hello."}]
    answer = service.post("/v1/chat/completions", model="smollm2", messages=messages, max_tokens=5)
    assert answer.json()["choices"][0]["message"]["content"]

    done("/models/delete/smollm2")

    assert [] == list(models.iterdir())
    assert [] == service.get("/v1/models").json()["data"]
    assert [] == service.get("/api/backends").json()["backends"]


def test_grpc(service: Served, models: Path) -> None:
    """Over gRPC, with the client."""
    with Client(service.grpc) as client:

        def done(uuid: str) -> None:
            wait_until(lambda: client.get_job(uuid).processed)
            assert not client.get_job(uuid).HasField("error")

        plan = client.plan_model("smollm2")
        assert (0, True) == (plan.fetch_bytes, plan.fits)
        assert plan.memory.cache_bytes > 0
        done(client.apply_model("smollm2", name="mine").uuid)
        client.load_model("mine")
        assert client.complete("Hello", model="mine", max_tokens=3).choices[0].text

        done(client.delete_model("mine").uuid)

        assert [] == list(client.list_models().data)
    assert [] == list(models.iterdir())
