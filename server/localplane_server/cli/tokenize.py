"""`localplane tokenize`: text to tokens and back."""

from __future__ import annotations

import sys

import click

from localplane_server.cli.completion import complete_model
from localplane_server.cli.session import Session, client_options
from localplane_server.cli.text import printable


@click.command()
@click.argument("model", shell_complete=complete_model)
@click.argument("text", nargs=-1)
@click.option("--decode", is_flag=True, help="Join tokens to text: TEXT is the tokens.")
@client_options
def tokenize(model: str, text: tuple[str, ...], session: Session, *, decode: bool) -> None:
    """Split TEXT into MODEL's tokens.

    Without TEXT, or with `-`, standard input is read. What one direction prints the other takes.
    """
    content = sys.stdin.read() if text in ((), ("-",)) else " ".join(text)
    if decode:
        tokens = _tokens(content)
        with session.client() as client:
            joined = client.detokenize(tokens, model=model)
        shown = printable(joined.content) if sys.stdout.isatty() else joined.content
        session.write(joined, [shown])
    else:
        with session.client() as client:
            split = client.tokenize(content, model=model)
        session.write(split, [" ".join(map(str, split.tokens))])


def _tokens(text: str) -> list[int]:
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise click.BadParameter("tokens are whole numbers", param_hint="TEXT") from error
