"""`localplane models install`, `remove`, `plan` and `jobs` against a service, as people and programs use them."""

from __future__ import annotations

import json
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import file_server
from e2e.test_cli import Terminal, document, run
from file_server import FileServer
from localplane_server.cli.session import (
    ERROR,
    INTERRUPTED,
    NOT_FOUND,
    TRY_AGAIN,
    UNREACHABLE,
    USAGE,
)
from served import Served, served

MIB = 1 << 20
SIZE = 8 * MIB


@pytest.fixture(scope="module")
def server() -> Iterator[FileServer]:
    """A server of files for the module."""
    with file_server.serving() as server:
        yield server


@pytest.fixture
def files(server: FileServer) -> Iterator[FileServer]:
    """The server of files, with nothing held back in the end."""
    yield server
    server.allow(None)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that may fetch from it."""
    folder = tmp_path_factory.mktemp("home") / "data"
    arguments = ("--allow-private-hosts", "127.0.0.1", "--galleries", "[]")
    with served(*arguments, folder=folder) as service:
        yield service


def offer(files: FileServer, name: str, size: int = SIZE) -> str:
    """Serve a model, and return the URL of its configuration."""
    content = random.Random(name).randbytes(size)  # noqa: S311 - the same each time
    weights = files.put(f"/{name}.bin", content, etag=f'"{name}"')
    configuration = {
        "name": name,
        "config_file": yaml.safe_dump({"backend": "llama", "parameters": {"model": f"{name}.bin"}}),
        "files": [
            {
                "filename": f"{name}.bin",
                "uri": f"{files.url}/{name}.bin",
                "sha256": weights.sha256,
            }
        ],
    }
    files.put(f"/{name}.yaml", yaml.safe_dump(configuration).encode(), kind="text/plain")
    return f"{files.url}/{name}.yaml"


def newest(service: Served) -> dict[str, Any]:
    """Return the job that was asked for last."""
    jobs: dict[str, dict[str, Any]] = document(service, "models", "jobs", "list")
    return max(jobs.values(), key=lambda job: str(job["created_at"]))


def test_without_a_terminal(service: Served, files: FileServer) -> None:
    """Steps go aside, the outcome to standard output; the model is listed, then it is gone."""
    url = offer(files, "plain")
    first = run(service, "models", "install", "--url", url)
    second = run(service, "models", "install", "--url", url)
    listed = run(service, "models", "list")
    removed = run(service, "models", "remove", "plain")
    later = run(service, "models", "list")

    assert (0, "installed plain: 8 MiB fetched\n") == (first.returncode, first.stdout)
    assert "plain: completed" == first.stderr.splitlines()[-1]
    assert "\r" not in first.stderr
    assert (0, "installed plain: everything was there already\n") == (
        second.returncode,
        second.stdout,
    )
    assert "plain" in listed.stdout
    assert (0, "deleted plain: 8 MiB came back\n") == (removed.returncode, removed.stdout)
    assert "plain" not in later.stdout


def test_json(service: Served, files: FileServer) -> None:
    """A program gets one document, the same that REST has."""
    installed = document(service, "models", "install", "--url", offer(files, "json", 1000))
    shown = document(service, "models", "jobs", "show", installed["uuid"])
    removed = document(service, "models", "remove", "json")
    watched = run(service, "models", "jobs", "watch", installed["uuid"], "--json")
    reference = document(
        service, "models", "install", "--no-wait", "--url", offer(files, "json", 1000)
    )

    assert ("completed", "json") == (installed["state"], installed["result"]["name"])
    assert installed == shown == service.get(f"/models/jobs/{installed['uuid']}").json()
    assert (True, "completed") == (removed["deletion"], removed["state"])
    assert [installed] == [json.loads(line)["job"] for line in watched.stdout.splitlines()]
    assert ["uuid", "status"] == list(reference)


def test_failure(service: Served) -> None:
    """What fails says why, on standard error or in the document, and in the exit code."""
    told = run(service, "models", "install", "no-such-model")
    written = run(service, "models", "install", "no-such-model", "--json")

    assert (ERROR, "") == (told.returncode, told.stdout)
    assert 'Error: installation of no-such-model: no model found with name "no-such-model"' in (
        told.stderr
    )
    assert ERROR == written.returncode
    assert "MODEL_NOT_IN_GALLERY" == json.loads(written.stdout)["error_reason"]


def test_ctrl_c_and_back(service: Served, files: FileServer) -> None:
    """A terminal has a bar; Ctrl-C leaves the job alone, and the same command finds it again."""
    url = offer(files, "long")
    files.allow(files.sent + SIZE // 2)
    with Terminal(service, "models", "install", "--url", url) as terminal:
        terminal.wait_for("[####")
        terminal.process.send_signal(signal.SIGINT)
        code = terminal.end()
    job = newest(service)
    with Terminal(service, "models", "install", "--url", url) as again:
        again.wait_for("[####")
        files.allow(None)
        code_again = again.end()

    assert INTERRUPTED == code
    assert "The job goes on without you." in terminal.shown
    assert f"localplane models jobs watch {job['uuid']}" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert "running" == job["state"]
    assert 0 == code_again
    assert "installed long: 8 MiB fetched" in again.shown
    assert job["uuid"] == newest(service)["uuid"]


def test_pause_resume_and_cancel(service: Served, files: FileServer) -> None:
    """A job can be stopped, let go on and ended by its identifier; who follows it is told."""
    url = offer(files, "stopped")
    files.allow(files.sent + SIZE // 2)
    job_id = document(service, "models", "install", "--no-wait", "--url", url)["uuid"]
    with Terminal(service, "models", "jobs", "watch", job_id) as terminal:
        terminal.wait_for("[####")
        paused = run(service, "models", "jobs", "pause", job_id)
        code = terminal.end()
    resumed = run(service, "models", "jobs", "resume", job_id)
    cancelled = run(service, "models", "jobs", "cancel", job_id)
    late = run(service, "models", "jobs", "cancel", job_id)
    watched = run(service, "models", "jobs", "watch", job_id)
    listed = run(service, "models", "jobs", "list", "--all")

    assert (0, f"paused: installation of {url}\n") == (paused.returncode, paused.stdout)
    assert TRY_AGAIN == code
    assert f"localplane models jobs resume {job_id}" in terminal.shown
    assert (0, f"resumed: installation of {url}\n") == (resumed.returncode, resumed.stdout)
    assert (0, f"cancelled: installation of {url}\n") == (cancelled.returncode, cancelled.stdout)
    assert ERROR == late.returncode
    assert "it is already cancelled" in late.stderr
    assert (ERROR, "") == (watched.returncode, watched.stdout)
    assert f"installation of {url}: cancelled" in watched.stderr
    assert any(job_id in line and "cancelled" in line for line in listed.stdout.splitlines())


def test_left_for_later(files: FileServer, tmp_path: Path) -> None:
    """Who follows a job that this service cannot go on with is told, and waits no longer."""
    url = offer(files, "later")
    files.allow(files.sent + SIZE // 2)
    arguments = ("--allow-private-hosts", "127.0.0.1", "--galleries", "[]")
    with served(*arguments, folder=tmp_path / "data") as first:
        job_id = document(first, "models", "install", "--no-wait", "--url", url)["uuid"]
        first.process.terminate()
        first.process.wait(60)
    with served(*arguments, "--offline", folder=tmp_path / "data") as offline:
        watched = run(offline, "models", "jobs", "watch", job_id)
        again = run(offline, "models", "install", "--url", url)
        as_json = run(offline, "models", "install", "--url", url, "--json")

    cause = f"interrupted: installation of {url}: cannot download {url}: --offline is set."
    lines = [cause, "It goes on when a service starts that can do it."]
    assert (TRY_AGAIN, lines) == (watched.returncode, watched.stdout.splitlines())
    assert (TRY_AGAIN, lines) == (again.returncode, again.stdout.splitlines())
    assert (TRY_AGAIN, job_id) == (as_json.returncode, json.loads(as_json.stdout)["uuid"])


def test_remove_asks(service: Served, files: FileServer) -> None:
    """On a terminal nothing is deleted before somebody says yes."""
    run(service, "models", "install", "--url", offer(files, "asked", 1000))
    with Terminal(service, "models", "remove", "asked") as terminal:
        terminal.wait_for("Delete asked and its files?")
        terminal.type("n\n")
        code = terminal.end()
    listed = run(service, "models", "list")

    assert ERROR == code
    assert "asked" in listed.stdout


def test_file(service: Served, tmp_path: Path) -> None:
    """A model's configuration in a file can be installed as it is, under another name."""
    file = tmp_path / "m.yaml"
    file.write_text("name: from-file\nbackend: llama\nparameters: {model: nothing.gguf}\n")
    done = run(service, "models", "install", "--file", str(file), "--as", "renamed")

    assert 0 == done.returncode, done.stderr
    assert "renamed" in run(service, "models", "list").stdout


def test_plan(service: Served, files: FileServer) -> None:
    """What an installation would come to is told, and nothing is changed."""
    url = offer(files, "planned")
    told = run(service, "models", "plan", "--url", url)
    written = document(service, "models", "plan", "--url", url)

    assert 0 == told.returncode
    assert "8 MiB" in told.stdout
    assert "planned.bin" in told.stdout
    assert ("planned", SIZE) == (written["name"], written["fetch_bytes"])
    assert SIZE == written["needed_bytes"]
    assert re.search(r"^space +8 MiB; .+ are free$", told.stdout, re.MULTILINE)
    assert "planned" not in run(service, "models", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("models", "install"), USAGE, "give one of NAME"),
        (("models", "install", "a", "--url", "https://x/y"), USAGE, "give one of NAME"),
        (("models", "install", "--file", "/nowhere/m.yaml"), USAGE, "does not exist"),
        (("models", "install", "--url", "no url"), ERROR, "as a URL"),
        (("models", "jobs", "show", "x"), NOT_FOUND, "localplane models jobs list"),
        (("models", "jobs", "watch", "x"), NOT_FOUND, "localplane models jobs list"),
    ],
)
def test_wrong_use(service: Served, arguments: tuple[str, ...], code: int, words: str) -> None:
    """What cannot be done is said in words, with the exit code for it."""
    done = run(service, *arguments)

    assert (code, "") == (done.returncode, done.stdout)
    assert words in done.stderr


def test_no_service(service: Served) -> None:
    """Without a service, it is said how to start one."""
    done = run(service, "models", "install", "smollm2", "--grpc", "127.0.0.1:1")

    assert UNREACHABLE == done.returncode
    assert "localplane serve" in done.stderr
