"""Jobs to protobuf, in LocalAI's words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from google.protobuf.struct_pb2 import Struct

from localplane.v1 import job_pb2, job_service_pb2
from localplane_server.gallery.installs.works import DELETE
from localplane_server.jobs.job import Job, JobState
from localplane_server.jobs.progress import FileStage, FileState, eta_seconds
from localplane_server.rpc.convert import timestamp

STATES = {
    JobState.QUEUED: job_pb2.JOB_STATE_QUEUED,
    JobState.RUNNING: job_pb2.JOB_STATE_RUNNING,
    JobState.PAUSED: job_pb2.JOB_STATE_PAUSED,
    JobState.INTERRUPTED: job_pb2.JOB_STATE_INTERRUPTED,
    JobState.CANCELLED: job_pb2.JOB_STATE_CANCELLED,
    JobState.FAILED: job_pb2.JOB_STATE_FAILED,
    JobState.COMPLETED: job_pb2.JOB_STATE_COMPLETED,
}
STAGES = {
    FileStage.QUEUED: job_pb2.JOB_FILE_STATE_QUEUED,
    FileStage.DOWNLOADING: job_pb2.JOB_FILE_STATE_DOWNLOADING,
    FileStage.VERIFYING: job_pb2.JOB_FILE_STATE_VERIFYING,
    FileStage.CONVERTING: job_pb2.JOB_FILE_STATE_CONVERTING,
    FileStage.UNPACKING: job_pb2.JOB_FILE_STATE_UNPACKING,
    FileStage.DONE: job_pb2.JOB_FILE_STATE_DONE,
}
WHOLE_PERCENT = 100.0
SLICE = 16
"""Jobs that are turned into messages at once: a millisecond's work."""


def job_to_proto(job: Job) -> job_pb2.Job:
    """Return a job as a message."""
    progress = job.progress
    name = job_model(job)
    message = job_pb2.Job(
        deletion=job.kind == DELETE,
        file_name=progress.current_file if job.state is JobState.RUNNING else "",
        error=job.error.message if job.error and job.state is JobState.FAILED else None,
        processed=job.state.is_finished,
        message=_words(job),
        progress=WHOLE_PERCENT if job.state is JobState.COMPLETED else progress.percent,
        phase=(progress.phase if job.state is JobState.RUNNING else "") or job.state.value,
        current_bytes=progress.done_bytes,
        total_bytes=progress.total_bytes or 0,
        file_size="" if progress.total_bytes is None else size_words(progress.total_bytes),
        downloaded_size="" if progress.total_bytes is None else size_words(progress.done_bytes),
        gallery_model_name=name,
        gallery_element_name=name,
        cancelled=job.state is JobState.CANCELLED,
        cancellable=not job.state.is_finished,
        uuid=job.id,
        state=STATES[job.state],
        error_reason=job.error.reason if job.error else None,
        error_metadata=job.error.metadata if job.error else None,
        rate=job.rate,
        eta=eta_seconds(progress, job.rate),
        files=[_file(one) for one in progress.files],
        created_at=timestamp(job.created_at),
        started_at=timestamp(job.started_at),
        finished_at=timestamp(job.finished_at),
        runs=job.runs,
    )
    if job.result is not None:
        result = Struct()
        result.update(dict(job.result))
        message.result.CopyFrom(result)
    return message


async def jobs_to_proto(
    jobs: Iterable[Job], next_page_token: str
) -> job_service_pb2.ListJobsResponse:
    """Return a page of jobs as a message. There may be thousands: others have their turn in between."""
    response = job_service_pb2.ListJobsResponse(next_page_token=next_page_token)
    for number, job in enumerate(jobs, start=1):
        response.jobs[job.id].CopyFrom(job_to_proto(job))
        if number % SLICE == 0:
            await asyncio.sleep(0)
    return response


def size_words(count: int) -> str:
    """Return a number of bytes in LocalAI's words: `512 B`, `1.5 KiB`."""
    if count < 1024:  # noqa: PLR2004 - how many make one of the next
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        value /= 1024
        if value < 1024:  # noqa: PLR2004 - the same
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} EiB"


def job_model(job: Job) -> str:
    """Return the name of the model that a job is about: as it is known in the end, else as it was asked for."""
    found = (job.result or {}).get("name") or job.request.get("name")
    if not found:
        found = str(job.request.get("id", "")).rpartition("@")[2]
    return str(found) or job.target


def _words(job: Job) -> str:
    progress = job.progress
    if job.error is not None:
        # Of one that waits for better days nobody is to think that it failed.
        word = "error" if job.state is JobState.FAILED else job.state.value
        return f"{word}: {job.error.message}"
    if job.state is not JobState.RUNNING:
        return str(job.state.value)
    if not progress.current_file:
        return f"processing model: {job_model(job)}"
    total = "unknown" if progress.total_bytes is None else size_words(progress.total_bytes)
    return (
        f"processing file: {progress.current_file}."
        f" Total: {total}. Current: {size_words(progress.done_bytes)}"
    )


def _file(one: FileState) -> job_pb2.JobFile:
    return job_pb2.JobFile(
        name=one.name,
        current_bytes=one.done_bytes,
        total_bytes=one.total_bytes,
        state=STAGES[one.stage],
    )
