"""Times a small call while all jobs of a long history are listed, again and again.

Usage: ``python bench/jobs.py [--json] [--rounds N]``. The history has as many jobs as are kept. A call of `GetVersion`
is compared with the same call while nothing else happens; 99 of 100 calls are faster than what is told.
"""

from __future__ import annotations

import asyncio
import http.client
import statistics
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import grpc
from background import Background
from programs import service
from rounds import Result, arguments, comparison, report, take_turns

from localplane.v1 import system_service_pb2, system_service_pb2_grpc
from localplane_server.jobs.job import Job, JobState, new_job_id
from localplane_server.jobs.jobs import MOST_KEPT
from localplane_server.jobs.journal import JobJournal
from localplane_server.jobs.progress import FileStage, FileState, JobProgress
from localplane_server.state.database import Database
from localplane_server.state.job_records import SqliteJobRecords

CALLS = 300
PAUSE_SECONDS = 0.005
LIMIT_MS = 50.0
PATH = "/models/jobs"


def _lists(address: str) -> Background:
    """Return what lists all jobs, again and again."""

    def work(is_over: threading.Event, has_begun: threading.Event) -> None:
        connection = http.client.HTTPConnection(address)
        while not is_over.is_set():
            connection.request("GET", PATH)
            answer = connection.getresponse()
            has_begun.set()
            answer.read()
        connection.close()

    return Background(work)


def main() -> None:
    """Compare and print."""
    options = arguments(__doc__, rounds=5)
    with tempfile.TemporaryDirectory(prefix="localplane-bench-") as folder:
        asyncio.run(_write_history(Path(folder, "state.db")))
        with service("--galleries", "[]", "--data-dir", folder) as ours:
            pairs = take_turns(
                lambda: _while_listing(ours.grpc, ours.http),
                lambda: _calls(ours.grpc),
                rounds=options.rounds,
            )
    results: list[Result] = [
        comparison(
            f"GetVersion while {MOST_KEPT} jobs are listed, p99",
            [(mine[98], other[98]) for mine, other in pairs],
            unit="ms",
            limit=LIMIT_MS,
        ),
        comparison(
            "the same, median",
            [(statistics.median(mine), statistics.median(other)) for mine, other in pairs],
            unit="ms",
        ),
    ]
    report(results, as_json=options.json)


async def _write_history(path: Path) -> None:
    now = datetime.now(UTC)
    async with Database(path) as database:
        journal = JobJournal(SqliteJobRecords(database))
        for number in range(MOST_KEPT):
            journal.note(_job(number, now))
        await journal.write_rest()


def _job(number: int, at: datetime) -> Job:
    files = tuple(
        FileState(name=f"m{number}-{n}.gguf", done_bytes=9, total_bytes=9, stage=FileStage.DONE)
        for n in range(3)
    )
    return Job(
        id=new_job_id(),
        number=number + 1,
        kind="install",
        target=f"m{number}",
        request={"name": f"m{number}"},
        state=JobState.COMPLETED,
        created_at=at,
        started_at=at,
        finished_at=at,
        runs=1,
        progress=JobProgress(phase="publishing", done_bytes=27, total_bytes=27, files=files),
        result={"name": f"m{number}", "files": [one.name for one in files], "kept": []},
    )


def _while_listing(grpc_address: str, http_address: str) -> list[float]:
    with _lists(http_address):
        return _calls(grpc_address)


def _calls(address: str) -> list[float]:
    """Return how long calls take: the hundredths below which they are."""
    request = system_service_pb2.GetVersionRequest()
    seconds = []
    with grpc.insecure_channel(address) as channel:
        stub = system_service_pb2_grpc.SystemServiceStub(channel)
        stub.GetVersion(request)
        for _ in range(CALLS):
            began = time.perf_counter()
            stub.GetVersion(request)
            seconds.append(time.perf_counter() - began)
            time.sleep(PAUSE_SECONDS)
    return [1000 * one for one in statistics.quantiles(seconds, n=100)]


if __name__ == "__main__":
    main()
