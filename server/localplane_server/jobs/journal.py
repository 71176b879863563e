"""What is written down of jobs, so that they survive the service."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

from localplane_server.jobs.job import Job, JobError, JobState
from localplane_server.jobs.progress import FileStage, FileState, JobProgress
from localplane_server.jobs.request_ids import RememberedKey, RequestKey
from localplane_server.state.job_records import JobRow, KeyRow

log = logging.getLogger(__name__)


class JobRecords(Protocol):
    """Where jobs are kept."""

    async def all(self) -> list[JobRow]:
        """Return all jobs, in the order of their numbers."""

    async def keys(self) -> list[KeyRow]:
        """Return all keys."""

    async def put(
        self, rows: Sequence[JobRow], keys: Sequence[KeyRow] = (), *, is_durable: bool
    ) -> None:
        """Keep jobs and keys, in place of what was there of the same."""

    async def remove(self, job_ids: Sequence[str], *, keys_before: float) -> None:
        """Forget jobs, and keys from before a time."""


class JobJournal:
    """Writes jobs down: changes of state at once and for good, progress now and then.

    What could not be written is written later: a full disk stops no job.
    """

    def __init__(self, records: JobRecords) -> None:
        self._records = records
        self._unwritten: dict[str, Job] = {}
        self._is_failing = False

    async def read(self) -> tuple[list[Job], list[RememberedKey]]:
        """Return what was written down."""
        jobs = [_job(row) for row in await self._records.all()]
        keys = [
            RememberedKey(RequestKey(row.request_id, row.fingerprint), row.job_id, _time(row.at))
            for row in await self._records.keys()
        ]
        return jobs, keys

    def note(self, job: Job) -> None:
        """Have a job written down soon."""
        self._unwritten[job.id] = job

    async def write(self, job: Job) -> None:
        """Write a job down for good; failing that, have it written down later."""
        # What was noted of it before must not come after this.
        self._unwritten[job.id] = job
        await self._write([job], is_durable=True)

    async def write_new(self, job: Job, key: RequestKey | None) -> None:
        """Write a job down for good together with its key.

        Raises:
            Exception: If that fails. Nothing is written then.
        """
        keys = [] if key is None else [_key_row(key, job.id, job.created_at)]
        await self._records.put([_row(job)], keys, is_durable=True)

    async def write_key(self, key: RequestKey, job_id: str, at: datetime) -> None:
        """Write down for good that a key led to a job.

        Raises:
            Exception: If that fails.
        """
        await self._records.put([], [_key_row(key, job_id, at)], is_durable=True)

    async def write_rest(self, *, is_durable: bool = False) -> None:
        """Write down what was noted."""
        if self._unwritten:
            await self._write(list(self._unwritten.values()), is_durable=is_durable)

    async def remove(self, job_ids: Sequence[str], *, keys_before: datetime) -> None:
        """Forget jobs, and keys from before a time."""
        for job_id in job_ids:
            self._unwritten.pop(job_id, None)
        try:
            await self._records.remove(job_ids, keys_before=keys_before.timestamp())
        except Exception:
            log.exception("cannot remove old jobs from the state file")

    async def _write(self, jobs: Sequence[Job], *, is_durable: bool) -> None:
        try:
            await self._records.put([_row(job) for job in jobs], is_durable=is_durable)
        except Exception:
            if not self._is_failing:
                log.exception("cannot write jobs to the state file; it is tried again")
            self._is_failing = True
            return
        self._is_failing = False
        for job in jobs:
            if self._unwritten.get(job.id) is job:
                del self._unwritten[job.id]


def _row(job: Job) -> JobRow:
    progress = job.progress
    return JobRow(
        id=job.id,
        number=job.number,
        kind=job.kind,
        target=job.target,
        request=_text(job.request),
        state=job.state.value,
        created_at=job.created_at.timestamp(),
        started_at=job.started_at.timestamp() if job.started_at else None,
        finished_at=job.finished_at.timestamp() if job.finished_at else None,
        runs=job.runs,
        phase=progress.phase,
        done_bytes=progress.done_bytes,
        total_bytes=progress.total_bytes,
        files=_text([(f.name, f.done_bytes, f.total_bytes, f.stage.value) for f in progress.files]),
        result=None if job.result is None else _text(job.result),
        error=_text([job.error.message, job.error.reason, job.error.metadata])
        if job.error
        else None,
    )


def _job(row: JobRow) -> Job:
    files = tuple(
        FileState(name=name, done_bytes=done, total_bytes=total, stage=FileStage(stage))
        for name, done, total, stage in orjson.loads(row.files)
    )
    return Job(
        id=row.id,
        number=row.number,
        kind=row.kind,
        target=row.target,
        request=orjson.loads(row.request),
        state=JobState(row.state),
        created_at=_time(row.created_at),
        started_at=None if row.started_at is None else _time(row.started_at),
        finished_at=None if row.finished_at is None else _time(row.finished_at),
        runs=row.runs,
        progress=JobProgress(
            phase=row.phase,
            done_bytes=row.done_bytes,
            total_bytes=row.total_bytes,
            files=files,
        ),
        result=None if row.result is None else orjson.loads(row.result),
        error=None if row.error is None else JobError(*orjson.loads(row.error)),
    )


def _key_row(key: RequestKey, job_id: str, at: datetime) -> KeyRow:
    return KeyRow(key.request_id, key.fingerprint, job_id, at.timestamp())


def _text(value: Mapping[str, Any] | Sequence[Any]) -> str:
    return orjson.dumps(value, default=_plain).decode()


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
