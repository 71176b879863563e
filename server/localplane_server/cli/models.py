"""`localplane models`: the models of a service, and where more come from."""

from __future__ import annotations

import click

from localplane_server.cli.galleries import galleries, search_models
from localplane_server.cli.installing import install_model, plan_model, remove_model
from localplane_server.cli.jobs import jobs
from localplane_server.cli.served_models import list_served, show_model


@click.group()
def models() -> None:
    """List, search, install and remove models."""


models.add_command(list_served)
models.add_command(list_served, "list")
models.add_command(show_model)
models.add_command(search_models)
models.add_command(plan_model)
models.add_command(install_model)
models.add_command(remove_model)
models.add_command(jobs)
models.add_command(galleries)
