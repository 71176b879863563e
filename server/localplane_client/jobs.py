"""Methods of the JobService."""

from __future__ import annotations

from localplane.v1 import job_pb2, job_service_pb2
from localplane_client.methods import streaming, unary


class JobMethods:
    """Following and stopping installations and deletions."""

    @unary("JobService/GetJob", job_pb2.Job)
    def get_job(self, uuid: str) -> job_service_pb2.GetJobRequest:
        """Get a job."""
        return job_service_pb2.GetJobRequest(uuid=uuid)

    @unary("JobService/ListJobs", job_service_pb2.ListJobsResponse)
    def list_jobs(
        self, *, page_size: int = 0, page_token: str = ""
    ) -> job_service_pb2.ListJobsRequest:
        """List the jobs of the last 30 days, by their identifiers."""
        return job_service_pb2.ListJobsRequest(page_size=page_size, page_token=page_token)

    @streaming("JobService/WatchJob", job_service_pb2.WatchJobResponse)
    def watch_job(self, uuid: str, *, after_revision: str = "") -> job_service_pb2.WatchJobRequest:
        """Give what a job is at, then every change of it, until it comes to its end.

        With the revision of the last message that came, a watch that was cut goes on where it was.
        """
        return job_service_pb2.WatchJobRequest(uuid=uuid, after_revision=after_revision)

    @unary("JobService/CancelJob", job_service_pb2.ChangeJobResponse)
    def cancel_job(self, uuid: str) -> job_service_pb2.CancelJobRequest:
        """End a job for good, and return when what it had fetched is thrown away."""
        return job_service_pb2.CancelJobRequest(uuid=uuid)

    @unary("JobService/PauseJob", job_service_pb2.ChangeJobResponse)
    def pause_job(self, uuid: str) -> job_service_pb2.PauseJobRequest:
        """Stop a job until somebody resumes it."""
        return job_service_pb2.PauseJobRequest(uuid=uuid)

    @unary("JobService/ResumeJob", job_service_pb2.ChangeJobResponse)
    def resume_job(self, uuid: str) -> job_service_pb2.ResumeJobRequest:
        """Let a paused job go on."""
        return job_service_pb2.ResumeJobRequest(uuid=uuid)
