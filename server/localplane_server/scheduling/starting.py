"""How a model gets its backend: what its configuration names, started or connected to, and loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil

from localplane_server.errors import BackendNotInstalledError, ExtraNotInstalledError
from localplane_server.models.configuration import ModelConfig
from localplane_server.models.engine_keys import IN_MODELS_FOLDER, EngineValue
from localplane_server.supervision.backend import BackendLauncher
from localplane_server.supervision.calls import LoadOptions
from localplane_server.supervision.external import ExternalServers
from localplane_server.supervision.programs import (
    BackendProgram,
    BackendPrograms,
    BackendSource,
    Choice,
    ExternalServer,
    RegisteredBackend,
)
from localplane_server.supervision.running import RunningBackend, completed

ALL_LAYERS = 99_999_999
"""What LocalAI sends for "all layers that fit on a device"."""
FOREIGN_BATCH = 512
"""What LocalAI sends where a configuration says nothing: its backends expect a number."""
FOREIGN_FLASH_ATTENTION = "auto"
"""The same."""


class BackendStarter:
    """Starts, or connects to, what a model's configuration names and has it load the model."""

    def __init__(
        self,
        launcher: BackendLauncher,
        servers: ExternalServers,
        programs: BackendPrograms,
        *,
        models_path: Path,
    ) -> None:
        self._launcher = launcher
        self._servers = servers
        self._programs = programs
        self._models_path = models_path

    async def __call__(
        self, model: ModelConfig, on_started: Callable[[RunningBackend], None]
    ) -> RunningBackend:
        """Start the backend and load the model; see `StartBackend`."""
        choice = self._choice(model)
        backend = await self._begin(model.name, choice)
        on_started(backend)
        try:
            await backend.load(self._load_options(model, choice))
        except BaseException:
            await completed(backend.stop(free=False))
            raise
        return backend

    def is_elsewhere(self, model: ModelConfig) -> bool:
        """Whether the model is held by a server that others run."""
        choice = self._programs.get(model.backend)
        return choice is not None and isinstance(choice.backend, ExternalServer)

    async def _begin(self, model: str, choice: Choice) -> RunningBackend:
        if isinstance(choice.backend, ExternalServer):
            return await self._servers.connect(model, choice.backend)
        return await self._launcher.launch(model, choice.backend)

    def _load_options(self, model: ModelConfig, choice: Choice) -> LoadOptions:
        file = self._models_path / model.file if model.file else None
        is_foreign = _is_foreign(choice.backend)
        return LoadOptions(
            model=model.file or model.name,
            model_file=str(file) if file else "",
            models_path=str(self._models_path),
            context_size=model.context_size or 0,
            batch=model.batch or (FOREIGN_BATCH if is_foreign else 0),
            threads=model.threads or (_cores() if is_foreign else 0),
            gpu_layers=ALL_LAYERS if model.gpu_layers is None else model.gpu_layers,
            f16=bool(model.f16),
            mmap=model.mmap is not False,
            embeddings=model.embeddings,
            flash_attention=FOREIGN_FLASH_ATTENTION if is_foreign else "",
            type=choice.model_type,
            options=model.options,
            further=self._further(model) if is_foreign else (),
        )

    def _further(self, model: ModelConfig) -> tuple[tuple[str, EngineValue], ...]:
        return tuple(
            (field, str(self._models_path / str(value)) if field in IN_MODELS_FOLDER else value)
            for field, value in model.engine
            if value
        )

    def _choice(self, model: ModelConfig) -> Choice:
        choice = self._programs.get(model.backend)
        if choice is None:
            raise BackendNotInstalledError(model.backend, model.name)
        backend = choice.backend
        if isinstance(backend, BackendProgram) and backend.missing is not None:
            raise ExtraNotInstalledError(f"backend {backend.name}", backend.missing)
        return choice


def _is_foreign(backend: RegisteredBackend) -> bool:
    """Whether a backend may expect all that LocalAI sends."""
    is_ours = isinstance(backend, BackendProgram) and backend.is_ours
    return backend.source is not BackendSource.SHIPPED and not is_ours


def _cores() -> int:
    """Return the cores that this service may use, or the machine's real ones where those are fewer."""
    allowed = len(os.sched_getaffinity(0))
    return min(allowed, psutil.cpu_count(logical=False) or allowed)
