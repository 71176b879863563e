"""What every command that calls a service shares: its options, the client, the form of output, and exit codes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click
import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from localplane.v1 import options_pb2
from localplane_client import Client, InvalidTargetError, LocalplaneError, NotReachableError
from localplane_client.errors import NOT_REACHABLE
from localplane_client.target import api_key_from, checked_target, target_from
from localplane_server import errors
from localplane_server.cli.text import printable
from localplane_server.errors import SettingsError
from localplane_server.setting_values import parse_duration

ERROR, USAGE, UNREACHABLE, NOT_ALLOWED, NOT_FOUND, TRY_AGAIN = 1, 2, 3, 4, 5, 6
"""Exit codes besides 0."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""

EXIT_CODES: Mapping[grpc.StatusCode, int] = {
    grpc.StatusCode.UNAUTHENTICATED: NOT_ALLOWED,
    grpc.StatusCode.PERMISSION_DENIED: NOT_ALLOWED,
    grpc.StatusCode.NOT_FOUND: NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE: TRY_AGAIN,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TRY_AGAIN,
    grpc.StatusCode.DEADLINE_EXCEEDED: TRY_AGAIN,
}
"""Exit codes of what a service answers; the others are `ERROR`."""

HINTS: Mapping[str, str] = {
    NOT_REACHABLE: "Start a service with `localplane serve`, or name one with --grpc or LOCALPLANE_GRPC.",
    "UNAUTHENTICATED": "Give the key with --api-key-file, or in LOCALPLANE_API_KEY.",
    "FORBIDDEN": "This needs a key of the role admin.",
    "GALLERY_NOT_FOUND": "`localplane models galleries list` lists the galleries.",
    "JOB_NOT_FOUND": "`localplane models jobs list` lists the jobs.",
    "MODEL_NOT_FOUND": "`localplane models served` lists the models.",
    "MODEL_NOT_LOADED": "`localplane backend list` lists what is loaded.",
    "DEADLINE_EXCEEDED": "Give it longer with --timeout.",
}
"""What to do about an error, by its reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """How one command reaches a service and how it answers."""

    target: str
    """Where the service is."""
    api_key: str | None
    """Key to present."""
    timeout: float | None
    """Deadline of each call, in seconds. None: the client's own."""
    is_json: bool
    """Whether the answer is one JSON document."""

    @contextmanager
    def client(self) -> Generator[Client]:
        """Give a client for as long as the context is open."""
        with Client(self.target, api_key=self.api_key, timeout=self.timeout) as client:
            yield client

    def write(self, message: Message, lines: Iterable[str], *, field: str = "") -> None:
        """Write an answer: as JSON, the same that REST answers, or as lines for people.

        Args:
            message: The answer.
            lines: It in words. Not asked for when the answer is JSON.
            field: The one field of it that REST answers with, where that is not the whole message.
        """
        if self.is_json:
            self.write_json(rest_json(message, field=field))
            return
        for line in lines:
            click.echo(line)

    def write_json(self, document: Any) -> None:
        """Write one JSON document."""
        import orjson  # noqa: PLC0415 - most answers are for people

        click.echo(orjson.dumps(document))

    def fail(self, error: LocalplaneError) -> NoReturn:
        """Say what went wrong and what to do about it, and leave with the exit code for it."""
        code = exit_code_of(error)
        if self.is_json:
            self.write_json(_rest_error(error))
            raise click.exceptions.Exit(code)
        tell(error)
        raise click.exceptions.Exit(code)


def rest_json(message: Message, *, field: str = "") -> Any:
    """Return a message, or one field of it, as REST writes it."""
    import orjson  # noqa: PLC0415 - most answers are for people

    from localplane_gateway.codec import codec_for  # noqa: PLC0415 - brings numpy

    codec = codec_for(type(message))
    return orjson.loads(codec.encode_field(message, field) if field else codec.encode(message))


def exit_code_of(error: LocalplaneError) -> int:
    """Return the exit code for an error of the client."""
    if isinstance(error, NotReachableError):
        return UNREACHABLE
    return EXIT_CODES.get(error.code, ERROR)


def tell(error: LocalplaneError) -> None:
    """Write an error to standard error, with what to do about it."""
    click.echo(f"{click.style('Error:', fg='red')} {printable(error.message)}", err=True)
    if hint := HINTS.get(error.reason):
        click.echo(hint, err=True)


def error_json(
    error: LocalplaneError | errors.LocalplaneError, code: int, *, retry_after: float | None = None
) -> dict[str, Any]:
    """Return an error as REST writes it.

    Args:
        error: It; of the client or of this program.
        code: HTTP status.
        retry_after: When trying again may help, in seconds.
    """
    return {
        "error": {
            "code": code,
            "message": error.message,
            "type": "",
            "reason": error.reason,
            "metadata": dict(error.metadata),
            "retry_after": retry_after,
        }
    }


def _rest_error(error: LocalplaneError) -> dict[str, Any]:
    from localplane_gateway.http_status import http_status  # noqa: PLC0415 - as rest_json

    service, _, name = error.method.removeprefix("/").partition("/")
    method = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    differing = method.GetOptions().Extensions[options_pb2.http_status]
    of_method = {one.reason: one.status for one in differing}
    code = http_status(error.code, error.reason, of_method)
    return error_json(error, code, retry_after=error.retry_after)


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options with which it reaches a service; it gets a `Session` of them."""

    @functools.wraps(command)
    def run(
        *args: Any,
        grpc_target: str | None,
        api_key_file: Path | None,
        timeout: str | None,
        is_json: bool,
        **kwargs: Any,
    ) -> Any:
        session = Session(
            target=_target(grpc_target),
            api_key=read_api_key(api_key_file),
            timeout=_seconds(timeout),
            is_json=is_json,
        )
        try:
            return command(*args, session=session, **kwargs)
        except LocalplaneError as error:
            session.fail(error)
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                click.echo(err=True)  # behind the terminal's ^C
            raise click.exceptions.Exit(INTERRUPTED) from None

    for option in (
        click.option("--json", "is_json", is_flag=True, help="Answer in JSON."),
        click.option(
            "--timeout", metavar="DURATION", help="Most time that a call may take, such as 30s."
        ),
        click.option(
            "--api-key-file",
            type=click.Path(dir_okay=False, path_type=Path),
            help="File whose first key is presented. [env: LOCALPLANE_API_KEY, LOCALPLANE_API_KEY_FILE]",
        ),
        click.option(
            "--grpc",
            "grpc_target",
            metavar="HOST:PORT|unix:PATH",
            help="Where the service listens. [env: LOCALPLANE_GRPC; else 127.0.0.1:50051]",
        ),
    ):
        run = option(run)
    return run


def _target(given: str | None) -> str:
    try:
        return checked_target(given or target_from(os.environ))
    except InvalidTargetError as error:
        raise click.BadParameter(str(error), param_hint="--grpc") from error


def _seconds(given: str | None) -> float | None:
    if given is None:
        return None
    try:
        return parse_duration(given)
    except SettingsError as error:
        raise click.BadParameter(str(error), param_hint="--timeout") from error


def read_api_key(file: Path | None) -> str | None:
    """Return the key to present: the file's first, else the environment's, else none.

    Raises:
        click.ClickException: If the file cannot be read or has no key.
    """
    if file is None:
        key = api_key_from(os.environ)
        named = os.environ.get("LOCALPLANE_API_KEY_FILE")
        if key or not named:
            return key
        file = Path(named)
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"cannot read the key in {file}: {error}") from error
    for line in lines:
        if line.strip() and line[0] != "#":
            # The service's own file may be given: a role follows the key there.
            return line.split()[0]
    raise click.ClickException(f"cannot use {file}: it holds no key")
