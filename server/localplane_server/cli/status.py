"""`localplane status`: what runs."""

from __future__ import annotations

from collections.abc import Iterator

import click

from localplane.v1 import backend_service_pb2
from localplane_client import Client, UnavailableError
from localplane_server.cli.backend import backend_rows
from localplane_server.cli.session import TRY_AGAIN, Session, client_options, rest_json


@click.command()
@client_options
def status(session: Session) -> None:
    """Show the service and its backends.

    Exit code 6 when the service answers and is not ready.
    """
    with session.client() as client:
        version = client.get_version().version
        cause = _cause_against(client)
        models = client.list_models()
        system = client.get_system()
        backends = client.list_backends()
    if session.is_json:
        session.write_json(
            {
                "grpc": session.target,
                "version": version,
                "ready": cause is None,
                "message": cause,
                "system": rest_json(system),
                "models": rest_json(models, field="data"),
                "backends": rest_json(backends, field="backends"),
            }
        )
    else:
        state = click.style("ready", fg="green") if cause is None else click.style(cause, fg="red")
        click.echo(f"Localplane {version} at {session.target}: {state}")
        click.echo(f"models: {len(models.data)}, loaded: {len(system.loaded_models)}")
        for line in _running(backends):
            click.echo(line)
    if cause is not None:
        raise click.exceptions.Exit(TRY_AGAIN)


def _cause_against(client: Client) -> str | None:
    """Return why the service is not ready; None when it is."""
    try:
        client.ready()
    except UnavailableError as error:
        if error.reason != "NOT_READY":
            raise
        return error.message
    return None


def _running(backends: backend_service_pb2.ListBackendsResponse) -> Iterator[str]:
    if backends.backends:
        yield ""
        yield from backend_rows(backends)
