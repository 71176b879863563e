"""`localplane serve`: the service, until a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from localplane_server import config
from localplane_server.errors import StartupError
from localplane_server.logs import AccessLog, set_up_logging
from localplane_server.supervision.keeper_handle import KeeperHandle, start_keeper

log = logging.getLogger(__name__)

# grpcio's newer event engine costs a Python server a seventh more processor time for each call, as measured with
# 1.85.3. Read when gRPC is imported.
EXPERIMENTS = "-event_engine_client,-event_engine_listener"


def _with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command a flag for each setting."""
    for option in reversed(config.options()):
        if option.is_secret:
            continue
        shown = (
            option.help
            if option.default in (None, False) or type(option.default) is tuple
            else f"{option.help} [{option.default}]"
        )
        if option.is_switch:
            flag = click.option(option.flag, option.name, is_flag=True, default=None, help=shown)
        else:
            flag = click.option(
                option.flag,
                option.name,
                metavar=option.metavar,
                multiple=option.is_repeatable,
                callback=_given if option.is_repeatable else None,
                help=shown,
            )
        command = flag(command)
    return command


def _given(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> Any:
    """Return the values of an option that may be repeated, or None when it was not given."""
    return list(values) or None


@click.command()
@click.option("--config", "file", metavar="FILE", type=Path, help="YAML file with settings.")
@_with_settings
def serve(file: Path | None, **flags: str | bool | list[str] | None) -> None:
    """Start the service: gRPC and REST, until a signal ends it.

    Each flag can also be set as LOCALPLANE_NAME in the environment, or as a key in the file.
    """
    try:
        settings = config.load_settings(flags, os.environ, file)
        # Asked to end while it still starts, it ends well: nothing has begun yet.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        access_log = set_up_logging(settings.log_format, debug=settings.debug)
        # First of all: a process that has objects of gRPC cannot start others safely.
        keeper = start_keeper()
    except (StartupError, OSError) as error:
        raise click.ClickException(str(error)) from error
    os.environ.setdefault("GRPC_EXPERIMENTS", EXPERIMENTS)
    # Until it is ready, a service only makes what it keeps: there is nothing to collect.
    gc.disable()
    import uvloop  # noqa: PLC0415 - the keeper must start before what comes with it

    try:
        with access_log, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, keeper, access_log))
    except StartupError as error:
        raise click.ClickException(str(error)) from error


async def _serve(settings: config.Settings, keeper: KeeperHandle, access_log: AccessLog) -> None:
    from localplane_server.app import running  # noqa: PLC0415 - imports gRPC

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings, keeper, access_log=access_log) as app:
        # It stays as long as the service: the collector need never look at it, which takes 0.1 s a time.
        gc.freeze()
        gc.enable()
        _greet(str(app.grpc), str(app.http))
        print(f"ready grpc={app.grpc} http={app.http} pid={os.getpid()}", flush=True)  # noqa: T201 - the promise
        await stop.wait()
        log.info("stopping; a second signal cuts the calls in flight")
        cuts: list[asyncio.Task[None]] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: cuts.append(loop.create_task(app.cut_calls())))


def _greet(grpc: str, http: str) -> None:
    from localplane_client import DEFAULT_TARGET  # noqa: PLC0415 - imports gRPC

    # Said where the commands would not find it by themselves.
    where = "" if grpc == DEFAULT_TARGET else f" --grpc {grpc}"
    lines = (
        f"Localplane answers on http://{http}/docs. Try:",
        f"  curl http://{http}/v1/models",
        f"  grpcurl -plaintext {grpc} list",
        f"  localplane models install smollm2{where}",
        f'  localplane chat smollm2 "Say hello."{where}',
    )
    sys.stderr.write("\n".join(lines) + "\n")
