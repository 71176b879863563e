"""What a backend is told to load, and that nothing unregistered is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from localplane_server.errors import BackendNotInstalledError, ExtraNotInstalledError
from localplane_server.models.configuration import ModelConfig
from localplane_server.scheduling.starting import BackendStarter
from localplane_server.setting_values import Endpoint
from localplane_server.supervision.calls import LoadOptions
from localplane_server.supervision.programs import (
    BackendProgram,
    BackendPrograms,
    BackendSource,
    ExternalServer,
)

MODELS = Path("/models")
OURS = BackendProgram(name="ours", argv=("/ours",))
TRANSFORMERS = BackendProgram(
    name="transformers", argv=("/t/run.sh",), source=BackendSource.INSTALLED
)
GPU = BackendProgram(name="gpu", argv=("/g",), source=BackendSource.EXTERNAL, is_ours=True)
FAR = ExternalServer(name="far", address=Endpoint("h", 1))
LACKING = BackendProgram(name="lacking", argv=("/l",), extra="more", needs="no_such_module")


class FakeBackend:
    def __init__(self) -> None:
        self.options: LoadOptions | None = None

    async def load(self, options: LoadOptions) -> None:
        self.options = options


class Everywhere:
    """Starts programs and connects to servers."""

    def __init__(self) -> None:
        self.backend = FakeBackend()
        self.begun: list[tuple[str, str, str]] = []

    async def launch(self, model: str, program: BackendProgram) -> Any:
        self.begun.append(("launch", model, program.name))
        return self.backend

    async def connect(self, model: str, server: ExternalServer) -> Any:
        self.begun.append(("connect", model, server.name))
        return self.backend


async def started(model: ModelConfig) -> tuple[Everywhere, LoadOptions]:
    everywhere: Any = Everywhere()
    programs = BackendPrograms([OURS, TRANSFORMERS, GPU, FAR, LACKING])
    start = BackendStarter(everywhere, everywhere, programs, models_path=MODELS)
    await start(model, lambda _backend: None)
    assert everywhere.backend.options is not None
    return everywhere, everywhere.backend.options


async def test_ours_is_left_its_defaults() -> None:
    """A backend of ours is told only what the configuration says."""
    everywhere, options = await started(ModelConfig(name="m", backend="ours", file="a.gguf"))

    assert [("launch", "m", "ours")] == everywhere.begun
    assert (0, 0, "", "") == (options.threads, options.batch, options.flash_attention, options.type)
    assert ("a.gguf", "/models/a.gguf") == (options.model, options.model_file)


async def test_ours_in_front_of_a_server_is_left_its_defaults() -> None:
    """So is one of ours that the operator named: a server is not told numbers that nobody set."""
    _, options = await started(ModelConfig(name="m", backend="gpu"))

    assert (0, 0, 0) == (options.threads, options.batch, options.context_size)


@pytest.mark.parametrize("backend", ["transformers", "far"])
async def test_others_are_told_what_localai_tells(backend: str) -> None:
    """Others get numbers where LocalAI sends numbers."""
    _, options = await started(ModelConfig(name="m", backend=backend))

    assert options.threads >= 1
    assert (512, "auto", 99_999_999) == (
        options.batch,
        options.flash_attention,
        options.gpu_layers,
    )


async def test_configuration_before_defaults() -> None:
    """What the configuration says is what they get."""
    model = ModelConfig(name="m", backend="far", threads=3, batch=64, gpu_layers=0)
    everywhere, options = await started(model)

    assert [("connect", "m", "far")] == everywhere.begun
    assert (3, 64, 0) == (options.threads, options.batch, options.gpu_layers)


async def test_kind_of_model() -> None:
    """A name of LocalAI's that asks for a kind of model has it loaded as that."""
    _, options = await started(ModelConfig(name="m", backend="sentencetransformers"))

    assert "SentenceTransformer" == options.type


async def test_what_is_handed_on() -> None:
    """Others are told the rest of the configuration too, with whole paths where they want them; ours are not."""
    engine = (("MMProj", "a.gguf"), ("Type", "x"), ("LowVRAM", False))
    _, options = await started(ModelConfig(name="m", backend="far", engine=engine))
    _, ours = await started(ModelConfig(name="m", backend="ours", engine=engine))

    assert (("MMProj", "/models/a.gguf"), ("Type", "x")) == options.further
    assert () == ours.further


@pytest.mark.parametrize("backend", ["", "nobody", "/bin/sh", "..", "far\0", "h:1"])
async def test_what_is_no_backend(backend: str) -> None:
    """Nothing is started or connected to for what is not registered."""
    with pytest.raises(BackendNotInstalledError):
        await started(ModelConfig(name="m", backend=backend))


async def test_missing_extra() -> None:
    """A backend of ours that is not wholly installed says what is missing."""
    with pytest.raises(ExtraNotInstalledError, match="more"):
        await started(ModelConfig(name="m", backend="lacking"))
