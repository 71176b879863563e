"""Jobs with a real state file: asked for, run, stopped, and taken up again by another service.

One module, longer than others: all of it is about one class, and uses the same work that does as it is told.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from localplane_server import events
from localplane_server.errors import (
    DrainingError,
    InvalidArgumentError,
    JobFinishedError,
    JobNotFoundError,
    ModelNotFoundError,
    ModelNotInGalleryError,
    OfflineError,
    RequestIdReusedError,
)
from localplane_server.jobs import jobs as module
from localplane_server.jobs.job import Job, JobState
from localplane_server.jobs.jobs import Jobs
from localplane_server.jobs.progress import FileStage, FileState, JobProgress
from localplane_server.state.database import Database
from localplane_server.state.job_records import JobRow, KeyRow, SqliteJobRecords
from unit.jobs.scripted_work import ScriptedWork


class Clock:
    """A time of day that a test moves on."""

    def __init__(self) -> None:
        self.at = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at


class Service:
    """Jobs on a state file, and what they do and tell."""

    def __init__(self, path: Path, now: Clock, parallel: int) -> None:
        self.work = ScriptedWork()
        self.moves: list[tuple[str, str]] = []
        self.bus = events.Events()
        self.bus.listen(events.JobMoved, lambda e: self.moves.append((e.target, e.state)))
        self.database = Database(path)
        self.records = FailingRecords(self.database)
        self.works = {"install": self.work, "delete": self.work}
        self.jobs = Jobs(self.records, self.works, self.bus, now=now, parallel=parallel)

    async def install(self, name: str, request_id: str = "", **more: Any) -> Job:
        return await self.jobs.submit(
            "install", name, {"name": name, **more}, request_id=request_id
        )

    async def reached(self, job: Job, state: JobState) -> Job:
        """Return a job once it is in a state."""
        await until(lambda: self.jobs.get(job.id).state is state)
        if state is JobState.RUNNING and job.kind in self.works:
            await until(lambda: job.target in self.work.at_work)
        return self.jobs.get(job.id)


class FailingRecords(SqliteJobRecords):
    """Records on a disk that can be full."""

    is_full = False

    async def put(
        self, rows: Sequence[JobRow], keys: Sequence[KeyRow] = (), *, is_durable: bool
    ) -> None:
        if self.is_full:
            raise apsw.FullError("database or disk is full")
        await super().put(rows, keys, is_durable=is_durable)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0)


@asynccontextmanager
async def service(
    folder: Path, now: Clock | None = None, *, parallel: int = 2
) -> AsyncIterator[Service]:
    one = Service(folder / "state.db", now or Clock(), parallel)
    async with one.database, one.jobs:
        yield one


async def test_completes(tmp_path: Path) -> None:
    """A job runs without anybody waiting for it, and its result and its end are kept."""
    async with service(tmp_path) as one:
        job = await one.install("a")
        one.work.outcome("a").set_result({"model": "a"})
        done = await one.reached(job, JobState.COMPLETED)

    assert {"model": "a"} == done.result
    assert done.error is None
    assert done.finished_at is not None
    assert [("a", "queued"), ("a", "running"), ("a", "completed")] == one.moves


async def test_fails_with_the_cause(tmp_path: Path) -> None:
    """Reason, message and metadata of the error stay with the job, also over a restart."""
    async with service(tmp_path) as one:
        job = await one.install("a")
        one.work.outcome("a").set_exception(ModelNotFoundError("a"))
        failed = await one.reached(job, JobState.FAILED)
    async with service(tmp_path) as other:
        kept = other.jobs.get(job.id)

    assert failed.error is not None
    assert ("MODEL_NOT_FOUND", {"model": "a"}) == (failed.error.reason, failed.error.metadata)
    assert failed == kept


async def test_unforeseen_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What nobody foresaw goes to the log, not to callers; the next job runs."""
    async with service(tmp_path, parallel=1) as one:
        job = await one.install("a")
        other = await one.install("b")
        one.work.outcome("a").set_exception(RuntimeError("secret"))
        failed = await one.reached(job, JobState.FAILED)
        await one.reached(other, JobState.RUNNING)

    assert failed.error is not None
    assert ("internal error", "INTERNAL") == (failed.error.message, failed.error.reason)
    assert "secret" in caplog.text


async def test_unknown_kind(tmp_path: Path) -> None:
    """A job that this version cannot do fails and harms nothing."""
    async with service(tmp_path) as one:
        job = await one.jobs.submit("other", "a", {})

        assert "other" in str((await one.reached(job, JobState.FAILED)).error)


async def test_fifty_at_once(tmp_path: Path) -> None:
    """Fifty who ask for the same at once get one job, which runs once."""
    async with service(tmp_path) as one:
        jobs = await asyncio.gather(*[one.install("a") for _ in range(50)])
        await one.reached(jobs[0], JobState.RUNNING)
        one.work.outcome("a").set_result({})
        await one.reached(jobs[0], JobState.COMPLETED)
        again = await one.install("a")
        await one.reached(again, JobState.RUNNING)

    assert 1 == len({job.id for job in jobs})
    assert again.id != jobs[0].id
    assert ["a", "a"] == one.work.begun


async def test_in_other_words(tmp_path: Path) -> None:
    """What comes to the same is the same job, unless something else happens to the target behind it."""
    async with service(tmp_path) as one:
        first = await one.jobs.submit("install", "a", {"name": "a"})
        same = await one.jobs.submit("install", "a", {"name": "A"}, request_id=str(uuid.uuid4()))
        other = await one.jobs.submit("install", "a", {"name": "a", "more": 1})
        behind = await one.jobs.submit("install", "a", {"name": "A"})
        deletion = await one.jobs.submit("delete", "a", {"name": "A"})

    assert first.id == same.id
    assert 4 == len({first.id, other.id, behind.id, deletion.id})


async def test_limit(tmp_path: Path) -> None:
    """No more of one kind run than may; those of another kind do not wait for them."""
    async with service(tmp_path, parallel=2) as one:
        jobs = [await one.install(name) for name in "abcd"]
        deletion = await one.jobs.submit("delete", "e", {"name": "e"})
        await one.reached(deletion, JobState.RUNNING)
        states = [one.jobs.get(job.id).state for job in jobs]
        for name in "abcde":
            one.work.outcome(name).set_result({})
        for job in jobs:
            await one.reached(job, JobState.COMPLETED)

    assert [JobState.RUNNING] * 2 + [JobState.QUEUED] * 2 == states
    assert 3 == one.work.most_at_work
    assert sorted("abcde") == sorted(one.work.begun)


async def test_one_at_a_time_on_a_target(tmp_path: Path) -> None:
    """A deletion waits for the installation before it, and another installation for both."""
    async with service(tmp_path) as one:
        first = await one.install("a")
        deletion = await one.jobs.submit("delete", "a", {"name": "a"})
        second = await one.install("a")
        for job in (first, deletion, second):
            await one.reached(job, JobState.RUNNING)
            assert 1 == len(one.work.at_work)
            one.work.outcome("a").set_result({})
            await one.reached(job, JobState.COMPLETED)

    assert 3 == len({first.id, deletion.id, second.id})


async def test_request_ids(tmp_path: Path) -> None:
    """For a day, also over a restart, a request with its identifier leads to its job and to no other."""
    now = Clock()
    key = str(uuid.uuid4())
    async with service(tmp_path, now) as one:
        job = await one.install("a", key)
        one.work.outcome("a").set_result({})
        await one.reached(job, JobState.COMPLETED)
        repeated = await one.install("a", key.upper())
        with pytest.raises(RequestIdReusedError):
            await one.install("b", key)
        with pytest.raises(RequestIdReusedError):
            await one.install("a", key, variant="x")
    now.at += timedelta(hours=23)
    async with service(tmp_path, now) as other:
        later = await other.install("a", key)
        now.at += timedelta(hours=2)
        next_day = await other.install("b", key)

    assert job.id == repeated.id == later.id
    assert next_day.id != job.id


async def test_request_id_of_twins(tmp_path: Path) -> None:
    """Whoever was given the job of another keeps it under his own identifier."""
    key = str(uuid.uuid4())
    async with service(tmp_path) as one:
        job, twin = await asyncio.gather(one.install("a"), one.install("a", key))
        one.work.outcome("a").set_result({})
        await one.reached(job, JobState.COMPLETED)
    async with service(tmp_path) as other:
        repeated = await other.install("a", key)

    assert job.id == twin.id == repeated.id


async def test_request_id_is_a_uuid(tmp_path: Path) -> None:
    """Another identifier is refused, and names the field."""
    async with service(tmp_path) as one:
        with pytest.raises(InvalidArgumentError) as caught:
            await one.install("a", "once")

    assert "request_id" == caught.value.field
    assert [] == one.work.begun


async def test_nothing_of_what_could_not_be_written(tmp_path: Path) -> None:
    """A job that cannot be written down is refused, to all who asked for it, and is not there."""
    key = str(uuid.uuid4())
    async with service(tmp_path) as one:
        one.records.is_full = True
        refused = await asyncio.gather(
            one.install("a", key), one.install("a"), return_exceptions=True
        )
        none = one.jobs.all()
        one.records.is_full = False
        job = await one.install("a", key)
        await one.reached(job, JobState.RUNNING)

    assert [apsw.FullError] * 2 == [type(error) for error in refused]
    assert [] == none
    assert ["a"] == one.work.begun


async def test_full_disk_stops_no_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What happens while nothing can be written is known, and written as soon as it can be."""
    async with service(tmp_path) as one:
        job = await one.install("a")
        await one.reached(job, JobState.RUNNING)
        one.records.is_full = True
        one.work.outcome("a").set_result({"model": "a"})
        await one.reached(job, JobState.COMPLETED)
        one.records.is_full = False
    async with service(tmp_path) as other:
        kept = other.jobs.get(job.id)

    assert JobState.COMPLETED is kept.state
    assert 1 == caplog.text.count("cannot write jobs")


async def test_cancel_running(tmp_path: Path) -> None:
    """The work ends first, then its files go, then the job is cancelled, and stays so; a new one runs."""
    async with service(tmp_path) as one:
        job = await one.install("a")
        await one.reached(job, JobState.RUNNING)
        cancelled = await one.jobs.cancel(job.id)
        after = (set(one.work.at_work), list(one.work.discarded))
        again = await one.install("a")
        await one.reached(again, JobState.RUNNING)
        with pytest.raises(JobFinishedError) as caught:
            await one.jobs.cancel(job.id)
    async with service(tmp_path) as other:
        kept = other.jobs.get(job.id)

    assert JobState.CANCELLED is cancelled.state
    assert cancelled.error is None
    assert (set(), ["a"]) == after
    assert {"job": job.id, "state": "cancelled"} == caught.value.metadata
    assert cancelled == kept


async def test_cancel_waiting_and_paused(tmp_path: Path) -> None:
    """What does not run is cancelled too, with what an earlier run had fetched; what never ran fetched nothing."""
    async with service(tmp_path, parallel=1) as one:
        paused = await one.install("a")
        await one.reached(paused, JobState.RUNNING)
        await one.jobs.pause(paused.id)
        running = await one.install("b")
        waiting = await one.install("c")
        states = [(await one.jobs.cancel(job.id)).state for job in (paused, waiting)]
        await one.reached(running, JobState.RUNNING)

    assert [JobState.CANCELLED] * 2 == states
    assert ["a"] == one.work.discarded
    assert ["a", "b"] == one.work.begun


async def test_cancel_twice_at_once(tmp_path: Path) -> None:
    """Two who cancel at the same time both succeed, and the files are thrown away once."""
    async with service(tmp_path) as one:
        job = await one.install("a")
        await one.reached(job, JobState.RUNNING)
        ended = await asyncio.gather(one.jobs.cancel(job.id), one.jobs.cancel(job.id))

    assert [JobState.CANCELLED] * 2 == [job.state for job in ended]
    assert ["a"] == one.work.discarded


async def test_cancel_too_late(tmp_path: Path) -> None:
    """Work that cannot turn back any more completes, and whoever wanted to cancel it is told."""
    async with service(tmp_path) as one:
        job = await one.install("a", turns_back=False)
        await one.reached(job, JobState.RUNNING)
        cancelling = asyncio.create_task(one.jobs.cancel(job.id))
        await asyncio.sleep(0)
        one.work.outcome("a").set_result({"model": "a"})
        with pytest.raises(JobFinishedError) as caught:
            await cancelling
        state = one.jobs.get(job.id).state

    assert JobState.COMPLETED is state
    assert "completed" == caught.value.metadata["state"]
    assert [] == one.work.discarded


async def test_cancel_outlives_its_caller(tmp_path: Path) -> None:
    """A caller who goes away does not call off what he began."""
    async with service(tmp_path) as one:
        job = await one.install("a")
        await one.reached(job, JobState.RUNNING)
        one.work.discarding = asyncio.Event()
        cancelling = asyncio.create_task(one.jobs.cancel(job.id))
        await until(lambda: not one.work.at_work)
        cancelling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelling
        again = await one.install("a")
        is_waiting = one.jobs.get(again.id).state is JobState.QUEUED
        one.work.discarding.set()
        await one.reached(job, JobState.CANCELLED)
        await one.reached(again, JobState.RUNNING)

    assert is_waiting
    assert again.id != job.id


async def test_cancelled_though_not_thrown_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Files that cannot be removed do not keep a job from being cancelled."""
    async with service(tmp_path) as one:
        one.work.discard_error = OSError("read-only")
        job = await one.install("a")
        await one.reached(job, JobState.RUNNING)

        assert JobState.CANCELLED is (await one.jobs.cancel(job.id)).state
    assert "read-only" in caplog.text


async def test_pause_and_resume(tmp_path: Path) -> None:
    """A paused job keeps its files, stays paused over a restart, and goes on when somebody says so."""
    async with service(tmp_path) as one:
        job = await one.install("a")
        await one.reached(job, JobState.RUNNING)
        paused = await one.jobs.pause(job.id)
        again = await one.jobs.pause(job.id)
    async with service(tmp_path) as other:
        kept = other.jobs.get(job.id)
        await other.jobs.resume(job.id)
        running = await other.reached(job, JobState.RUNNING)
        same = await other.jobs.resume(job.id)

    assert JobState.PAUSED is paused.state is again.state is kept.state
    assert [] == one.work.discarded
    assert 2 == running.runs == same.runs
    assert JobState.RUNNING is same.state


async def test_resume_while_pausing(tmp_path: Path) -> None:
    """Who resumes a job that is still on its way to a pause gets it running again."""
    async with service(tmp_path) as one:
        job = await one.install("a")
        await one.reached(job, JobState.RUNNING)
        pausing = asyncio.create_task(one.jobs.pause(job.id))
        await asyncio.sleep(0)
        await one.jobs.resume(job.id)
        await one.reached(job, JobState.RUNNING)
        await pausing
        one.work.outcome("a").set_result({})

    assert ["a", "a"] == one.work.begun


async def test_cancel_while_pausing(tmp_path: Path) -> None:
    """Cancelling wins over pausing."""
    async with service(tmp_path) as one:
        job = await one.install("a")
        await one.reached(job, JobState.RUNNING)
        pausing = asyncio.create_task(one.jobs.pause(job.id))
        await asyncio.sleep(0)
        cancelled = await one.jobs.cancel(job.id)
        with pytest.raises(JobFinishedError):
            await pausing

    assert JobState.CANCELLED is cancelled.state


async def test_asked_for_while_paused(tmp_path: Path) -> None:
    """Who asks for what is paused gets that job, and it goes on."""
    async with service(tmp_path) as one:
        job = await one.install("a")
        await one.jobs.pause(job.id)
        again = await one.install("a")
        await one.reached(job, JobState.RUNNING)

    assert job.id == again.id


async def test_asked_for_while_pausing(tmp_path: Path) -> None:
    """Asking again for what is just being paused lets it go on: whoever asked last wants it."""
    async with service(tmp_path) as one:
        job = await one.install("a")
        await one.reached(job, JobState.RUNNING)
        pausing = asyncio.create_task(one.jobs.pause(job.id))
        await asyncio.sleep(0)
        again = await one.install("a")
        await one.reached(job, JobState.RUNNING)
        await pausing

    assert job.id == again.id
    assert ["a", "a"] == one.work.begun


async def test_finished_is_finished(tmp_path: Path) -> None:
    """Nothing can be done to a job that came to its end."""
    async with service(tmp_path) as one:
        job = await one.install("a")
        one.work.outcome("a").set_result({})
        await one.reached(job, JobState.COMPLETED)
        for method in (one.jobs.cancel, one.jobs.pause, one.jobs.resume):
            with pytest.raises(JobFinishedError):
                await method(job.id)


async def test_unknown_job(tmp_path: Path) -> None:
    """Identifiers of no job, and those that cannot be one, are not found."""
    async with service(tmp_path) as one:
        for job_id in (str(uuid.uuid4()), "", "../x", "\x00"):
            for method in (one.jobs.cancel, one.jobs.pause, one.jobs.resume):
                with pytest.raises(JobNotFoundError):
                    await method(job_id)
            with pytest.raises(JobNotFoundError):
                one.jobs.get(job_id)


async def test_stop_interrupts(tmp_path: Path) -> None:
    """What runs when the service stops is interrupted, then goes on in order when it is there again."""
    async with service(tmp_path, parallel=1) as one:
        jobs = [await one.install(name) for name in "abc"]
        await one.reached(jobs[0], JobState.RUNNING)
        await one.jobs.pause(jobs[1].id)
    ends = [one.jobs.get(job.id).state for job in jobs]
    with pytest.raises(DrainingError):
        await one.install("d")
    async with service(tmp_path, parallel=1) as other:
        await other.reached(jobs[0], JobState.RUNNING)
        other.work.outcome("a").set_result({})
        await other.reached(jobs[0], JobState.COMPLETED)
        await other.reached(jobs[2], JobState.RUNNING)
        paused = other.jobs.get(jobs[1].id)

    assert [JobState.INTERRUPTED, JobState.PAUSED, JobState.QUEUED] == ends
    assert ["a", "c"] == other.work.begun
    assert JobState.PAUSED is paused.state


async def test_left_for_later(tmp_path: Path) -> None:
    """What an earlier service took and this one may not fetch waits for one that may; what this one took fails."""
    async with service(tmp_path, parallel=1) as one:
        running = await one.install("a")
        waiting = await one.install("b")
        await one.reached(running, JobState.RUNNING)
    async with service(tmp_path) as offline:
        own = await offline.install("c")
        for job in (running, waiting, own):
            await offline.reached(job, JobState.RUNNING)
            offline.work.outcome(job.target).set_exception(OfflineError("https://host/x"))
        failed = await offline.reached(own, JobState.FAILED)
        left = [await offline.reached(job, JobState.INTERRUPTED) for job in (running, waiting)]
        assert left == [offline.jobs.get(job.id) for job in left]
        again = await offline.install("a")
        resumed = await offline.jobs.resume(waiting.id)
        await offline.reached(running, JobState.RUNNING)
        offline.work.outcome("a").set_exception(OfflineError("https://host/x"))
        await offline.reached(running, JobState.INTERRUPTED)
        await offline.reached(waiting, JobState.RUNNING)
        offline.work.outcome("b").set_exception(
            ModelNotInGalleryError("b", "a gallery", is_offline=True)
        )
        kept = await offline.reached(waiting, JobState.INTERRUPTED)
    async with service(tmp_path) as online:
        ran = [await online.reached(job, JobState.RUNNING) for job in (running, waiting)]
        online.work.outcome("a").set_result({})
        online.work.outcome("b").set_exception(ModelNotInGalleryError("b"))
        await online.reached(running, JobState.COMPLETED)
        await online.reached(waiting, JobState.FAILED)
        assert JobState.FAILED is online.jobs.get(own.id).state

    assert failed.error is not None
    assert "OFFLINE" == failed.error.reason
    assert ["OFFLINE", "OFFLINE"] == [job.error.reason for job in left if job.error]
    assert running.id == again.id
    assert resumed.error is None
    assert "MODEL_NOT_IN_GALLERY" == (kept.error.reason if kept.error else "")
    assert [None, None] == [job.error for job in ran]


async def test_left_for_later_and_stopped(tmp_path: Path) -> None:
    """What waits for a service that may fetch it can be paused and cancelled meanwhile."""
    async with service(tmp_path) as one:
        jobs = [await one.install(name) for name in "ab"]
    async with service(tmp_path) as offline:
        for job in jobs:
            await offline.reached(job, JobState.RUNNING)
            offline.work.outcome(job.target).set_exception(OfflineError("https://host/x"))
            await offline.reached(job, JobState.INTERRUPTED)
        paused = await offline.jobs.pause(jobs[0].id)
        cancelled = await offline.jobs.cancel(jobs[1].id)

    assert (JobState.PAUSED, None) == (paused.state, paused.error)
    assert (JobState.CANCELLED, None) == (cancelled.state, cancelled.error)
    assert ["b"] == offline.work.discarded


async def test_sudden_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that ends without a word leaves jobs that another one takes up, with their progress."""
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.0)
    files = (FileState(name="f", done_bytes=7, total_bytes=10, stage=FileStage.DOWNLOADING),)
    async with service(tmp_path) as one:
        job = await one.install("a")
        await one.reached(job, JobState.RUNNING)
        one.work.reports["a"](
            JobProgress(phase="downloading", done_bytes=7, total_bytes=10, files=files)
        )
        writing = asyncio.create_task(one.jobs.run())
        await until(lambda: not one.jobs._journal._unwritten)
        writing.cancel()
        # From now on it is as if it were dead: it changes nothing any more.
        one.records.is_full = True
        async with service(tmp_path) as other:
            running = await other.reached(job, JobState.RUNNING)
            other.work.reports["a"](JobProgress(phase="resolving"))
            resumed = other.jobs.get(job.id)

    assert 2 == running.runs
    assert {"a": False} == one.work.is_again
    assert {"a": True} == other.work.is_again
    assert (7, 10, files) == (
        running.progress.done_bytes,
        running.progress.total_bytes,
        running.progress.files,
    )
    assert 7 == resumed.progress.done_bytes


async def test_progress(tmp_path: Path) -> None:
    """It only grows, bytes are told once, and the last word of work that was stopped is not heard."""
    async with service(tmp_path) as one:
        fetched: list[int] = []
        one.bus.listen(events.JobFetched, lambda e: fetched.append(e.bytes_count))
        job = await one.install("a")
        await one.reached(job, JobState.RUNNING)
        report = one.work.reports["a"]
        for done in (10, 5, 30):
            report(JobProgress(phase="downloading", done_bytes=done, total_bytes=100))
        seen = one.jobs.get(job.id)
        paused = await one.jobs.pause(job.id)
        report(JobProgress(phase="downloading", done_bytes=99, total_bytes=100))
        after = one.jobs.get(job.id)

    assert 30 == seen.progress.done_bytes
    assert seen.rate is not None
    assert [10, 20] == fetched
    assert (30, None) == (paused.progress.done_bytes, paused.rate)
    assert paused == after


async def test_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are forgotten a month after their end, or when there are too many; what is not finished stays."""
    now = Clock()
    async with service(tmp_path, now) as one:
        waits = await one.install("waits")
        await one.jobs.pause(waits.id)
        for name in "ab":
            job = await one.install(name)
            one.work.outcome(name).set_result({})
            await one.reached(job, JobState.COMPLETED)
            now.at += timedelta(days=20)
    async with service(tmp_path, now) as other:
        kept = [job.target for job in other.jobs.all()]
        c = await other.install("c")
        other.work.outcome("c").set_result({})
        await other.reached(c, JobState.COMPLETED)
    monkeypatch.setattr(module, "MOST_KEPT", 1)
    async with service(tmp_path, now) as last:
        fewer = [job.target for job in last.jobs.all()]
    async with service(tmp_path, now) as again:
        still = [job.target for job in again.jobs.all()]

    assert ["waits", "b"] == kept
    assert ["waits", "c"] == fewer == still
