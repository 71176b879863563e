"""Models that are installed and deleted while they are used, shared and interrupted, with the real backend."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import file_server
import killed_publication
from file_server import FileServer
from served import Served, alive, served, wait_until

pytestmark = pytest.mark.faults

ALLOWED = ("--allow-private-hosts", "127.0.0.1", "--galleries", "[]")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory."""
    folder = tmp_path / "data"
    (folder / "models").mkdir(parents=True)
    return folder


@pytest.fixture
def files() -> Iterator[FileServer]:
    """A server of files."""
    with file_server.serving() as server:
        yield server


@pytest.fixture
def weights(files: FileServer, tiny_gguf: Path) -> dict[str, str]:
    """What a request says of the weights of a model that works."""
    there = files.put("/tiny.gguf", tiny_gguf.read_bytes())
    return {"filename": "w/tiny.gguf", "uri": f"{files.url}/tiny.gguf", "sha256": there.sha256}


def finished(service: Served, reference: httpx.Response) -> dict[str, Any]:
    """Return a job once it is finished."""
    path = f"/models/jobs/{reference.raise_for_status().json()['uuid']}"
    wait_until(lambda: bool(service.get(path).json()["processed"]))
    job: dict[str, Any] = service.get(path).json()
    return job


def install(service: Served, name: str, file: dict[str, str], **settings: Any) -> dict[str, Any]:
    configuration = {
        "name": name,
        "backend": "llama",
        "context_size": 512,
        "parameters": {"model": file["filename"]},
        **settings,
    }
    return finished(service, service.post("/models/apply", config_file=configuration, files=[file]))


def delete(service: Served, name: str) -> dict[str, Any]:
    return finished(service, service.post(f"/models/delete/{name}"))


def models(service: Served) -> set[str]:
    return {one["id"] for one in service.get("/v1/models").json()["data"]}


def complete(service: Served, model: str, **more: Any) -> httpx.Response:
    return service.post("/v1/completions", model=model, prompt="hello", max_tokens=3, **more)


def on_disk(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder / "models"))
        for path in (folder / "models").rglob("*")
        if path.is_file()
    )


def test_shared_weights(folder: Path, weights: dict[str, str], files: FileServer) -> None:
    """Two models share weights: they are fetched once, stay with the first deletion, and go with the second."""
    with served(*ALLOWED, folder=folder) as service:
        assert not install(service, "one", weights)["error"]
        assert not install(service, "two", weights)["error"]
        assert 200 == complete(service, "one").status_code

        first = delete(service, "one")

        assert not first["error"], first
        assert {"two"} == models(service)
        assert 200 == complete(service, "two").status_code
        assert 1 == len({one.headers.get("range", "") for one in files.fetched("/tiny.gguf")})

        second = delete(service, "two")

        assert not second["error"], second
        assert set() == models(service)
        assert [] == on_disk(folder)
        assert [] == service.get("/api/backends").json()["backends"]


def test_serving(folder: Path, weights: dict[str, str]) -> None:
    """A model that serves is deleted: its process ends, and it is gone from lists and disk, also after a restart."""
    with served(*ALLOWED, folder=folder) as service, ThreadPoolExecutor(8) as pool:
        install(service, "tiny", weights)
        backend = service.load("tiny")
        tree = [backend, *backend.children(recursive=True)]
        answers = [pool.submit(complete, service, "tiny", n=1) for _ in range(8)]

        job = delete(service, "tiny")

        assert not job["error"], job
        assert [] == alive(tree)
        # Calls that were in flight came to their end, and the others were told.
        assert {200} >= {one.result().status_code for one in answers} - {404, 503}
        assert 404 == complete(service, "tiny").status_code
        assert 404 == delete_missing(service, "tiny")
        assert set() == models(service)
        assert [] == on_disk(folder)
    with served(*ALLOWED, folder=folder) as service:
        assert set() == models(service)
        assert 404 == complete(service, "tiny").status_code


def delete_missing(service: Served, name: str) -> int:
    """Delete what is not there, and return the status that its reason has elsewhere."""
    return 404 if delete(service, name)["error_reason"] == "MODEL_NOT_FOUND" else 0


def test_reinstalled(folder: Path, weights: dict[str, str]) -> None:
    """A model that is loaded is installed again with other settings: the next call has them."""
    with served(*ALLOWED, folder=folder) as service:
        install(service, "tiny", weights)
        before = service.load("tiny")

        assert not install(service, "tiny", weights, context_size=256)["error"]

        assert [] == alive([before])
        assert 200 == complete(service, "tiny").status_code
        assert before.pid != service.get("/backend/monitor", model="tiny").json()["pid"]
        assert 256 == service.get("/api/models/tiny").json()["context_size"]


def test_repaired(folder: Path, weights: dict[str, str]) -> None:
    """A model whose damaged file kept it from loading is installed again, and the next call loads it at once."""
    with served(*ALLOWED, folder=folder) as service:
        install(service, "tiny", weights)
        (folder / "models" / "w" / "tiny.gguf").write_bytes(b"GGUF" + bytes(1000))
        while complete(service, "tiny").json()["error"]["reason"] != "LOAD_COOLDOWN":
            pass

        assert not install(service, "tiny", weights)["error"]

        assert 200 == complete(service, "tiny").status_code
        (folder / "models" / "w" / "tiny.gguf").write_bytes(b"GGUF" + bytes(1000))
        service.post("/backend/shutdown", model="tiny")
        assert complete(service, "tiny").is_error
        delete(service, "tiny")
        assert [] == service.get("/api/backends").json()["backends"]


def test_failed_installation(folder: Path, weights: dict[str, str], files: FileServer) -> None:
    """An installation that fails leaves the model that was there as it was, loaded."""
    files.put("/other.gguf", b"GGUF other")
    with served(*ALLOWED, folder=folder) as service:
        install(service, "tiny", weights)
        before = on_disk(folder)
        backend = service.load("tiny")

        job = install(
            service, "tiny", {**weights, "uri": f"{files.url}/other.gguf", "sha256": "ab" * 32}
        )

        assert "DIGEST_MISMATCH" == job["error_reason"]
        assert before == on_disk(folder)
        assert [backend] == alive([backend])
        assert 200 == complete(service, "tiny").status_code


@pytest.mark.parametrize("step", [14, 20])
def test_interrupted_deletion(folder: Path, weights: dict[str, str], step: int) -> None:
    """A deletion that was killed between its renames is finished when the service starts next."""
    with served(*ALLOWED, folder=folder) as service:
        install(service, "tiny", weights)
    names = ("tiny.yaml", "._gallery_tiny.yaml", "w/tiny.gguf")

    killed_while_removing(folder / "models", names, step)

    left = [one for one in on_disk(folder) if one in names]
    assert "tiny.yaml" not in left
    with served(*ALLOWED, folder=folder) as service:
        assert set() == models(service)
        assert [] == on_disk(folder)


def killed_while_removing(root: Path, names: tuple[str, ...], step: int) -> None:
    """Have a process remove files, and kill it before a step."""
    program = Path(str(killed_publication.__file__))
    argv = [sys.executable, str(program), "remove", str(root), str(step), *names]
    assert -signal.SIGKILL == subprocess.run(argv, check=False).returncode
