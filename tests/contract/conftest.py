"""One service for each module of the suite, and every transport to it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from contract.census import settled, stop_backends, take_census
from contract.transports import GrpcTransport, RestTransport, Transport
from localplane.v1 import system_service_pb2
from localplane_gateway.app import build_app
from localplane_gateway.server import serving
from localplane_gateway.settings import GatewaySettings
from localplane_gateway.upstream import UpstreamAuthenticator, open_channel
from localplane_server.app import App, running
from localplane_server.config import Settings
from localplane_server.listening import bound_socket
from localplane_server.setting_values import Endpoint
from localplane_server.supervision.keeper_handle import start_keeper
from localplane_server.supervision.programs import (
    BackendProgram,
    BackendPrograms,
    shipped_programs,
)

FAKE_BACKEND = Path(__file__).parents[1] / "backends" / "fake_backend.py"

CONFIGURATIONS = {
    "tiny": "backend: llama-cpp\naliases: [gpt-tiny]\ncontext_size: 512\nparameters: {model: tiny.gguf}",
    "vectors": "backend: llama\nembeddings: true\nparameters: {model: tiny.gguf}",
    "echo": "backend: fake\nknown_usecases: [none]\noptions: [pieces:5]",
    "slow": "backend: fake\nknown_usecases: [none]\noptions: [pieces:1000, piece_seconds:0.01]",
    "refuses": "backend: fake\nknown_usecases: [none]\noptions: ['load_error:no such weights']",
    "dies": "backend: fake\nknown_usecases: [none]\noptions: [die_while_loading:3, 'stderr:last words']",
    "crashes": "backend: fake\nknown_usecases: [none]\noptions: [die_on_predict, 'stderr:last words']",
    "mute": "backend: fake\nknown_usecases: [none]\noptions: [unimplemented:Status]",
    "untold": "backend: fake\nknown_usecases: [none]\noptions: [unimplemented:TokenizeString]",
    "plain": "backend: fake\nknown_usecases: [none]\noptions: [plain]",
    "stuck-metrics": "backend: fake\nknown_usecases: [none]\noptions: [hang:GetMetrics]",
    "no-metrics": "backend: fake\nknown_usecases: [none]\noptions: [unimplemented:GetMetrics]",
    "stuck": "backend: fake\nknown_usecases: [none]\noptions: [hang:Status]",
    "orphan": "backend: nowhere\nknown_usecases: [none]",
    "broken": "backend: llama\nknown_usecases: [none]\nparameters: {model: broken.gguf}",
}


def write_models(folder: Path, tiny_gguf: Path) -> None:
    """Fill a models folder."""
    folder.mkdir(parents=True)
    shutil.copy(tiny_gguf, folder / "tiny.gguf")
    (folder / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 64)
    (folder / "sub dir").mkdir()
    shutil.copy(tiny_gguf, folder / "sub dir" / "deep one.gguf")
    for name, text in CONFIGURATIONS.items():
        (folder / f"{name}.yaml").write_text(f"name: {name}\n{text}\n")


def programs() -> BackendPrograms:
    """Return the shipped programs and the fake one."""
    fake = BackendProgram(name="fake", argv=(sys.executable, str(FAKE_BACKEND)))
    return BackendPrograms([*shipped_programs().all(), fake])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Path:
    """A data directory with models."""
    data_dir = tmp_path_factory.mktemp("data")
    write_models(data_dir / "models", tiny_gguf)
    return data_dir


@pytest.fixture(scope="module")
def models_folder(data_dir: Path) -> Path:
    """The folder of the models."""
    return data_dir / "models"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(request: pytest.FixtureRequest, data_dir: Path) -> AsyncGenerator[App]:
    """A service that runs in this process, with real backends.

    A module can have `SETTINGS` for it, and the text of a `KEY_FILE`; and a context `prepare(request, data_dir)` that
    is open while it runs and gives more settings.
    """
    anywhere = Endpoint("127.0.0.1", 0)
    key_file = None
    if text := getattr(request.module, "KEY_FILE", ""):
        key_file = data_dir / "keys"
        key_file.touch(0o600)
        key_file.write_text(text)
    prepare: Any = getattr(request.module, "prepare", lambda *_: contextlib.nullcontext({}))
    stack = contextlib.ExitStack()
    given = {
        **getattr(request.module, "SETTINGS", {}),
        **stack.enter_context(prepare(request, data_dir)),
    }
    settings = Settings(
        **{
            "data_dir": data_dir,
            "grpc_listen": anywhere,
            "http_listen": anywhere,
            "shutdown_grace": 1.0,
            "api_key_file": key_file,
            "galleries": (),
            # Tests reach no other machine, whatever they ask for; some reach servers of their own on this one.
            "offline": "allow_private_hosts" not in given,
            **given,
        }
    )
    # Nobody asks the package index of whoever runs the tests.
    environment = {"PIP_NO_INDEX": "1", **os.environ}
    with stack:
        async with running(
            settings, start_keeper(), programs=programs(), environment=environment
        ) as app:
            yield app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def transports(
    request: pytest.FixtureRequest, app: App
) -> AsyncGenerator[dict[str, Transport]]:
    """Every transport to the service, with the `KEY` of the module if it has one."""
    key = getattr(request.module, "KEY", None)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with bound_socket(Endpoint("127.0.0.1", 0)) as bound:
        alone = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with (
            open_channel(str(app.grpc)) as channel,
            serving(
                build_app(channel, GatewaySettings(), UpstreamAuthenticator(channel)),
                [bound],
                grace_seconds=1,
            ),
            httpx.AsyncClient(base_url=f"http://{app.http}", headers=headers, timeout=30) as client,
            httpx.AsyncClient(base_url=alone, headers=headers, timeout=30) as client_of_alone,
        ):
            yield {
                "inprocess": GrpcTransport(app.channel, key),
                "grpc": GrpcTransport(channel, key),
                "rest": RestTransport(client),
                "rest-upstream": RestTransport(client_of_alone),
            }


@pytest.fixture(params=["inprocess", "grpc", "rest", "rest-upstream"])
def transport(request: pytest.FixtureRequest, transports: dict[str, Transport]) -> Transport:
    """One transport after the other."""
    return transports[request.param]


class Mishaps(logging.Handler):
    """Collects what our loggers call an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("localplane"):
            self.messages.append(f"{record.name}: {self.format(record)}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def unharmed(transports: dict[str, Transport]) -> AsyncGenerator[None]:
    """The service is the same after a module: ready, with no more files, tasks and processes; and nothing broke."""
    for transport in transports.values():  # so that every connection is open
        await transport.call("SystemService.GetVersion", system_service_pb2.GetVersionRequest())
    await stop_backends(transports["inprocess"])
    before = take_census()
    mishaps = Mishaps()
    logging.getLogger().addHandler(mishaps)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(mishaps)
    for transport in transports.values():
        await transport.call("SystemService.Ready", system_service_pb2.ReadyRequest())
    await stop_backends(transports["inprocess"])
    after = await settled(before, transports.values())
    assert not after.exceeds(before), (before, after)
    assert [] == mishaps.messages
