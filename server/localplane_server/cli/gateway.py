"""`localplane gateway`: the REST gateway alone, in front of a server that runs elsewhere."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import click
import grpc
import uvloop

from localplane_gateway.app import build_app
from localplane_gateway.server import serving
from localplane_gateway.settings import GatewaySettings
from localplane_gateway.upstream import UpstreamAuthenticator, open_channel
from localplane_server import setting_values
from localplane_server.errors import SettingsError, StartupError
from localplane_server.events import Events, RequestFinished
from localplane_server.listening import bound_socket
from localplane_server.logs import AccessLog, set_up_logging
from localplane_server.rpc.metrics_service import GET_METRICS

log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--upstream", required=True, metavar="HOST:PORT", help="Where the server's gRPC listens."
)
@click.option("--http-listen", default="127.0.0.1:8080", show_default=True, metavar="HOST:PORT")
@click.option("--public-url", metavar="URL", help="Address under which callers reach the gateway.")
@click.option(
    "--allow-host", default="", metavar="HOST,...", help="Names under which pages may call it."
)
@click.option(
    "--allow-origin", default="", metavar="ORIGIN,...", help="Pages elsewhere that may use it."
)
@click.option("--max-body-size", default="32M", show_default=True, metavar="SIZE")
@click.option(
    "--public-metrics", is_flag=True, help="Answer /metrics without a key, if the server does."
)
@click.option("--shutdown-grace", default="30s", show_default=True, metavar="DURATION")
@click.option("--log-format", default="text", show_default=True, metavar="text|json")
def gateway(
    upstream: str,
    http_listen: str,
    log_format: str,
    *,
    public_metrics: bool,
    **given: str | None,
) -> None:
    """Serve REST in front of a Localplane server, until a signal ends it.

    Keys are the server's: what callers present is passed on to it. An address beyond loopback is listened on only when
    the server asks for a key.
    """
    try:
        access_log = set_up_logging(setting_values.parse_log_format(log_format), debug=False)
        settings = GatewaySettings(
            allowed_hosts=frozenset(setting_values.parse_words(given["allow_host"] or "")),
            allowed_origins=frozenset(setting_values.parse_words(given["allow_origin"] or "")),
            public_url=given["public_url"],
            max_body_bytes=setting_values.parse_size(given["max_body_size"] or ""),
            public_methods=frozenset({GET_METRICS} if public_metrics else ()),
        )
        with access_log, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(
                _serve(
                    upstream,
                    setting_values.parse_endpoint(http_listen),
                    settings,
                    access_log,
                    setting_values.parse_duration(given["shutdown_grace"] or ""),
                )
            )
    except StartupError as error:
        raise click.ClickException(str(error)) from error


async def _serve(
    upstream: str,
    listen: setting_values.Endpoint,
    settings: GatewaySettings,
    access_log: AccessLog,
    grace_seconds: float,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bus = Events()
    access_log.listen(bus)
    async with open_channel(upstream) as channel:
        authenticator = UpstreamAuthenticator(channel)
        if not listen.is_loopback:
            await _check_asks_for_key(authenticator, upstream, listen)
        app = build_app(
            channel,
            settings,
            authenticator,
            observer=lambda **told: bus.emit(RequestFinished(**told)),
        )
        with bound_socket(listen) as bound:
            async with serving(app, [bound], grace_seconds=grace_seconds):
                address = listen._replace(port=bound.getsockname()[1])
                print(f"ready http={address} pid={os.getpid()}", flush=True)  # noqa: T201 - the promise
                await stop.wait()
                log.info("stopping")


async def _check_asks_for_key(
    authenticator: UpstreamAuthenticator, upstream: str, listen: setting_values.Endpoint
) -> None:
    try:
        is_open = await authenticator.is_open()
    except grpc.aio.AioRpcError as error:
        message = f"cannot ask the server at {upstream} whether it needs a key: {error.details()}"
        raise StartupError(message) from error
    if is_open:
        message = f"cannot listen on {listen}: the server at {upstream} asks nobody for a key"
        raise SettingsError(message)
