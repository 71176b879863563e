"""`localplane models jobs`: what becomes of installations and deletions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import click
from google.protobuf import json_format

from localplane.v1 import job_pb2
from localplane_client import Client, LocalplaneError
from localplane_server.cli.job_progress import JobProgress, clock
from localplane_server.cli.session import (
    ERROR,
    INTERRUPTED,
    TRY_AGAIN,
    Session,
    client_options,
    rest_json,
)
from localplane_server.cli.text import UNKNOWN, facts, printable, since, size, table

SHOWN = 20
"""Jobs of the past that are listed for people, unless all are asked for."""

uuid_argument = click.argument("uuid")


@click.group("jobs")
def jobs() -> None:
    """List, show, follow and stop installations and deletions."""


@jobs.command("list")
@click.option("--all", "is_all", is_flag=True, help="Also those that ended long ago.")
@client_options
def list_jobs(session: Session, *, is_all: bool) -> None:
    """List the jobs, the latest first."""
    with session.client() as client:
        answer = client.list_jobs()
    latest = sorted(answer.jobs.values(), key=lambda job: job.created_at.ToNanoseconds())[::-1]
    session.write(answer, _rows(latest, len(latest) if is_all else SHOWN), field="jobs")


@jobs.command("show")
@uuid_argument
@client_options
def show_job(uuid: str, session: Session) -> None:
    """Show the job UUID."""
    with session.client() as client:
        job = client.get_job(uuid)
    session.write(job, _facts(job))


@jobs.command("watch")
@uuid_argument
@client_options
def watch_job(uuid: str, session: Session) -> None:
    """Follow the job UUID to its end. Ctrl-C leaves it alone."""
    with session.client() as client:
        if not session.is_json:
            follow(session, client, uuid)
            return
        with client.watch_job(uuid) as messages:
            for message in messages:
                session.write_json(rest_json(message))


@jobs.command("cancel")
@uuid_argument
@client_options
def cancel_job(uuid: str, session: Session) -> None:
    """End the job UUID for good and throw away what it has fetched."""
    with session.client() as client:
        answer = client.cancel_job(uuid)
    session.write(answer, [f"cancelled: {_what(answer.job)}"])


@jobs.command("pause")
@uuid_argument
@client_options
def pause_job(uuid: str, session: Session) -> None:
    """Stop the job UUID until somebody resumes it."""
    with session.client() as client:
        answer = client.pause_job(uuid)
    session.write(answer, [f"paused: {_what(answer.job)}"])


@jobs.command("resume")
@uuid_argument
@client_options
def resume_job(uuid: str, session: Session) -> None:
    """Let the paused job UUID go on."""
    with session.client() as client:
        answer = client.resume_job(uuid)
    session.write(answer, [f"resumed: {_what(answer.job)}"])


def follow(session: Session, client: Client, uuid: str) -> None:
    """Show a job until it stands still, then say what came of it; leave with exit code 0 only if it is done.

    After Ctrl-C, and when the service goes away, it says how the job can be found again.
    """
    job = None
    try:
        with (
            JobProgress(is_shown=not session.is_json) as progress,
            client.watch_job(uuid) as messages,
        ):
            for message in messages:
                if message.HasField("job"):
                    job = message.job
                    progress.show(job)
                    if _stands_still(job):
                        break
    except KeyboardInterrupt:
        _leave(session, uuid)
    except LocalplaneError as error:
        if job is not None and not session.is_json:
            click.echo(_way_back(uuid, "goes on when the service is there again"), err=True)
        session.fail(error)
    _finish(session, job or client.get_job(uuid))


def _leave(session: Session, uuid: str) -> NoReturn:
    if not session.is_json:
        click.echo(_way_back(uuid, "goes on without you"), err=True)
    raise click.exceptions.Exit(INTERRUPTED) from None


def _way_back(uuid: str, what: str) -> str:
    return (
        f"The job {what}.\n"
        f"  localplane models jobs watch {uuid}     follows it\n"
        f"  localplane models jobs cancel {uuid}    ends it"
    )


def _finish(session: Session, job: job_pb2.Job) -> None:
    if job.state == job_pb2.JOB_STATE_COMPLETED or _stands_still(job):
        session.write(job, _outcome(job))
        if _stands_still(job):
            # Nothing is wrong, and nothing is installed or deleted either.
            raise click.exceptions.Exit(TRY_AGAIN)
        return
    if session.is_json:
        session.write_json(rest_json(job))
    else:
        cause = printable(job.error or job.message)
        click.echo(f"{click.style('Error:', fg='red')} {_what(job)}: {cause}", err=True)
    raise click.exceptions.Exit(ERROR)


def _stands_still(job: job_pb2.Job) -> bool:
    """Return whether a job is not over and goes on only if somebody does something about it."""
    is_kept = job.state == job_pb2.JOB_STATE_INTERRUPTED and job.HasField("error_reason")
    return is_kept or job.state == job_pb2.JOB_STATE_PAUSED


def _outcome(job: job_pb2.Job) -> Iterator[str]:
    name = printable(job.gallery_element_name)
    result = json_format.MessageToDict(job.result)
    if job.state == job_pb2.JOB_STATE_PAUSED:
        yield f"paused: {_what(job)}. `localplane models jobs resume {job.uuid}` lets it go on."
    elif job.state == job_pb2.JOB_STATE_INTERRUPTED:
        cause = job.message.removeprefix("interrupted: ")
        yield printable(f"interrupted: {_what(job)}: {cause}.")
        yield "It goes on when a service starts that can do it."
    elif job.deletion:
        yield f"deleted {name}: {size(int(result.get('freed_bytes', 0)))} came back"
        for kept in result.get("kept", ()):
            yield printable(f"  kept {kept['path']}: {', '.join(kept['users'])} needs it")
    else:
        fetched = int(result.get("fetched_bytes", 0))
        how = f"{size(fetched)} fetched" if fetched else "everything was there already"
        yield f"installed {name}: {how}"


def _what(job: job_pb2.Job) -> str:
    name = printable(job.gallery_element_name)
    return f"{'deletion' if job.deletion else 'installation'} of {name}"


def _rows(latest: list[job_pb2.Job], most: int) -> Iterator[str]:
    # What is not over is shown whatever its age.
    shown = [job for place, job in enumerate(latest) if place < most or not job.processed]
    rows = [
        (
            job.uuid,
            "delete" if job.deletion else "install",
            job.gallery_element_name,
            state_name(job.state),
            f"{job.progress:.0f} %",
            since(job.created_at),
        )
        for job in shown
    ]
    headings = ("JOB", "WORK", "MODEL", "STATE", "DONE", "BEGUN")
    yield from table(headings, rows) if rows else ["no jobs"]
    if len(shown) < len(latest):
        yield f"and {len(latest) - len(shown)} older ones; --all lists them"


def _facts(job: job_pb2.Job) -> list[str]:
    return facts(
        [
            ("job", job.uuid),
            ("work", _what(job)),
            ("state", state_name(job.state)),
            ("message", job.message),
            ("done", f"{job.progress:.0f} %, {size(job.current_bytes)} of {_total(job)}"),
            ("rate", f"{size(round(job.rate))}/s" if job.HasField("rate") else UNKNOWN),
            ("left", clock(job.eta) if job.HasField("eta") else UNKNOWN),
            ("begun", since(job.created_at)),
            ("ended", since(job.finished_at if job.HasField("finished_at") else None)),
            *(
                (one.name, f"{size(one.current_bytes)} of {_total_of_file(one)}")
                for one in job.files
            ),
        ]
    )


def _total(job: job_pb2.Job) -> str:
    return size(job.total_bytes) if job.total_bytes else UNKNOWN


def _total_of_file(one: job_pb2.JobFile) -> str:
    return size(one.total_bytes if one.HasField("total_bytes") else None)


def state_name(state: job_pb2.JobState.ValueType) -> str:
    """Return the word for a state, as REST writes it."""
    return job_pb2.JobState.Name(state).removeprefix("JOB_STATE_").lower()
