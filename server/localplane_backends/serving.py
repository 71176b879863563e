"""How a backend program runs: its arguments, its address, its end."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import grpc

from localplane.localai import backend_pb2_grpc
from localplane_backends.authentication import TokenInterceptor
from localplane_backends.backend import Backend
from localplane_backends.parent import parent_gone, watch_interval_seconds

logger = logging.getLogger(__name__)

DEFAULT_ADDRESS = "localhost:50051"
MAX_MESSAGE_BYTES = 50 * 1024 * 1024
"""LocalAI's limit. Embeddings of long texts and images need more than gRPC's 4 MB."""
STOP_SECONDS = 1.0

OPTIONS = (
    # Otherwise a second program binds the same port without an error and the wrong model answers.
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)


class CannotListenError(Exception):
    """The address is taken or is none."""


def run(
    backend: Backend,
    argv: Sequence[str] | None = None,
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> NoReturn:
    """Serve a backend until SIGTERM, SIGINT or the end of the parent, then end with code 0.

    Calls in flight are cut: whoever stops a backend drains it first. The code is 1 when the backend
    breaks and, with one line on standard error, when the address cannot be listened on.
    """
    parent = os.getppid()
    parser = argparse.ArgumentParser(description=type(backend).__doc__, allow_abbrev=False)
    parser.add_argument(
        "--addr",
        default=DEFAULT_ADDRESS,
        help="where to listen, HOST:PORT or unix:PATH (default: %(default)s)",
    )
    address: str = parser.parse_args(argv).addr
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        code = asyncio.run(_serve(backend, address, parent, interceptors))
    except CannotListenError as error:
        sys.stderr.write(f"{error}\n")
        code = 1
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads inside a native engine cannot be interrupted; an ordinary exit would wait for them.
    os._exit(code)


async def _serve(
    backend: Backend,
    address: str,
    parent: int,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
) -> int:
    """Serve, and return the code to end with."""
    token = os.environ.get("LOCALAI_GRPC_AUTH_TOKEN", "")
    guards: list[grpc.aio.ServerInterceptor] = [TokenInterceptor(token)] if token else []
    server = grpc.aio.server(interceptors=[*guards, *interceptors], options=OPTIONS)
    backend_pb2_grpc.add_BackendServicer_to_server(backend, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise CannotListenError(f"cannot listen on {address}: {_why_not(address)}") from error

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    gc.freeze()
    gc.enable()
    where = f"{address.removesuffix(':0')}:{port}" if address.endswith(":0") else address
    logger.info("%s listening on %s", backend.name, where)
    broken = asyncio.create_task(backend.broken())
    endings: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait()), broken]
    interval_seconds = watch_interval_seconds(os.environ)
    # A process that init itself started has no parent to lose.
    if interval_seconds is not None and parent != 1:
        endings.append(asyncio.create_task(parent_gone(parent, interval_seconds)))
    await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
    if broken.done():
        broken.result()
    else:
        logger.info("%s ending: %s", backend.name, "signal" if stop.is_set() else "parent is gone")
    await asyncio.wait([asyncio.create_task(server.stop(0))], timeout=STOP_SECONDS)
    await backend.close()
    return int(broken.done())


def _why_not(address: str) -> str:
    """Return why an address cannot be bound. gRPC itself does not say."""
    try:
        if address.startswith("unix:"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.bind(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            found = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM)
            with socket.socket(*found[0][:3]) as probe:
                probe.bind(found[0][4])
    except (OSError, OverflowError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error)
    return "the address cannot be used"
