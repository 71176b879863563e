"""`localplane models served` and `show`: the models of a running service."""

from __future__ import annotations

from collections.abc import Iterator

import click

from localplane.v1 import model_pb2
from localplane_client import Client, NotFoundError
from localplane_server.cli.backend_lines import state_name
from localplane_server.cli.completion import complete_model
from localplane_server.cli.session import Session, client_options
from localplane_server.cli.text import UNKNOWN, facts, size, table


@click.command("served")
@click.option(
    "--filter", "expression", metavar="RE", default="", help="Part of the name, as RE2 has it."
)
@click.option("--all", "is_all", is_flag=True, help="Also the files that a configuration uses.")
@client_options
def list_served(expression: str, session: Session, *, is_all: bool) -> None:
    """List the models that a service serves."""
    with session.client() as client:
        answer = client.list_models(filter=expression, exclude_configured=not is_all)
        session.write(answer, _rows(client, [entry.id for entry in answer.data]))


@click.command("show")
@click.argument("name", shell_complete=complete_model)
@client_options
def show_model(name: str, session: Session) -> None:
    """Show the model NAME: its name, alias or file name."""
    with session.client() as client:
        model = client.get_model(name)
    session.write(model, _facts(model))


def _rows(client: Client, names: list[str]) -> Iterator[str]:
    models = [model for name in names if (model := _model(client, name)) is not None]
    rows = [
        (model.name, model.backend or UNKNOWN, state_name(model.state), _size(model))
        for model in models
    ]
    yield from table(("MODEL", "BACKEND", "STATE", "SIZE"), rows) if rows else ["no models"]


def _model(client: Client, name: str) -> model_pb2.Model | None:
    try:
        return client.get_model(name)
    except NotFoundError:
        return None  # its file went since the list was made


def _facts(model: model_pb2.Model) -> list[str]:
    given = {
        "context size": str(model.context_size) if model.HasField("context_size") else "",
        "threads": str(model.threads) if model.HasField("threads") else "",
        "f16": str(model.f16).lower() if model.HasField("f16") else "",
        "aliases": ", ".join(model.aliases),
        "options": ", ".join(model.options),
        "description": model.description,
    }
    return facts(
        [
            ("name", model.name),
            ("backend", model.backend or UNKNOWN),
            ("state", state_name(model.state)),
            ("file", f"{model.file or UNKNOWN} ({_size(model)})"),
            ("configuration", model.config_file or "none"),
            ("embeddings", "yes" if model.embeddings else "no"),
            *((name, value) for name, value in given.items() if value),
        ]
    )


def _size(model: model_pb2.Model) -> str:
    return size(model.size_bytes if model.HasField("size_bytes") else None)
