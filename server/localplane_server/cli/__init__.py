"""The command line. `main` is the program `localplane`."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass

import click
from click.shell_completion import CompletionItem

from localplane_server import __version__


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """A command that is imported once somebody calls it."""

    module: str
    """Module that defines it."""

    attribute: str
    """Its name there."""

    summary: str
    """What `localplane --help` says of it."""


COMMANDS = {
    "serve": LazyCommand(
        "localplane_server.cli.serve", "serve", "Start the service: gRPC and REST."
    ),
    "gateway": LazyCommand(
        "localplane_server.cli.gateway", "gateway", "Serve REST in front of a server elsewhere."
    ),
    "models": LazyCommand(
        "localplane_server.cli.models", "models", "List, show and install models."
    ),
    "chat": LazyCommand("localplane_server.cli.chat", "chat", "Ask a model."),
    "status": LazyCommand("localplane_server.cli.status", "status", "Show what runs."),
    "backend": LazyCommand(
        "localplane_server.cli.backend", "backend", "List, load, watch and stop backends."
    ),
    "tokens": LazyCommand(
        "localplane_server.cli.tokens", "tokens", "Show how many tokens went through the models."
    ),
    "tokenize": LazyCommand(
        "localplane_server.cli.tokenize", "tokenize", "Split text into tokens, or join them."
    ),
    "doctor": LazyCommand(
        "localplane_server.cli.doctor", "doctor", "Look for what keeps the service from working."
    ),
    "completion": LazyCommand(
        "localplane_server.cli.completion", "completion", "Teach a shell to complete."
    ),
}
"""All commands, in the order of the help."""


class LazyGroup(click.Group):
    """A group whose help imports none of its commands: gRPC and the like take a while."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        lazy = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(lazy.module), lazy.attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{lazy.module}.{lazy.attribute} is not a command")
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the commands, without importing any."""
        commands = [
            CompletionItem(name, help=lazy.summary)
            for name, lazy in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' summaries."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.summary) for name, lazy in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="localplane")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Run and manage local AI backends."""
    # Before gRPC is imported: its notes on connections that end are no news, and not in our log's form.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if os.environ.get("NO_COLOR"):
        ctx.color = False
