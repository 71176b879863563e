"""Jobs in LocalAI's words."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from localplane.v1 import job_pb2
from localplane_server.jobs.job import Job, JobError, JobState
from localplane_server.jobs.progress import FileStage, FileState, JobProgress
from localplane_server.rpc.job_convert import (
    SLICE,
    STAGES,
    STATES,
    job_to_proto,
    jobs_to_proto,
    size_words,
)

AT = datetime(2030, 1, 1, tzinfo=UTC)
JOB = Job(id="j", number=1, kind="install", target="m", request={}, created_at=AT)
FILE = FileState(name="m.gguf", done_bytes=512, total_bytes=2048, stage=FileStage.DOWNLOADING)
DOWNLOADING = JobProgress(
    phase="downloading", done_bytes=512, total_bytes=2048, files=(FILE, FileState(name="b"))
)


PUBLISHING = JobProgress(phase="publishing", done_bytes=2048, total_bytes=2048)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (2**31, "2.0 GiB"),
        (3 * 2**50, "3.0 PiB"),
        (2**63, "8.0 EiB"),
    ],
)
def test_sizes(count: int, words: str) -> None:
    """Steps are of 1024, with one decimal."""
    assert words == size_words(count)


@pytest.mark.parametrize(
    ("changes", "message", "phase", "percent"),
    [
        ({}, "queued", "queued", 0),
        ({"state": JobState.RUNNING}, "processing model: m", "running", 0),
        (
            {"state": JobState.RUNNING, "progress": DOWNLOADING},
            "processing file: m.gguf. Total: 2.0 KiB. Current: 512 B",
            "downloading",
            25,
        ),
        (
            {"state": JobState.RUNNING, "progress": replace(DOWNLOADING, total_bytes=None)},
            "processing file: m.gguf. Total: unknown. Current: 512 B",
            "downloading",
            0,
        ),
        (
            {"state": JobState.RUNNING, "progress": PUBLISHING},
            "processing model: m",
            "publishing",
            99,
        ),
        ({"state": JobState.FAILED, "progress": PUBLISHING}, "failed", "failed", 99),
        ({"state": JobState.COMPLETED, "progress": PUBLISHING}, "completed", "completed", 100),
        ({"state": JobState.PAUSED, "progress": DOWNLOADING}, "paused", "paused", 25),
        ({"state": JobState.INTERRUPTED}, "interrupted", "interrupted", 0),
        ({"state": JobState.CANCELLED, "progress": DOWNLOADING}, "cancelled", "cancelled", 25),
        ({"state": JobState.COMPLETED}, "completed", "completed", 100),
        (
            {"state": JobState.FAILED, "error": JobError("no such model", "R")},
            "error: no such model",
            "failed",
            0,
        ),
    ],
)
def test_words(changes: dict[str, Any], message: str, phase: str, percent: float) -> None:
    """What a job does is told in the words that LocalAI's clients look for."""
    told = job_to_proto(replace(JOB, **changes))

    assert (message, phase, percent) == (told.message, told.phase, told.progress)
    assert told.processed == (told.state in (5, 6, 7))
    assert told.cancellable != told.processed
    assert told.cancelled == (phase == "cancelled")


def test_figures() -> None:
    """Sizes, rate and the rest of the time are numbers, and words beside them."""
    job = replace(JOB, state=JobState.RUNNING, progress=DOWNLOADING, rate=512.0)
    told = job_to_proto(job)

    assert (512, 2048, "512 B", "2.0 KiB") == (
        told.current_bytes,
        told.total_bytes,
        told.downloaded_size,
        told.file_size,
    )
    assert (512.0, 3.0, "m.gguf") == (told.rate, told.eta, told.file_name)
    assert [("m.gguf", 512, True), ("b", 0, False)] == [
        (one.name, one.current_bytes, one.HasField("total_bytes")) for one in told.files
    ]


def test_nothing_known() -> None:
    """What is not known is not there."""
    told = job_to_proto(JOB)

    for field in ("error", "error_reason", "rate", "eta", "result", "started_at", "finished_at"):
        assert not told.HasField(field)
    assert ("", "") == (told.file_size, told.downloaded_size)


def test_error() -> None:
    """Why it failed is told in words and for programs."""
    error = JobError("no such model", "MODEL_NOT_IN_GALLERY", {"model": "m"})
    told = job_to_proto(replace(JOB, state=JobState.FAILED, error=error))

    assert ("no such model", "MODEL_NOT_IN_GALLERY") == (told.error, told.error_reason)
    assert {"model": "m"} == dict(told.error_metadata)


def test_kept_from_going_on() -> None:
    """What keeps a job from going on is told, and is no failure to whoever looks for one."""
    error = JobError("--offline is set", "OFFLINE", {"source": "s"})
    told = job_to_proto(replace(JOB, state=JobState.INTERRUPTED, error=error))

    assert ("interrupted: --offline is set", "OFFLINE") == (told.message, told.error_reason)
    assert {"source": "s"} == dict(told.error_metadata)
    assert not told.HasField("error")
    assert not told.processed


async def test_many() -> None:
    """Whoever has something else to do does it while thousands of jobs are listed."""
    jobs = [replace(JOB, id=f"id-{number}") for number in range(10 * SLICE)]
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    listed = await jobs_to_proto(jobs, "next")
    task.cancel()

    assert turns >= 10
    assert "next" == listed.next_page_token
    assert {job.id: job_to_proto(job) for job in jobs} == dict(listed.jobs)


@pytest.mark.parametrize("kind", ["install", "delete"])
def test_names(kind: str) -> None:
    """The model has both names of LocalAI, and in the end that under which it is installed."""
    before = job_to_proto(replace(JOB, kind=kind))
    after = job_to_proto(replace(JOB, kind=kind, state=JobState.COMPLETED, result={"name": "M"}))

    assert (kind == "delete") is before.deletion is after.deletion
    assert ["m", "M"] == [one.gallery_model_name for one in (before, after)]
    assert ["m", "M"] == [one.gallery_element_name for one in (before, after)]
    assert {"name": "M"} == dict(after.result)


def test_all_are_known() -> None:
    """Every state and every stage has its word."""
    assert set(JobState) == set(STATES)
    assert set(FileStage) == set(STAGES)
    assert {*job_pb2.JobState.values()} == {0, *STATES.values()}
    assert {*job_pb2.JobFileState.values()} == {0, *STAGES.values()}
