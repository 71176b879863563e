"""`localplane backend`: what serves the models."""

from __future__ import annotations

from collections.abc import Iterator

import click

from localplane.v1 import backend_pb2, backend_service_pb2
from localplane_server.cli.backend_lines import WatchLines, backend_rows
from localplane_server.cli.backend_log import LogPrinter
from localplane_server.cli.completion import complete_loaded_model, complete_model
from localplane_server.cli.readers import end_with_reader
from localplane_server.cli.session import ERROR, Session, client_options, rest_json
from localplane_server.cli.spinner import Spinner
from localplane_server.cli.text import UNKNOWN, facts, percent, since, size, table

model_argument = click.argument("model", shell_complete=complete_loaded_model)


@click.group()
def backend() -> None:
    """List, load, watch and stop backends."""


@backend.command("list")
@client_options
def list_backends(session: Session) -> None:
    """List the backends that run, start, stop or have failed."""
    with session.client() as client:
        answer = client.list_backends()
    session.write(answer, backend_rows(answer.backends))


@backend.command("installed")
@client_options
def list_installed(session: Session) -> None:
    """List the backends that can be used, what they lack, and what in the backends folder is broken."""
    with session.client() as client:
        answer = client.list_installed_backends()
    session.write(answer, _installed_rows(answer), field="backends")


@backend.command("load")
@click.argument("model", shell_complete=complete_model)
@click.option("--no-wait", is_flag=True, help="Answer at once, while the model loads.")
@client_options
def load(model: str, session: Session, *, no_wait: bool) -> None:
    """Load MODEL and answer when it is ready."""
    with (
        session.client() as client,
        Spinner(f"loading {model}", is_shown=not session.is_json),
    ):
        answer = client.load_model(model, wait=not no_wait)
    session.write(answer, [f"{answer.message}: {', '.join(answer.loaded) or model}"])


@backend.command("monitor")
@model_argument
@client_options
def monitor(model: str, session: Session) -> None:
    """Show the state, memory and processor time of MODEL's backend. Never loads it."""
    with session.client() as client:
        answer = client.get_backend_status(model)
    session.write(answer, _status_facts(answer))


@backend.command("watch")
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=complete_model)
@click.option(
    "--after",
    "after_revision",
    metavar="REVISION",
    default="",
    help="Go on behind this revision, as --json told it.",
)
@client_options
def watch(models: tuple[str, ...], session: Session, *, after_revision: str) -> None:
    """Show the backends of all models, or of MODEL, and every change of them, until Ctrl-C."""
    end_with_reader()
    with (
        session.client() as client,
        client.watch_backends(models=models, after_revision=after_revision) as messages,
    ):
        lines = WatchLines()
        for message in messages:
            session.write(message, lines.of(message))


@backend.command("stop")
@click.argument("model", required=False, shell_complete=complete_loaded_model)
@click.option("--all", "is_all", is_flag=True, help="Stop all backends.")
@click.option("--force", is_flag=True, help="Cut the calls in flight at once.")
@click.option(
    "--grace",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="How long calls in flight may still run. [the service's, 30]",
)
@client_options
def stop(
    model: str | None, session: Session, *, is_all: bool, force: bool, grace: float | None
) -> None:
    """Stop MODEL's backend, or all, and answer when no process of it is left."""
    if is_all == (model is not None):
        raise click.UsageError("name a model, or give --all")
    with (
        session.client() as client,
        Spinner(f"stopping {model or 'all backends'}", is_shown=not session.is_json),
    ):
        if model is None:
            all_stopped = client.shutdown_all(force=force, grace_seconds=grace)
            session.write(all_stopped, _all_stopped(all_stopped))
            if any(one.HasField("error") for one in all_stopped.backends):
                raise click.exceptions.Exit(ERROR)
            return
        answer = client.shutdown_backend(model, force=force, grace_seconds=grace)
    session.write(answer, [_stopped(model, answer)])


@backend.command("logs")
@click.argument("model", shell_complete=complete_model)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(0, 2**31 - 1),
    metavar="N",
    help="How many of the last lines to begin with. [100]",
)
@click.option(
    "--after",
    type=click.IntRange(0, 2**63 - 1),
    metavar="SEQUENCE",
    help="Begin behind the record of this number instead; 0 begins with the oldest.",
)
@click.option("--times", "-t", is_flag=True, help="Say of each line when it was written, in UTC.")
@client_options
def logs(
    model: str,
    session: Session,
    *,
    follow: bool,
    lines: int | None,
    after: int | None,
    times: bool,
) -> None:
    """Show what MODEL's backend wrote, and where its processes started and ended."""
    if lines is not None and after is not None:
        raise click.UsageError("--lines and --after exclude each other")
    printer = LogPrinter(has_times=times)
    with (
        session.client() as client,
        client.tail_backend_log(model, lines=lines, follow=follow, after_sequence=after) as records,
    ):
        for record in records:
            if session.is_json:
                session.write_json(rest_json(record))
            else:
                click.echo(printer.text(record), nl=False)
    click.echo(printer.end(), nl=False)


def _installed_rows(
    answer: backend_service_pb2.ListInstalledBackendsResponse,
) -> Iterator[str]:
    rows = [
        (
            one.name,
            backend_pb2.BackendSource.Name(one.source).removeprefix("BACKEND_SOURCE_").lower(),
            f"needs {one.missing}" if one.HasField("missing") else "ready",
            ", ".join(one.aliases) or UNKNOWN,
            one.address or one.run_file,
        )
        for one in answer.backends
    ]
    yield from table(("BACKEND", "SOURCE", "STATE", "ALIASES", "PROGRAM OR ADDRESS"), rows)
    for problem in answer.problems:
        yield from facts([(f"{problem.name}:", problem.message)])


def _status_facts(answer: backend_pb2.BackendStatus) -> list[str]:
    state = backend_pb2.MonitorState.Name(answer.state).removeprefix("MONITOR_STATE_").lower()
    own = answer.memory
    parts = ", ".join(f"{name} {size(count)}" for name, count in sorted(own.breakdown.items()))
    resident = answer.memory_info.rss if answer.HasField("memory_info") else None
    share = answer.memory_percent if answer.HasField("memory_percent") else None
    pairs = [
        ("model", answer.model),
        ("backend", answer.backend),
        ("state", state),
        ("process", str(answer.pid) if answer.HasField("pid") else UNKNOWN),
        ("memory", f"{size(resident)} resident, {percent(share)} of what there is"),
        (
            "reported",
            f"{size(own.total)}: {parts}" if answer.HasField("memory") else UNKNOWN,
        ),
        *[(device.name, _device_words(device)) for device in answer.devices],
        ("processor", percent(answer.cpu_percent if answer.HasField("cpu_percent") else None)),
        ("calls", str(answer.in_flight)),
        ("last used", since(answer.last_used if answer.HasField("last_used") else None)),
        ("restarts", str(answer.restarts)),
    ]
    return facts(pairs + [(f"no {name}", why) for name, why in sorted(answer.unknown.items())])


def _device_words(device: backend_pb2.DeviceMemory) -> str:
    used = size(device.used if device.HasField("used") else None)
    total = size(device.total if device.HasField("total") else None)
    return f"{used} of {total}"


def _stopped(model: str, answer: backend_service_pb2.ShutdownBackendResponse) -> str:
    return f"{answer.message}: {model}, {_stop_figures(answer)}"


def _all_stopped(answer: backend_service_pb2.ShutdownAllResponse) -> Iterator[str]:
    yield answer.message
    yield from facts(
        [
            (f"{one.model}:", one.error if one.HasField("error") else _stop_figures(one))
            for one in answer.backends
        ]
    )


def _stop_figures(
    stop: backend_service_pb2.ShutdownBackendResponse | backend_service_pb2.StoppedBackend,
) -> str:
    freed = size(stop.freed_bytes if stop.HasField("freed_bytes") else None)
    return f"after {stop.seconds:.1f} s; {freed} freed, {stop.cut_calls} calls cut"
