"""How a model gets its backend: the program that its configuration names, started and loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from localplane_server.errors import BackendNotInstalledError, ExtraNotInstalledError
from localplane_server.models.configuration import ModelConfig
from localplane_server.supervision.backend import BackendLauncher, RunningBackend, completed
from localplane_server.supervision.calls import LoadOptions
from localplane_server.supervision.programs import BackendProgram, BackendPrograms

ALL_LAYERS = 99_999_999
"""What LocalAI sends for "all layers that fit on a device"."""


class BackendStarter:
    """Starts the program that a model's configuration names and has it load the model."""

    def __init__(
        self,
        launcher: BackendLauncher,
        programs: BackendPrograms,
        *,
        models_path: Path,
        load_timeout_seconds: float,
    ) -> None:
        self._launcher = launcher
        self._programs = programs
        self._models_path = models_path
        self._load_timeout_seconds = load_timeout_seconds

    async def __call__(
        self, model: ModelConfig, on_started: Callable[[RunningBackend], None]
    ) -> RunningBackend:
        """Start the backend and load the model; see `StartBackend`."""
        backend = await self._launcher.launch(model.name, self._program(model))
        on_started(backend)
        try:
            await backend.load(
                self._load_options(model), timeout_seconds=self._load_timeout_seconds
            )
        except BaseException:
            await completed(backend.stop(free=False))
            raise
        return backend

    def _load_options(self, model: ModelConfig) -> LoadOptions:
        file = self._models_path / model.file if model.file else None
        return LoadOptions(
            model=model.file or model.name,
            model_file=str(file) if file else "",
            models_path=str(self._models_path),
            context_size=model.context_size or 0,
            batch=model.batch or 0,
            threads=model.threads or 0,
            gpu_layers=ALL_LAYERS if model.gpu_layers is None else model.gpu_layers,
            f16=bool(model.f16),
            mmap=model.mmap is not False,
            embeddings=model.embeddings,
            options=model.options,
        )

    def _program(self, model: ModelConfig) -> BackendProgram:
        program = self._programs.get(model.backend)
        if program is None:
            raise BackendNotInstalledError(model.backend, model.name)
        if program.missing is not None:
            raise ExtraNotInstalledError(f"backend {program.name}", program.missing)
        return program
