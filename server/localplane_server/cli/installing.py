"""`localplane models install`, `remove` and `plan`: begin a job and follow it, or see what it would come to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from localplane.v1 import gallery_pb2, job_pb2
from localplane_server.cli.completion import complete_model
from localplane_server.cli.jobs import follow
from localplane_server.cli.session import Session, client_options
from localplane_server.cli.spinner import Spinner, is_terminal
from localplane_server.cli.text import UNKNOWN, facts, size


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the ways to say which model is meant; it gets the arguments of `apply_model`."""

    @functools.wraps(command)
    def run(*args: Any, model: str | None, file: Path | None, **options: Any) -> None:
        wanted = {
            "id": model or "",
            "config_file": None if file is None else _configuration(file),
            **{key: options.pop(key) for key in ("url", "config_url", "name", "variant")},
        }
        named = (model, file, wanted["url"], wanted["config_url"])
        if sum(map(bool, named)) != 1:
            raise click.UsageError("give one of NAME, --url, --config-url and --file")
        command(*args, wanted=wanted, **options)

    for option in (
        click.option("--variant", default="", help="Which build of the model."),
        click.option("--as", "name", metavar="NAME", default="", help="Name to install it as."),
        click.option(
            "--file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="File with a model's configuration, instead of NAME.",
        ),
        click.option(
            "--config-url",
            default="",
            help="URL of a model's configuration itself, instead of NAME.",
        ),
        click.option(
            "--url", default="", help="URL of a gallery's model configuration, instead of NAME."
        ),
        click.argument("model", metavar="[NAME]", required=False),
    ):
        run = option(run)
    return run


@click.command("install")
@model_options
@click.option("--no-wait", is_flag=True, help="Answer at once; the service goes on.")
@client_options
def install_model(wanted: dict[str, Any], session: Session, *, no_wait: bool) -> None:
    """Install the model NAME, or GALLERY@NAME, and follow that until it is done.

    The service does it. Ctrl-C leaves it alone, and the same command again follows it again.
    """
    with session.client() as client:
        reference = client.apply_model(**wanted)
        if no_wait:
            _tell(session, reference)
        else:
            follow(session, client, reference.uuid)


@click.command("plan")
@model_options
@client_options
def plan_model(wanted: dict[str, Any], session: Session) -> None:
    """Tell what installing the model NAME, or GALLERY@NAME, would come to, and change nothing."""
    with (
        session.client() as client,
        Spinner("looking at the files", is_shown=not session.is_json),
    ):
        plan = client.plan_model(**wanted)
    session.write(plan, _plan_lines(plan))


@click.command("remove")
@click.argument("name", shell_complete=complete_model)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--no-wait", is_flag=True, help="Answer at once; the service goes on.")
@client_options
def remove_model(name: str, session: Session, *, yes: bool, no_wait: bool) -> None:
    """Delete the model NAME: unload it, and remove its configuration and the files that no other model needs."""
    if not yes and not session.is_json and is_terminal():
        click.confirm(f"Delete {name} and its files?", abort=True, err=True)
    with session.client() as client:
        reference = client.delete_model(name)
        if no_wait:
            _tell(session, reference)
        else:
            follow(session, client, reference.uuid)


def _tell(session: Session, reference: job_pb2.JobReference) -> None:
    session.write(reference, [f"job {reference.uuid} does it"])


def _plan_lines(plan: gallery_pb2.ModelPlan) -> Iterator[str]:
    fetched = size(plan.fetch_bytes if plan.HasField("fetch_bytes") else None)
    yield from facts(
        [
            ("name", plan.name + (" (is installed)" if plan.installed else "")),
            ("to fetch", fetched),
            ("space", f"{_needed(plan)}; {size(plan.free_bytes)} are free"),
            ("backend", f"{plan.backend or UNKNOWN} ({_presence(plan)})"),
            ("memory", _memory(plan)),
            *((one.filename, _file(one)) for one in plan.files),
            *((name, "written") for name in plan.written),
        ]
    )
    if plan.HasField("fits") and not plan.fits:
        yield "There is not enough space for it."


def _needed(plan: gallery_pb2.ModelPlan) -> str:
    if not plan.HasField("needed_bytes"):
        return f"{UNKNOWN} ({plan.needed_unknown})"
    return size(plan.needed_bytes)


def _presence(plan: gallery_pb2.ModelPlan) -> str:
    if plan.missing_extra:
        return f"needs localplane[{plan.missing_extra}]"
    return _word(gallery_pb2.BackendPresence.Name(plan.backend_presence), "BACKEND_PRESENCE_")


def _memory(plan: gallery_pb2.ModelPlan) -> str:
    if not plan.HasField("memory"):
        return f"{UNKNOWN} ({plan.memory_unknown})"
    return f"{size(plan.memory.total_bytes)} with a context of {plan.memory.context_size} tokens"


def _file(one: gallery_pb2.PlannedFile) -> str:
    presence = _word(gallery_pb2.FilePresence.Name(one.presence), "FILE_PRESENCE_")
    unpacked = f", {size(one.unpacked_bytes)} unpacked" if one.HasField("unpacked_bytes") else ""
    return f"{size(one.size_bytes if one.HasField('size_bytes') else None)} ({presence}{unpacked})"


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower().replace("_", " ")


def _configuration(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.ClickException(f"cannot read {file}: {error}") from error
    if not isinstance(content, dict):
        raise click.ClickException(f"cannot read {file}: expected a model's configuration")
    return content
