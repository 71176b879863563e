"""`localplane doctor`: what keeps the service from working, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from localplane_client import (
    DEFAULT_TARGET,
    Client,
    LocalplaneError,
    NotReachableError,
    PermissionDeniedError,
)
from localplane_server import __version__
from localplane_server.cli.examination import Finding, Verdict, examine, lock_holder
from localplane_server.cli.session import ERROR, HINTS, Session, client_options
from localplane_server.cli.text import printable
from localplane_server.config import Settings, load_settings
from localplane_server.errors import SettingsError
from localplane_server.supervision.programs import shipped_programs
from localplane_server.supervision.registration import register

ANSWER_SECONDS = 5.0
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask who listens everywhere
COLOURS = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.PROBLEM: "red"}


@click.command()
@click.option("--config", "file", metavar="FILE", type=Path, help="YAML file of the service.")
@click.option("--data-dir", metavar="DIR", type=Path, help="Data directory of the service.")
@client_options
def doctor(file: Path | None, data_dir: Path | None, session: Session) -> None:
    """Look for what keeps the service from working, and say what to do about it.

    Looks at this machine with the settings that `serve` would have, and at the service if one runs. Exit code 1 when
    something must be mended.
    """
    try:
        settings = load_settings({"data_dir": data_dir}, os.environ, file)
        programs = register(shipped_programs(), settings, os.environ)
    except SettingsError as error:
        remedy = "Correct the file or the environment variable that is named."
        findings = [Finding("settings", Verdict.PROBLEM, str(error), remedy)]
    else:
        findings = [
            *examine(settings, programs),
            *_service(_session_with(session, settings), settings),
        ]
    is_ok = all(one.verdict is not Verdict.PROBLEM for one in findings)
    if session.is_json:
        session.write_json({"ok": is_ok, "findings": [one.as_json() for one in findings]})
    else:
        _print(findings, is_ok=is_ok)
    if not is_ok:
        raise click.exceptions.Exit(ERROR)


def _print(findings: list[Finding], *, is_ok: bool) -> None:
    for one in findings:
        verdict = click.style(f"{one.verdict:<7}", fg=COLOURS[one.verdict])
        click.echo(f"{verdict}  {one.check:<8} {printable(one.message)}")
        if one.remedy:
            click.echo(f"{'':<17} -> {printable(one.remedy)}")
    problems = sum(one.verdict is Verdict.PROBLEM for one in findings)
    click.echo("nothing must be mended" if is_ok else f"{problems} to be mended")


def _session_with(session: Session, settings: Settings) -> Session:
    """Ask where the settings say that the service listens, unless the caller named another place."""
    listen = settings.grpc_listen
    target = session.target
    if target == DEFAULT_TARGET and listen.port:
        host = LOOPBACK.get(listen.host, listen.host)
        target = str(listen._replace(host=host))
    return replace(session, target=target, timeout=session.timeout or ANSWER_SECONDS)


def _service(session: Session, settings: Settings) -> Iterator[Finding]:
    holder = lock_holder(settings.data_dir)
    with session.client() as client:
        try:
            yield _version(client, session)
            client.ready()
            yield Finding("ready", Verdict.OK, "the service can do its work")
            yield from _missing(client)
        except NotReachableError as error:
            if holder is None:
                message = f"no service answers at {session.target}"
                yield Finding("service", Verdict.NOTE, message, "Start one: localplane serve")
            else:
                message = f"process {holder} is a service, but: {error.message}"
                remedy = "Give its address with --grpc or LOCALPLANE_GRPC; its log names it."
                yield Finding("service", Verdict.PROBLEM, message, remedy)
        except LocalplaneError as error:
            remedy = HINTS.get(error.reason) or "Look into the log of the service."
            yield Finding("service", Verdict.PROBLEM, error.message, remedy)


def _version(client: Client, session: Session) -> Finding:
    version = client.get_version().version
    message = f"{version} answers at {session.target}"
    if version == f"v{__version__}":
        return Finding("service", Verdict.OK, message)
    message += f", while v{__version__} is installed here"
    return Finding("service", Verdict.PROBLEM, message, "Restart it with the installed version.")


def _missing(client: Client) -> Iterator[Finding]:
    try:
        installed = client.list_installed_backends().backends
    except PermissionDeniedError:
        remedy = "Give a key of the role admin to see more."
        yield Finding("service", Verdict.NOTE, "this key may not list the backends", remedy)
        return
    for one in installed:
        if one.HasField("missing"):
            message = f"the service cannot start {one.name}"
            remedy = f"pip install '{one.missing}' where the service runs."
            yield Finding("service", Verdict.NOTE, message, remedy)
