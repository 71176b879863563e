"""The page about the command line says everything that the command line has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from localplane_server.cli import main
from localplane_server.cli.session import EXIT_CODES, INTERRUPTED, UNREACHABLE

PAGE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()


def _commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(_commands(main, "localplane"))


@pytest.mark.parametrize("path", list(COMMANDS))
def test_commands_and_options(path: str) -> None:
    """Every command has a section, which names its own options; the shared ones are named once."""
    assert f"\n### `{path}`\n" in PAGE
    section = PAGE.partition(f"\n### `{path}`\n")[2].partition("\n##")[0]
    shared = PAGE.partition("\n## Options of all commands that call a service\n")[2].partition(
        "\n## "
    )[0]
    longest = [
        max(option.opts, key=len)
        for option in COMMANDS[path].params
        if isinstance(option, click.Option)
    ]

    assert [] == [
        name for name in longest if f"`{name}" not in section and f"| `{name}" not in shared
    ]


def test_exit_codes() -> None:
    """Every exit code is in the table."""
    codes = {0, 1, 2, UNREACHABLE, INTERRUPTED, *EXIT_CODES.values()}

    assert [] == [code for code in sorted(codes) if f"\n| {code} |" not in PAGE]
