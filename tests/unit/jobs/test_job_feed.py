"""Jobs, followed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from localplane_server.errors import DrainingError
from localplane_server.jobs import job_feed as module
from localplane_server.jobs.job import JobState
from localplane_server.jobs.job_feed import JobFeed
from localplane_server.jobs.progress import JobProgress
from localplane_server.watching.feed import BatchKind
from unit.jobs.test_jobs import service


async def test_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher sees what there is, each state, and progress joined; then nothing is to be told any more."""
    monkeypatch.setattr(module, "PROGRESS_SECONDS", 0.01)
    async with service(tmp_path) as one:
        job = await one.install("a")
        feed = JobFeed(one.jobs, one.bus)
        async with aclosing(feed.watch(select=job.id.__eq__)) as batches:
            first = await anext(batches)
            await one.reached(job, JobState.RUNNING)
            for done in range(50):
                one.work.reports["a"](JobProgress(done_bytes=done, total_bytes=100))
            seen = []
            async for batch in batches:
                seen.append(batch.changed[job.id])
                if seen[-1].progress.done_bytes == 49:
                    break
            is_over_early = feed.is_at_end(job.id)
            one.work.outcome("a").set_result({})
            last = (await anext(batches)).changed[job.id]

        assert BatchKind.SNAPSHOT is first.kind
        assert len(seen) <= 3
        assert JobState.COMPLETED is last.state
        assert not is_over_early
        assert feed.is_at_end(job.id)
        feed.close()
        with pytest.raises(DrainingError):
            await anext(feed.watch())


async def test_begins_with_what_is_there(tmp_path: Path) -> None:
    """Jobs of earlier services can be watched; those that are forgotten are told as gone."""
    async with service(tmp_path) as one:
        job = await one.install("a")
        await one.jobs.cancel(job.id)
    async with service(tmp_path) as other:
        feed = JobFeed(other.jobs, other.bus)
        there = feed.get(job.id)
        other.jobs._queue.remove(job.id)
        feed._look_at(job.id)
        await asyncio.sleep(0)

        assert there is not None
        assert JobState.CANCELLED is there.state
        assert feed.get(job.id) is None
        assert feed.is_at_end(job.id)
