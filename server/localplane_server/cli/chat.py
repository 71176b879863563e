"""`localplane chat`: asking a model, once or in a conversation."""

from __future__ import annotations

import readline  # noqa: F401 - gives input() a line to edit and a history
import sys
from typing import cast

import click

from localplane_client import Client, LocalplaneError, text_of
from localplane_client.inference import ChatOptions
from localplane_server.cli.completion import complete_model
from localplane_server.cli.session import INTERRUPTED, Session, client_options, tell
from localplane_server.cli.spinner import Spinner
from localplane_server.cli.text import printable

PROMPT = ">>> "
HELP = "Ctrl-C ends an answer, Ctrl-D ends the chat; /clear forgets what was said."


@click.command()
@click.argument("model", required=False, shell_complete=complete_model)
@click.argument("prompt", nargs=-1)
@click.option("--system", metavar="TEXT", help="What the model is told before everything else.")
@click.option("--max-tokens", type=click.IntRange(1), help="Most tokens of an answer.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="0 takes the likeliest token.")
@click.option("--seed", type=int, help="Seed of the sampler: the same seed, the same answer.")
@client_options
def chat(
    model: str | None,
    prompt: tuple[str, ...],
    session: Session,
    *,
    system: str | None,
    **given: float | None,
) -> None:
    """Ask MODEL, and print the answer as it comes.

    With PROMPT one answer is given. Without it a conversation begins; where standard input is no terminal, it is read
    as the prompt, and so it is for `-`. Without MODEL the service takes the first that chats.
    """
    options = cast("ChatOptions", {key: value for key, value in given.items() if value is not None})
    is_piped = prompt == ("-",) or (not prompt and not sys.stdin.isatty())
    with session.client() as client:
        conversation = Conversation(client, model or "", system, options)
        if is_piped or prompt:
            said = sys.stdin.read() if is_piped else " ".join(prompt)
            _answer_once(conversation, said, session)
        elif session.is_json:
            raise click.UsageError("--json needs a PROMPT")
        else:
            _converse(conversation, model)


class Conversation:
    """What was said so far, and the model that it is said to."""

    def __init__(
        self, client: Client, model: str, system: str | None, options: ChatOptions
    ) -> None:
        self.client = client
        """Reaches the service."""
        self.model = model
        """Name of the model. Empty lets the service choose."""
        self.options = options
        """How to answer."""
        self._beginning = [{"role": "system", "content": system}] if system else []
        self._said: list[dict[str, str]] = []

    def clear(self) -> None:
        """Forget what was said, but for the system's words."""
        self._said = []

    def messages(self, said: str) -> list[dict[str, str]]:
        """Return the messages of the next call."""
        return [*self._beginning, *self._said, {"role": "user", "content": said}]

    def print_answer(self, said: str) -> bool:
        """Have something answered, and print it as it comes. Ctrl-C ends the answer.

        Returns:
            Whether the answer came to its end. What came is remembered all the same, as people go on from there.

        Raises:
            LocalplaneError: If there is no answer, or it breaks off. Nothing of it is remembered then.
        """
        is_watched = sys.stdout.isatty()
        pieces: list[str] = []
        is_whole = False
        stream = self.client.chat_stream(self.messages(said), model=self.model, **self.options)
        try:
            with stream, Spinner(f"waiting for {self.model or 'the model'}") as spinner:
                for piece in stream:
                    text = text_of(piece)
                    if text:
                        spinner.stop()
                        click.echo(printable(text) if is_watched else text, nl=False)
                        pieces.append(text)
            is_whole = True
        except KeyboardInterrupt:
            pass
        finally:
            if pieces and not pieces[-1].endswith("\n"):
                click.echo()
        if pieces:
            self._said = [
                *self.messages(said)[len(self._beginning) :],
                {"role": "assistant", "content": "".join(pieces)},
            ]
        return is_whole


def _answer_once(conversation: Conversation, said: str, session: Session) -> None:
    if session.is_json:
        answer = conversation.client.chat(
            conversation.messages(said), model=conversation.model, **conversation.options
        )
        session.write(answer, [])
    elif not conversation.print_answer(said):
        raise click.exceptions.Exit(INTERRUPTED)


def _converse(conversation: Conversation, model: str | None) -> None:
    # Before anybody types a line that nobody will answer.
    if model:
        conversation.client.get_model(model)
    else:
        conversation.client.get_version()
    click.echo(HELP, err=True)
    while True:
        try:
            line = input(PROMPT).strip()
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()  # what was typed is dropped, as in a shell
            continue
        if line == "/clear":
            conversation.clear()
        elif line.startswith("/"):
            click.echo(HELP, err=True)
        elif line:
            _print_answer_or_error(conversation, line)


def _print_answer_or_error(conversation: Conversation, line: str) -> None:
    try:
        conversation.print_answer(line)
    except LocalplaneError as error:
        tell(error)
