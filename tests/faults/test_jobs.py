"""Jobs of real services, which are killed, stopped and asked by many at once."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import file_server
from file_server import PIECE_BYTES, Asked, FileServer
from gated_service import Gate
from served import Served, alive, ending, served, start, start_program, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

ARGUMENTS = ("--allow-private-hosts", "127.0.0.1", "--galleries", "[]")
MIB = 1 << 20
SIZE = 12 * MIB
MOST_CONNECTIONS = 8
KILLS = 3
CHUNK_BYTES = 8 * MIB
"""Most that may have to be fetched again for each kill: what is under way on all connections."""
MANY = 20
"""Files of a model, where it is looked at how they are put in place."""
SOON = 5.0
"""Seconds for what is promised within one."""


@pytest.fixture
def files() -> Iterator[FileServer]:
    """A server of files."""
    with file_server.serving() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory."""
    return tmp_path / "data"


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - anything that is not all alike


def request_for(files: FileServer, name: str, *contents: bytes, **overrides: Any) -> dict[str, Any]:
    """Return what installs a model of files with these contents, which the server has from now on."""
    listed = []
    for number, content in enumerate(contents):
        path = f"{name}-{number}.bin"
        served_file = files.put(f"/{path}", content, etag=f'"{path}"')
        listed.append(
            {"filename": path, "uri": f"{files.url}/{path}", "sha256": served_file.sha256}
        )
    return {
        "name": name,
        "files": listed,
        "config_file": {"backend": "nowhere", "parameters": {"model": f"{name}-0.bin"}},
        "overrides": overrides,
    }


def apply(service: Served, request: dict[str, Any]) -> str:
    answer = service.post("/models/apply", **request)
    assert answer.status_code == httpx.codes.OK, answer.text
    job_id: str = answer.json()["uuid"]
    return job_id


def job_of(service: Served, job_id: str) -> dict[str, Any]:
    answer = service.get(f"/models/jobs/{job_id}")
    assert answer.status_code == httpx.codes.OK, answer.text
    job: dict[str, Any] = answer.json()
    return job


def job_once(
    service: Served, job_id: str, is_so: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Return a job once something is so of it."""
    wait_until(lambda: is_so(job_of(service, job_id)), 60)
    return job_of(service, job_id)


def finished(service: Served, job_id: str) -> dict[str, Any]:
    return job_once(service, job_id, lambda job: bool(job["processed"]))


def kill(service: Served) -> None:
    """End a service without a word."""
    service.process.send_signal(signal.SIGKILL)
    service.process.wait()


def left_of(folder: Path, name: str) -> list[str]:
    """Return the files of a model in the models folder."""
    return sorted(path.name for path in (folder / "models").iterdir() if name in path.name)


def test_killed_again_and_again(files: FileServer, folder: Path) -> None:
    """A download goes on by itself after each kill of the service, fetches little again, and is right in the end."""
    content = noise(SIZE)
    files.allow(0)
    service = start(*ARGUMENTS, folder=folder)
    job_id = apply(service, request_for(files, "big", content))
    chance = random.Random(7)  # noqa: S311 - the same each time
    told = 0
    for number in range(KILLS):
        files.allow(files.sent + chance.randrange(SIZE // 8, SIZE // 5))
        wait_until(lambda: files.sent + PIECE_BYTES > (files.budget or 0), 60)
        if number % 2:
            # Sometimes with progress that is known already, sometimes in the middle of things.
            seen = told
            job_once(service, job_id, lambda job, seen=seen: job["current_bytes"] > seen)  # type: ignore[misc]
        told = max(told, job_of(service, job_id)["current_bytes"])
        kill(service)
        service = start(*ARGUMENTS, folder=folder)
        job = job_of(service, job_id)
        assert job["state"] in ("queued", "running")
        assert not job["processed"]
    try:
        files.allow(None)
        job = finished(service, job_id)
    finally:
        kill(service)

    assert "completed" == job["state"], job
    assert KILLS + 1 == job["runs"]
    installed = (folder / "models" / "big-0.bin").read_bytes()
    assert hashlib.sha256(content).digest() == hashlib.sha256(installed).digest()
    assert files.sent <= SIZE + KILLS * CHUNK_BYTES, (files.sent - SIZE) / KILLS
    assert [] == list((folder / "staging").glob("*.part*"))


def test_several_files_killed(files: FileServer, folder: Path) -> None:
    """Files that come side by side all go on after each kill, and what is told of each never goes back."""
    contents = [noise(SIZE // 4, seed) for seed in range(6)]
    arguments = (*ARGUMENTS, "--parallel-downloads", "3")
    files.allow(0)
    service = start(*arguments, folder=folder)
    job_id = apply(service, request_for(files, "many", *contents))
    chance = random.Random(7)  # noqa: S311 - the same each time
    told: dict[str, int] = {}
    at_once = set()
    for _ in range(KILLS):
        files.allow(files.sent + chance.randrange(SIZE // 8, SIZE // 5))
        wait_until(lambda: files.sent + 4 * PIECE_BYTES > (files.budget or 0), 60)
        job = job_of(service, job_id)
        at_once.add(sum(one["state"] == "downloading" for one in job["files"]))
        now = {one["name"]: one["current_bytes"] for one in job["files"]}
        assert all(now.get(name, done) >= done for name, done in told.items())
        kill(service)
        service = start(*arguments, folder=folder)
        told = {one["name"]: one["current_bytes"] for one in job_of(service, job_id)["files"]}
    try:
        files.allow(None)
        job = finished(service, job_id)
    finally:
        kill(service)

    assert "completed" == job["state"], job
    assert max(at_once) == 3
    for number, content in enumerate(contents):
        installed = (folder / "models" / f"many-{number}.bin").read_bytes()
        assert hashlib.sha256(content).digest() == hashlib.sha256(installed).digest()
    assert files.sent <= sum(map(len, contents)) + KILLS * CHUNK_BYTES
    assert [] == list((folder / "staging").glob("*.part*"))


def test_several_files_and_one_fails(files: FileServer, folder: Path) -> None:
    """The first that fails ends the job; what the others had is not fetched again by the next one."""
    contents = [noise(SIZE // 2, seed) for seed in range(3)]
    request = request_for(files, "many", *contents)
    missing = files.files.pop("/many-2.bin")
    gate = threading.Event()

    def fail(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        if asked.method == "GET":
            gate.wait(60)
        return 404, {}, b""

    files.routes["/many-2.bin"] = fail
    files.allow(SIZE // 2)
    with served(*ARGUMENTS, folder=folder) as service:
        job_id = apply(service, request)
        arrived = SIZE // 2 - MOST_CONNECTIONS * PIECE_BYTES
        job_once(service, job_id, lambda job: job["current_bytes"] >= arrived)
        gate.set()
        failed = finished(service, job_id)
        before = files.sent
        files.files["/many-2.bin"] = missing
        files.allow(None)
        done = finished(service, apply(service, request))

    assert ("failed", "DOWNLOAD_FAILED") == (failed["state"], failed["error_reason"])
    assert failed["progress"] < 100
    assert "completed" == done["state"], done
    assert 100 == done["progress"]
    missed = sum(map(len, contents)) - before
    assert files.sent - before <= missed + 2 * MOST_CONNECTIONS * PIECE_BYTES


def test_several_files_paused(files: FileServer, folder: Path) -> None:
    """Pausing ends all of them at once, and resuming fetches what is missing."""
    contents = [noise(SIZE // 4, seed) for seed in range(5)]
    files.allow(SIZE // 2)
    with served(*ARGUMENTS, folder=folder) as service:
        job_id = apply(service, request_for(files, "many", *contents))
        arrived = SIZE // 2 - MOST_CONNECTIONS * PIECE_BYTES
        job_once(service, job_id, lambda job: job["current_bytes"] >= arrived)
        began = time.monotonic()
        paused = service.post(f"/models/jobs/{job_id}/pause")
        seconds = time.monotonic() - began
        sent = files.sent
        files.allow(None)
        files.wait_until_idle()
        between = job_of(service, job_id)
        service.post(f"/models/jobs/{job_id}/resume")
        done = finished(service, job_id)

    assert (httpx.codes.OK, "paused") == (paused.status_code, between["state"])
    assert seconds < SOON
    assert "completed" == done["state"], done
    missed = sum(map(len, contents)) - sent
    assert files.sent - sent <= missed + 2 * MOST_CONNECTIONS * PIECE_BYTES


@pytest.mark.parametrize("percent", [1, 50])
def test_cancelled_while_downloading(files: FileServer, folder: Path, percent: int) -> None:
    """Bytes stop at once, nothing is left, and the same model can be installed right after."""
    content = noise(SIZE)
    with served(*ARGUMENTS, folder=folder) as service:
        files.allow(SIZE * percent // 100)
        request = request_for(files, "m", content)
        job_id = apply(service, request)
        job_once(service, job_id, lambda job: job["current_bytes"] > 0 or percent == 1)
        wait_until(lambda: files.sent > 0)
        began = time.monotonic()
        answer = service.post(f"/models/jobs/{job_id}/cancel")
        seconds = time.monotonic() - began
        sent = files.sent
        files.allow(None)
        cancelled = job_of(service, job_id)
        left = left_of(folder, "m-")
        staged = list((folder / "staging").glob("*.*"))
        again = apply(service, request)
        done = finished(service, again)
        later = job_of(service, job_id)

    assert answer.status_code == httpx.codes.OK
    assert seconds < SOON
    assert ("cancelled", True, None) == (
        cancelled["state"],
        cancelled["cancelled"],
        cancelled["error"],
    )
    assert cancelled == later
    assert ([], []) == (left, staged)
    assert again != job_id
    assert "completed" == done["state"]
    # Of what was under way, no more than each connection's last piece came; then the whole file once.
    assert files.sent - sent <= SIZE + MOST_CONNECTIONS * PIECE_BYTES


def test_cancelled_while_verifying(files: FileServer, folder: Path) -> None:
    """A file that is there already and is being checked is given up at once, and stays as it is."""
    request = request_for(files, "m", b"small")
    size = 4 << 30
    there = folder / "models" / "m-1.bin"
    there.parent.mkdir(parents=True)
    with there.open("wb") as sparse:
        sparse.truncate(size)
    request["files"].append(
        {"filename": "m-1.bin", "uri": f"{files.url}/m-1.bin", "sha256": "0" * 64}
    )
    # The server tells its size alone.
    files.routes["/m-1.bin"] = lambda _: (200, {}, b"")
    with served(*ARGUMENTS, folder=folder) as service:
        job_id = apply(service, request)
        job_once(
            service, job_id, lambda job: any(one["state"] == "verifying" for one in job["files"])
        )
        began = time.monotonic()
        answer = service.post(f"/models/jobs/{job_id}/cancel")
        seconds = time.monotonic() - began
        job = job_of(service, job_id)

    assert answer.status_code == httpx.codes.OK, answer.text
    assert seconds < SOON
    assert "cancelled" == job["state"]
    assert size == there.stat().st_size
    assert ["m-1.bin"] == left_of(folder, "m-")


class Renaming:
    """A job that was cancelled while its files are put in place, at a step at which it stands still.

    Another job for the same waits, paused, for it to end.
    """

    def __init__(self, service: Served, files: FileServer, gate: Gate) -> None:
        self.service = service
        self.gate = gate
        request = request_for(files, "many", *(noise(10, seed) for seed in range(MANY)))
        self.job_id = apply(service, request)
        wait_until(lambda: gate.is_reached, 60)
        self.callers = ThreadPoolExecutor(1)
        self.answer = self.callers.submit(service.post, f"/models/jobs/{self.job_id}/cancel")
        # Who asks for the same gets another job once the cancellation is there.
        wait_until(lambda: apply(service, request) != self.job_id)
        self.next_id = apply(service, request)
        service.post(f"/models/jobs/{self.next_id}/pause").raise_for_status()

    def go_on(self, word: str) -> httpx.Response:
        """Let it go on, and return what whoever cancels is told."""
        assert not self.answer.done()
        self.gate.open(word)
        answer = self.answer.result(60)
        self.callers.shutdown()
        return answer


def present(folder: Path) -> tuple[int, bool]:
    """Return how many files there are of the model of many, and whether it has its configuration."""
    return len(left_of(folder, "many-")), (folder / "models" / "many.yaml").exists()


RENAMING = [
    ("journal.json.partial", 0, False),
    ("new-0", 0, False),
    (f"new-{MANY // 2}", MANY // 2, False),
    (f"new-{MANY + 1}", MANY, False),
    ("journal.json", MANY, True),
]
"""Steps of putting files in place, and what there is before each. The configuration comes last."""


@pytest.mark.parametrize("place", RENAMING)
def test_cancelled_while_renaming(
    files: FileServer, folder: Path, place: tuple[str, int, bool]
) -> None:
    """Whoever cancels as files are put in place comes too late: all of them are there, and that is told."""
    step, count, is_configured = place
    gate = Gate(folder.with_name("gate"))
    with ending(start_program(gate.program(step), *ARGUMENTS, folder=folder)) as service:
        renaming = Renaming(service, files, gate)
        meanwhile = (job_of(service, renaming.job_id)["state"], *present(folder))
        answer = renaming.go_on("go")
        job = job_of(service, renaming.job_id)
        left = present(folder)

    assert ("running", count, is_configured) == meanwhile
    assert (400, "JOB_FINISHED") == (answer.status_code, answer.json()["error"]["reason"]), job
    assert "completed" == job["state"], job
    assert (MANY, True) == left
    assert [] == list((folder / "models").glob(".localplane/*"))


@pytest.mark.parametrize("place", RENAMING)
def test_cancelled_while_renaming_fails(
    files: FileServer, folder: Path, place: tuple[str, int, bool]
) -> None:
    """If the disk fails under it, the job is cancelled and nothing is there, or all was there before; then it works."""
    step, count, is_configured = place
    gate = Gate(folder.with_name("gate"))
    with ending(start_program(gate.program(step), *ARGUMENTS, folder=folder)) as service:
        renaming = Renaming(service, files, gate)
        meanwhile = present(folder)
        answer = renaming.go_on("fail")
        job = job_of(service, renaming.job_id)
        left = present(folder)
        service.post(f"/models/jobs/{renaming.next_id}/resume").raise_for_status()
        following = finished(service, renaming.next_id)
        end = present(folder)

    assert (count, is_configured) == meanwhile
    if is_configured:
        assert (400, "completed", (MANY, True)) == (answer.status_code, job["state"], left)
    else:
        assert (200, "cancelled", (0, False)) == (answer.status_code, job["state"], left)
    assert "completed" == following["state"], following
    assert (MANY, True) == end
    assert [] == list((folder / "models").glob(".localplane/*"))


@pytest.mark.parametrize("place", RENAMING[::2])
def test_killed_while_renaming_is_cancelled(
    files: FileServer, folder: Path, place: tuple[str, int, bool]
) -> None:
    """A cancellation that nobody was told to have come through is none: after a kill the job comes to its end."""
    step, count, is_configured = place
    gate = Gate(folder.with_name("gate"))
    with ending(start_program(gate.program(step), *ARGUMENTS, folder=folder)) as service:
        renaming = Renaming(service, files, gate)
        kill(service)
        with pytest.raises(httpx.TransportError):
            renaming.answer.result(60)
        renaming.callers.shutdown()
    after_kill = present(folder)
    with served(*ARGUMENTS, folder=folder) as other:
        at_once = present(folder)
        job = finished(other, renaming.job_id)
        end = present(folder)

    assert (count, is_configured) == after_kill
    assert at_once in (
        [(MANY, True)] if step != "journal.json.partial" else [(0, False), (MANY, True)]
    )
    assert "completed" == job["state"], job
    assert (MANY, True) == end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_restarted_in_the_middle(files: FileServer, folder: Path, number: signal.Signals) -> None:
    """After a restart, however it came, the same identifier answers truly, and listing and cancelling work."""
    files.allow(SIZE // 4)
    service = start(*ARGUMENTS, folder=folder)
    running = apply(service, request_for(files, "a", noise(SIZE)))
    paused = apply(service, request_for(files, "b", noise(SIZE, 2)))
    before = job_once(service, running, lambda job: job["current_bytes"] > 0)
    service.post(f"/models/jobs/{paused}/pause")
    done = apply(service, {"id": "no-such-model"})
    finished(service, done)
    service.process.send_signal(number)
    code = service.process.wait(60)
    with served(*ARGUMENTS, folder=folder) as other:
        states = {job_id: job["state"] for job_id, job in other.get("/models/jobs").json().items()}
        at_once = job_of(other, running)
        cancelled = other.post(f"/models/jobs/{running}/cancel")
        files.allow(None)
        resumed = other.post(f"/models/jobs/{paused}/resume")
        end = finished(other, paused)
        unknown = other.get(f"/models/jobs/{uuid.uuid4()}")

    assert code == (0 if number is signal.SIGTERM else -signal.SIGKILL)
    assert {running, paused, done} == set(states)
    assert ("paused", "failed") == (states[paused], states[done])
    assert states[running] in ("queued", "running")
    assert at_once["current_bytes"] >= before["current_bytes"] or number is signal.SIGKILL
    assert (200, 200, 404) == (
        cancelled.status_code,
        resumed.status_code,
        unknown.status_code,
    )
    assert "completed" == end["state"]
    assert [] == left_of(folder, "a-")


def test_restarted_without_a_network(files: FileServer, folder: Path) -> None:
    """A service that stays off the network keeps what another one began, says why, and the next one ends it."""
    files.allow(SIZE // 4)
    content = noise(SIZE)
    request = request_for(files, "a", content)
    with served(*ARGUMENTS, folder=folder) as service:
        job_id = apply(service, request)
        before = job_once(service, job_id, lambda job: job["current_bytes"] > 0)
        service.process.terminate()
        service.process.wait(60)
    files.allow(None)
    asked = len(files.asked)
    with served(*ARGUMENTS, "--offline", folder=folder) as offline:
        left = job_once(offline, job_id, lambda job: job["state"] == "interrupted")
        again = apply(offline, request)
        still = job_once(offline, job_id, lambda job: job["runs"] > left["runs"])
        resumed = offline.post(f"/models/jobs/{job_id}/resume")
        job_once(offline, job_id, lambda job: job["state"] == "interrupted")
        other = finished(offline, apply(offline, request_for(files, "b", content)))
        assert asked == len(files.asked)
    with served(*ARGUMENTS, folder=folder) as online:
        done = finished(online, job_id)

    assert ("OFFLINE", None, False) == (left["error_reason"], left["error"], left["processed"])
    assert "--offline" in left["message"]
    assert job_id == again == still["uuid"]
    assert httpx.codes.OK == resumed.status_code
    assert ("failed", "OFFLINE") == (other["state"], other["error_reason"])
    assert left["current_bytes"] >= before["current_bytes"]
    assert ("completed", None) == (done["state"], done["error_reason"])
    assert files.sent <= SIZE + CHUNK_BYTES
    assert content == (folder / "models" / "a-0.bin").read_bytes()


def test_fifty_applies_at_once(files: FileServer, folder: Path) -> None:
    """Fifty callers, half of whom go away at once, get one job and one download, and the file is whole."""
    content = noise(SIZE)
    with served(*ARGUMENTS, folder=folder) as service:
        request = request_for(files, "m", content)
        gate = threading.Barrier(50)

        def ask(number: int) -> str:
            gate.wait()
            if number % 2:
                return apply(service, request)
            with httpx.Client() as client:
                answer = client.post(
                    f"http://{service.http}/models/apply", json=request, timeout=60
                )
                return str(answer.json()["uuid"])

        with ThreadPoolExecutor(50) as callers:
            ids = set(callers.map(ask, range(50)))
        job = finished(service, next(iter(ids)))
        listed = service.get("/models/jobs").json()

    assert 1 == len(ids) == len(listed)
    assert "completed" == job["state"], job
    assert content == (folder / "models" / "m-0.bin").read_bytes()
    assert len(content) == sum(asked.sent for asked in files.fetched("/m-0.bin"))


def test_deleted_while_it_serves(folder: Path, tiny_gguf: Path) -> None:
    """A model that is deleted while it talks is unloaded first, then gone from all places, after a restart too."""
    models = folder / "models"
    models.mkdir(parents=True)
    shutil.copy(tiny_gguf, models / "tiny.gguf")
    text = "name: tiny\nbackend: llama\ncontext_size: 2048\nparameters: {model: tiny.gguf}\n"
    (models / "tiny.yaml").write_text(text)
    arguments = (*ARGUMENTS, "--shutdown-grace", "4s")
    with served(*arguments, folder=folder) as service:
        process = service.load("tiny")
        tree = [process, *process.children(recursive=True)]
        body = {"model": "tiny", "prompt": "x", "stream": True, "temperature": 0}
        url = f"http://{service.http}/v1/completions"
        with httpx.stream("POST", url, json=body, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            job_id = service.post("/models/delete/tiny").json()["uuid"]
            for _ in lines:
                pass
        job = finished(service, job_id)
        still = alive(tree)
        again = finished(service, service.post("/models/delete/tiny").json()["uuid"])
        lists = _everywhere(service)
        assert service.process.poll() is None
    with served(*arguments, folder=folder) as other:
        later = _everywhere(other)

    assert "completed" == job["state"], job
    assert {"tiny.gguf", "tiny.yaml"} == set(job["result"]["removed"])
    assert job["result"]["freed_bytes"] >= tiny_gguf.stat().st_size
    assert [] == still
    assert "MODEL_NOT_FOUND" == again["error_reason"]
    assert "tiny" not in lists
    assert "tiny" not in later
    assert [] == left_of(folder, "tiny")


def _everywhere(service: Served) -> str:
    """Return all lists in which a model can be."""
    pages = ("/v1/models", "/api/backends", "/system")
    return " ".join(service.get(page).text for page in pages)
