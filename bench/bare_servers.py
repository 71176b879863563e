"""What the service is compared with: the least servers on the same libraries and settings."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import grpc
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from localplane.v1 import system_service_pb2
from localplane_gateway.server import SETTINGS
from localplane_server import __version__
from localplane_server.config import load_settings
from localplane_server.rpc.server import server_options

HEADERS = [(b"content-type", b"application/json")]


async def echo(
    _request: system_service_pb2.GetVersionRequest, _context: Any
) -> system_service_pb2.GetVersionResponse:
    """Answer a call as the service does."""
    return system_service_pb2.GetVersionResponse(version=f"v{__version__}")


async def answer(_scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request with the length of its body, read whole."""
    length = 0
    more = True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = b'{"version":"v0.1.0"}' if not length else b'{"length":%d}' % length
    headers = [*HEADERS, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def document(path: str) -> Any:
    """Return what answers every request with a file, which is read once."""
    body = Path(path).read_bytes()
    headers = [*HEADERS, (b"content-length", str(len(body)).encode())]

    async def application(_scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body", False):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return application


def serve_grpc() -> None:
    """Serve gRPC with no interceptor."""
    _run(_serve_grpc())


def serve_http() -> None:
    """Serve HTTP with no framework, by uvicorn as it comes, with the gateway's settings."""
    _run(_serve_http(answer))


def serve_document() -> None:
    """Serve the file `DOCUMENT` over HTTP, in the same way."""
    _run(_serve_http(document(os.environ["DOCUMENT"])))


def serve_llama() -> None:
    """Serve OpenAI's API with llama.cpp's own server, the file of `MODEL_FILE` loaded."""
    import xllamacpp  # noqa: PLC0415 - the other servers do without it

    from localplane.localai import backend_pb2  # noqa: PLC0415 - so they do without these
    from localplane_backends.llama import settings  # noqa: PLC0415
    from localplane_backends.llama.engine import parameters_for  # noqa: PLC0415

    options = backend_pb2.ModelOptions(
        ModelFile=os.environ["MODEL_FILE"],
        ContextSize=int(os.environ["CONTEXT_TOKENS"]),
        MMap=True,
        NGPULayers=99_999_999,
    )
    parameters = parameters_for(xllamacpp, settings.read(options), socket=Path("unused"), key="")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    parameters.hostnames, parameters.port, parameters.api_keys = ["127.0.0.1"], port, []
    # It lives as long as it is held.
    server = xllamacpp.Server(parameters)
    address = server.listening_address.removeprefix("http://")
    print(f"ready grpc=- http={address} pid=0", flush=True)
    threading.Event().wait()


async def _serve_grpc() -> None:
    settings = load_settings({}, {}, None)
    server = grpc.aio.server(options=server_options(settings.max_body_size))
    handler = grpc.unary_unary_rpc_method_handler(
        echo,
        request_deserializer=system_service_pb2.GetVersionRequest.FromString,
        response_serializer=system_service_pb2.GetVersionResponse.SerializeToString,
    )
    server.add_registered_method_handlers("localplane.v1.SystemService", {"GetVersion": handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready grpc=127.0.0.1:{port} http=- pid=0", flush=True)
    await asyncio.Event().wait()


async def _serve_http(application: Any) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, **SETTINGS, http="httptools"))
    print(f"ready grpc=- http=127.0.0.1:{listener.getsockname()[1]} pid=0", flush=True)
    await server.serve([listener])


def _run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)
