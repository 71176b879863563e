"""A user brings backends: a folder of LocalAI's, a script, a server; and asks the command line about them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.processes import free_port
from foreign import SCRIPT, ExternalProcess, external, install
from served import LOCALPLANE, Served, served

FAKE = SCRIPT.with_name("fake_backend.py")


@pytest.fixture(scope="module")
def far(
    foreign_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ExternalProcess]:
    """A server elsewhere that wants a token."""
    log = tmp_path_factory.mktemp("far") / "far.log"
    with external(foreign_program, log, LOCALAI_GRPC_AUTH_TOKEN="sesame") as process:
        yield process


@pytest.fixture(scope="module")
def service(
    far: ExternalProcess, foreign_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A service with all of them, by flags and by LocalAI's variables."""
    base = tmp_path_factory.mktemp("home")
    root = base / "localai-backends"
    install(root, "llama-cpp", foreign_program, {"name": "llama-cpp"})
    (root / "broken").mkdir()
    models = base / "data" / "models"
    models.mkdir(parents=True)
    for name, backend in (("a", "llama-cpp"), ("b", "far"), ("c", "plain"), ("d", "late")):
        text = f"name: {name}\nbackend: {backend}\nknown_usecases: [none]\n"
        (models / f"{name}.yaml").write_text(text)
    with served(
        *("--external-grpc-backends", f"far:{far.address},plain:{FAKE}"),
        *("--external-grpc-backends", f"off:127.0.0.1:{free_port()}"),
        folder=base / "data",
        LOCALAI_BACKENDS_PATH=str(root),
        LOCALAI_GRPC_AUTH_TOKEN="sesame",
    ) as service:
        yield service


def localplane(service: Served, *arguments: str) -> Any:
    """Run a command of ours and return its JSON."""
    command = [*LOCALPLANE, *arguments, "--grpc", service.grpc, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def text_of(service: Served, model: str, prompt: str) -> str:
    answer = service.post("/v1/completions", model=model, prompt=prompt)
    answer.raise_for_status()
    text: str = answer.json()["choices"][0]["text"]
    return text


def test_each_of_them_serves(service: Served) -> None:
    """LocalAI's folder, a server with its token, and a script that our interpreter runs."""
    assert ["hello", "hello", "hello"] == [
        text_of(service, model, "hello").strip() for model in "abc"
    ]


def test_localai_backend_instead_of_our_alias(service: Served) -> None:
    """`llama-cpp` means the one that was brought, not ours."""
    told = json.loads(text_of(service, "a", "describe"))

    assert "llama-cpp" == Path(told["cwd"]).name


def test_without_a_restart(service: Served, foreign_program: Path) -> None:
    """A backend that is put into the folder later is there with the next load."""
    before = service.post("/backend/load", model="d").json()["error"]["reason"]
    [known] = [one for one in service.get("/backends").json() if one["Name"] == "llama-cpp"]
    install(Path(known["RunFile"]).parents[1], "late", foreign_program)
    text = text_of(service, "d", "hello")

    assert ("BACKEND_NOT_INSTALLED", "hello") == (before, text)


def test_rest_has_localai_names(service: Served, far: ExternalProcess) -> None:
    """`/backends` in LocalAI's shape, with what is ours beside it."""
    found = {one["Name"]: one for one in service.get("/backends").json()}

    assert {"name": "llama-cpp"} == found["llama-cpp"]["Metadata"]
    assert found["llama-cpp"]["RunFile"].endswith("/llama-cpp/run.sh")
    assert (False, False, "installed") == (
        found["llama-cpp"]["IsSystem"],
        found["llama-cpp"]["IsMeta"],
        found["llama-cpp"]["source"],
    )
    assert (None, far.address, "external") == (
        found["far"]["Metadata"],
        found["far"]["address"],
        found["far"]["source"],
    )
    assert found["llama"]["IsSystem"]


def test_command_line(service: Served) -> None:
    """The list has them all; for people it also has what is broken."""
    names = [one["Name"] for one in localplane(service, "backend", "installed")]
    command = [*LOCALPLANE, "backend", "installed", "--grpc", service.grpc]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert {"far", "llama", "llama-cpp", "off", "plain"} <= set(names)
    assert "broken:" in shown
    assert "has no run.sh" in shown


def test_doctor(service: Served, far: ExternalProcess, tmp_path: Path) -> None:
    """The doctor knows them, and says which server does not listen and which entry is broken."""
    environment = {
        **os.environ,
        "LOCALPLANE_DATA_DIR": str(tmp_path / "data"),
        "LOCALPLANE_GRPC_LISTEN": "127.0.0.1:0",
        "LOCALPLANE_HTTP_LISTEN": "127.0.0.1:0",
        "BACKENDS_PATH": str(tmp_path / "backends"),
        "EXTERNAL_GRPC_BACKENDS": f"far:{far.address},off:127.0.0.1:{free_port()}",
    }
    (tmp_path / "backends" / "broken").mkdir(parents=True)
    command = [*LOCALPLANE, "doctor", "--grpc", service.grpc, "--json"]
    done = subprocess.run(command, check=False, capture_output=True, env=environment)
    found = [one for one in json.loads(done.stdout)["findings"] if one["check"] == "backend"]
    fine = [one["message"] for one in found if one["verdict"] == "ok"]
    off, broken = [one["message"] for one in found if one["verdict"] == "note"]

    assert f"far listens at {far.address}" in fine
    assert off.startswith("off cannot be reached at 127.0.0.1:")
    assert "broken in the backends folder cannot be used: has no run.sh" == broken


def test_refused_at_the_start(tmp_path: Path) -> None:
    """A backend that cannot be one is an error before anything is started."""
    command = [*LOCALPLANE, "serve", "--data-dir", str(tmp_path / "data")]
    for given, cause in (
        (f"mine:{tmp_path}/run.sh", "there is no such file"),
        ("llama:127.0.0.1:1", "there is one already"),
        ("mine:nowhere", "neither HOST:PORT nor a path"),
    ):
        done = subprocess.run(
            [*command, "--external-grpc-backends", given],
            check=False,
            capture_output=True,
            text=True,
        )
        assert 1 == done.returncode
        assert cause in done.stderr
