"""The gRPC face of jobs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from localplane.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc
from localplane_server.jobs.job import Job
from localplane_server.jobs.job_feed import JobFeed
from localplane_server.jobs.jobs import Jobs
from localplane_server.rpc.job_convert import job_to_proto, jobs_to_proto
from localplane_server.rpc.pages import page, send_next_page
from localplane_server.rpc.watches import KINDS, place_of


class JobServicer(job_service_pb2_grpc.JobServiceServicer):
    """Unpacks the request, calls the domain, packs the answer."""

    def __init__(self, jobs: Jobs, feed: JobFeed) -> None:
        self._jobs = jobs
        self._feed = feed

    async def GetJob(self, request: job_service_pb2.GetJobRequest, context: Any) -> job_pb2.Job:
        return job_to_proto(self._jobs.get(request.uuid))

    async def ListJobs(
        self, request: job_service_pb2.ListJobsRequest, context: Any
    ) -> job_service_pb2.ListJobsResponse:
        shown, token = page(
            self._jobs.all(),
            lambda job: f"{job.number:016}",
            request.page_size,
            request.page_token,
        )
        await send_next_page(context, "models/jobs", token, page_size=request.page_size)
        return await jobs_to_proto(shown, token)

    async def WatchJob(
        self, request: job_service_pb2.WatchJobRequest, context: Any
    ) -> AsyncGenerator[job_service_pb2.WatchJobResponse]:
        job_id = self._jobs.get(request.uuid).id
        batches = self._feed.watch(place_of(request, context), select=job_id.__eq__)
        async with aclosing(batches):
            async for batch in batches:
                job = batch.changed.get(job_id)
                # Asked now: while the message is sent the job may come to an end that is not told yet.
                is_last = self._feed.is_at_end(job_id)
                yield job_service_pb2.WatchJobResponse(
                    revision=str(batch.revision),
                    kind=KINDS[batch.kind],
                    job=job_to_proto(job) if job else None,
                )
                if is_last:
                    return

    async def CancelJob(
        self, request: job_service_pb2.CancelJobRequest, context: Any
    ) -> job_service_pb2.ChangeJobResponse:
        return _changed("cancelled", await self._jobs.cancel(request.uuid))

    async def PauseJob(
        self, request: job_service_pb2.PauseJobRequest, context: Any
    ) -> job_service_pb2.ChangeJobResponse:
        return _changed("paused", await self._jobs.pause(request.uuid))

    async def ResumeJob(
        self, request: job_service_pb2.ResumeJobRequest, context: Any
    ) -> job_service_pb2.ChangeJobResponse:
        return _changed("resumed", await self._jobs.resume(request.uuid))


def _changed(word: str, job: Job) -> job_service_pb2.ChangeJobResponse:
    return job_service_pb2.ChangeJobResponse(
        success=True, message=f"Operation {word}", job=job_to_proto(job)
    )
