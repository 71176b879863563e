"""`localplane completion`: the script that teaches a shell, and the names of models that it offers."""

from __future__ import annotations

import os
from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

PATIENCE_SECONDS = 0.5
"""How long a shell may wait for names. Who presses the tab key must not notice that a service is slow or missing."""

VARIABLE = "_LOCALPLANE_COMPLETE"
"""The variable in which the script tells the program to complete. Click derives it from the program's name."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what teaches SHELL to complete commands, options and names of models.

    \b
    bash: localplane completion bash > ~/.local/share/bash-completion/completions/localplane
    zsh:  localplane completion zsh > "${fpath[1]}/_localplane"
    fish: localplane completion fish > ~/.config/fish/completions/localplane.fish
    """  # noqa: D301 - click's sign for lines that stay as they are
    from localplane_server.cli import main  # noqa: PLC0415 - it imports this module

    maker = get_completion_class(shell)
    if maker is None:
        raise click.ClickException(f"cannot complete in {shell}: this version of click does not")
    click.echo(maker(main, {}, "localplane", VARIABLE).source())


def complete_model(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the models that a running service serves; none when there is none."""
    return _offer(_names(ctx, is_loaded=False), incomplete)


def complete_loaded_model(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the models that a running service has a backend for; none when there is none."""
    return _offer(_names(ctx, is_loaded=True), incomplete)


def _offer(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _names(ctx: click.Context, *, is_loaded: bool) -> list[str]:
    # Imported only when a name is wanted: it takes longer than anything else here.
    from localplane_client import Client, InvalidTargetError, LocalplaneError  # noqa: PLC0415
    from localplane_client.target import target_from  # noqa: PLC0415
    from localplane_server.cli.session import read_api_key  # noqa: PLC0415

    try:
        target = ctx.params.get("grpc_target") or target_from(os.environ)
        key = read_api_key(ctx.params.get("api_key_file"))
        with Client(target, api_key=key, timeout=PATIENCE_SECONDS) as client:
            if is_loaded:
                return [one.model for one in client.list_backends().backends]
            return [one.id for one in client.list_models().data]
    except (LocalplaneError, InvalidTargetError, click.ClickException):
        return []  # a shell in the middle of a line is no place for messages
