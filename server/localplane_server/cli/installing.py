"""`localplane models install` and `remove`: begin a job and follow it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

from localplane.v1 import job_pb2
from localplane_server.cli.completion import complete_model
from localplane_server.cli.jobs import follow
from localplane_server.cli.session import Session, client_options
from localplane_server.cli.spinner import is_terminal


@click.command("install")
@click.argument("model", metavar="[NAME]", required=False)
@click.option("--url", default="", help="URL of a gallery's model configuration, instead of NAME.")
@click.option(
    "--config-url", default="", help="URL of a model's configuration itself, instead of NAME."
)
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a model's configuration, instead of NAME.",
)
@click.option("--as", "name", metavar="NAME", default="", help="Name to install it as.")
@click.option("--variant", default="", help="Which build of the model.")
@click.option("--no-wait", is_flag=True, help="Answer at once; the service goes on.")
@client_options
def install_model(
    model: str | None,
    session: Session,
    *,
    url: str,
    config_url: str,
    file: Path | None,
    name: str,
    variant: str,
    no_wait: bool,
) -> None:
    """Install the model NAME, or GALLERY@NAME, and follow that until it is done.

    The service does it. Ctrl-C leaves it alone, and the same command again follows it again.
    """
    if sum(map(bool, (model, url, config_url, file))) != 1:
        raise click.UsageError("give one of NAME, --url, --config-url and --file")
    config_file = None if file is None else _configuration(file)
    with session.client() as client:
        reference = client.apply_model(
            model or "",
            url=url,
            config_url=config_url,
            config_file=config_file,
            name=name,
            variant=variant,
        )
        if no_wait:
            _tell(session, reference)
        else:
            follow(session, client, reference.uuid)


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


def _configuration(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise click.ClickException(f"cannot read {file}: {error}") from error
    if not isinstance(content, dict):
        raise click.ClickException(f"cannot read {file}: expected a model's configuration")
    return content
