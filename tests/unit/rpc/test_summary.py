"""The making of summaries."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from localplane_server.config import Settings
from localplane_server.models.catalog import ModelCatalog
from localplane_server.models.configuration import ModelConfig
from localplane_server.rpc.access import Keys, Role
from localplane_server.rpc.summary import Summaries
from localplane_server.scheduling.snapshots import BackendState


class SlowCatalog(ModelCatalog):
    """Is on a disk that does not answer until the test lets it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()

    def size(self, model: ModelConfig) -> int | None:
        self.is_asked.set()
        assert self.may_answer.wait(30)
        return super().size(model)


class Idle:
    """Stands for a scheduler that has loaded nothing."""

    def state(self, _name: str) -> BackendState:
        return BackendState.STOPPED


async def test_slow_disk(tmp_path: Path) -> None:
    """A disk that takes its time with the sizes of models holds up this caller, and not the service."""
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "a.yaml").write_text("name: a\nbackend: fake\nparameters: {model: a.gguf}\n")
    catalog = SlowCatalog(tmp_path)
    nothing: Any = None
    idle: Any = Idle()
    summaries = Summaries(
        settings=Settings(data_dir=tmp_path),
        keys=Keys({"key": Role.USER}),
        catalog=catalog,
        installed=nothing,
        scheduler=idle,
        jobs=nothing,
        monitor=nothing,
        programs=nothing,
        network=nothing,
    )
    asking = asyncio.create_task(summaries.summary([("authorization", "Bearer key")]))
    async with asyncio.timeout(30):
        while not catalog.is_asked.is_set():
            await asyncio.sleep(0)
    assert not asking.done()
    catalog.may_answer.set()
    summary = await asking

    assert [("a", 4)] == [(one.name, one.size_bytes) for one in summary.models_config.models]
