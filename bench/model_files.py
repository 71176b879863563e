"""The models that are measured: one made here, and one that `localplane models install` fetches."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from programs import FOLDER, LOCALPLANE

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT_TOKENS = 2048
"""Of both models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that can be loaded."""

    name: str
    """Its name in the service."""

    file: Path
    """Its file."""


@contextmanager
def folder_of_models() -> Generator[tuple[Path, list[Model]]]:
    """Make a folder of models: the tiny one, and SmolLM2 where it can be had."""
    with TemporaryDirectory(prefix="localplane-bench-") as folder:
        path = Path(folder)
        make = runpy.run_path(str(FOLDER.parent / "tools" / "make_tiny_gguf.py"))["write_tiny_gguf"]
        make(path / "tiny.gguf")
        models = [_configured(path, "tiny", path / "tiny.gguf")]
        if (file := _smollm2()) is not None:
            (path / file.name).symlink_to(file)
            models.append(_configured(path, "smollm2", path / file.name))
        yield path, models


def _configured(folder: Path, name: str, file: Path) -> Model:
    lines = [
        f"name: {name}",
        "backend: llama",
        f"context_size: {CONTEXT_TOKENS}",
        f"parameters: {{model: {file.name}}}",
    ]
    (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    return Model(name=name, file=file)


def _smollm2() -> Path | None:
    """Install SmolLM2 into the user's cache, once; None when that fails, and then say why."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache, "localplane-bench")
    file = folder / "models" / SMOLLM2
    if not file.is_file():
        argv = [*LOCALPLANE, "models", "install", "smollm2", "--data-dir", str(folder)]
        done = subprocess.run(argv, stdout=sys.stderr, check=False)
        if done.returncode != 0:
            print("without SmolLM2: it could not be installed", file=sys.stderr)
            return None
    return file


def has_engine() -> bool:
    """Whether the engine of the llama backend is installed; if not, say so."""
    code = "import xllamacpp"
    argv = [sys.executable, "-c", code]
    if subprocess.run(argv, stderr=subprocess.DEVNULL, check=False).returncode == 0:
        return True
    print("skipped: install localplane[llama]", file=sys.stderr)
    return False
