"""`localplane status`: what runs."""

from __future__ import annotations

import click

from localplane_server.cli.backend_lines import backend_rows
from localplane_server.cli.live_status import follow
from localplane_server.cli.service_state import ServiceState
from localplane_server.cli.session import TRY_AGAIN, Session, client_options, rest_json


@click.command()
@click.option("--watch", "-w", "is_live", is_flag=True, help="Show every change, until Ctrl-C.")
@client_options
def status(session: Session, *, is_live: bool) -> None:
    """Show the service and its backends.

    Exit code 6 when the service answers and is not ready.
    """
    if is_live:
        follow(session)
    else:
        _show(session)


def _show(session: Session) -> None:
    with session.client() as client:
        state = ServiceState.ask(client, session.target)
        models = client.list_models()
        system = client.get_system()
        backends = client.list_backends()
    if session.is_json:
        session.write_json(
            {
                **state.document(),
                "system": rest_json(system),
                "models": rest_json(models, field="data"),
                "backends": rest_json(backends, field="backends"),
            }
        )
    else:
        click.echo(state.line())
        click.echo(f"models: {len(models.data)}, loaded: {len(system.loaded_models)}")
        if backends.backends:
            click.echo()
            for line in backend_rows(backends.backends):
                click.echo(line)
    if state.cause is not None:
        raise click.exceptions.Exit(TRY_AGAIN)
