"""The models in the models folder: configurations, and model files without one."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from localplane_server.errors import ModelNotFoundError
from localplane_server.models.configuration import (
    ConfigurationError,
    ModelConfig,
    read_configuration,
)
from localplane_server.models.names import check_name, is_contained

log = logging.getLogger(__name__)

NOT_MODELS = (
    *(".tmpl", ".keep", ".yaml", ".yml", ".json", ".txt", ".md", ".partial", ".tag", ".bak"),
    *(".pt", ".onnx", ".safetensors", ".zip", ".tar.gz", ".ds_store"),
)
"""Ends of the names of files that are no models by themselves, as LocalAI has them."""

GGUF_MAGIC = b"GGUF"

LOOK_SECONDS = 1.0
"""How often the files are looked at for changes in place."""

Fingerprint = dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Problem:
    """A file in the models folder that could not be used."""

    file: str
    """The file, relative to the models folder."""
    message: str
    """What is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What fills the gaps of configurations."""

    threads: int | None = None
    context_size: int | None = None
    f16: bool | None = None


class ModelCatalog:
    """The models that can be served, by name, alias and file name.

    The folder is read again when `reload` is called, and by itself when files came, went or changed: at once when
    they came or went, within a second when they changed.
    """

    def __init__(self, root: Path, *, defaults: Defaults | None = None) -> None:
        self.root = root
        """The models folder. It may be missing: then there are no models."""
        self._defaults = defaults or Defaults()
        self._changed: int | None = None
        self._fingerprint: Fingerprint = {}
        self._looked_at = 0.0
        self._read: dict[str, tuple[tuple[int, int], ModelConfig]] = {}
        self._configured: dict[str, ModelConfig] = {}
        self._names: dict[str, ModelConfig] = {}
        self._files: dict[str, ModelConfig] = {}
        self._loose: dict[str, ModelConfig] = {}
        self._problems: tuple[Problem, ...] = ()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Files that could not be used, by name."""
        self._refresh()
        return self._problems

    def configured(self) -> list[ModelConfig]:
        """Models with a configuration, by name."""
        self._refresh()
        return list(self._configured.values())

    def loose(self, *, exclude_configured: bool = True) -> list[ModelConfig]:
        """Model files without a configuration, by name.

        Args:
            exclude_configured: Whether to leave out files that a configuration uses.
        """
        self._refresh()
        used = {model.file for model in self._configured.values()} if exclude_configured else set()
        return [model for model in self._loose.values() if model.name not in used]

    def get(self, name: str) -> ModelConfig:
        """Return the model of that name, alias or file name.

        `/` in a name may be written `__`, as in the file names that an installation writes.

        Raises:
            InvalidModelNameError: If the name cannot be one.
            ModelNotFoundError: If there is no such model.
        """
        check_name(name)
        self._refresh()
        for written in dict.fromkeys((name, name.replace("__", "/"), name.replace("/", "__"))):
            found = (
                self._names.get(written)
                or self._files.get(written)
                or self._loose.get(written)
                or self._nested(written)
            )
            if found is not None:
                return found
        raise ModelNotFoundError(name)

    def first_for(
        self, use_cases: Collection[str], *, embeddings: bool = False
    ) -> ModelConfig | None:
        """Return the first configured model for one of the use cases, or None.

        A configuration that says nothing about use cases is for embeddings if it computes them, else for text.
        """
        for model in self.configured():
            if model.use_cases & set(use_cases):
                return model
            if not model.use_cases and model.embeddings == embeddings:
                return model
        return None

    def size(self, model: ModelConfig) -> int | None:
        """Return the bytes of the model's file, or None when there is none."""
        try:
            path = self.root / model.file
            return path.stat().st_size if model.file and path.is_file() else None
        except OSError:
            return None

    def reload(self) -> None:
        """Read the folder again, every file of it."""
        self._read.clear()
        self._scan()

    def _scan(self) -> None:
        self._changed = _changed(self.root)
        configured: dict[str, ModelConfig] = {}
        loose: dict[str, ModelConfig] = {}
        problems: list[Problem] = []
        self._fingerprint = _fingerprint(self.root, problems)
        for name, stamp in self._fingerprint.items():
            if name.lower().endswith((".yaml", ".yml")):
                try:
                    model = self._configuration(name, stamp)
                    if model.name in configured:
                        other = configured[model.name].config_file
                        raise ConfigurationError(f"has the name {model.name!r} of {other}")
                except ConfigurationError as error:
                    problems.append(Problem(name, str(error)))
                    continue
                configured[model.name] = self._filled(model)
            elif not name.lower().endswith(NOT_MODELS):
                loose[name] = self._filled(_loose(self.root, name))
        self._configured = dict(sorted(configured.items()))
        self._loose = loose
        self._names = self._with_aliases(problems)
        self._files = _only_users(self._configured)
        self._problems = tuple(sorted(problems, key=lambda problem: problem.file))
        for problem in self._problems:
            log.warning("a file is skipped", extra={"file": problem.file, "cause": problem.message})

    def _configuration(self, name: str, stamp: tuple[int, int]) -> ModelConfig:
        """Read a configuration, unless the file is what it was when it was read last."""
        known = self._read.get(name)
        if known is not None and known[0] == stamp:
            return known[1]
        model = read_configuration(self.root / name, root=self.root)
        self._read[name] = (stamp, model)
        return model

    def _with_aliases(self, problems: list[Problem]) -> dict[str, ModelConfig]:
        names = dict(self._configured)
        for model in self._configured.values():
            for alias in model.aliases:
                if names.setdefault(alias, model) is not model:
                    message = f"alias {alias!r} already means {names[alias].name!r}"
                    problems.append(Problem(model.config_file or model.name, message))
        return names

    def _refresh(self) -> None:
        if self._changed is None or self._changed != _changed(self.root):
            self._scan()
        elif time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._looked_at = time.monotonic()
            if self._fingerprint != _fingerprint(self.root, []):
                self._scan()

    def _nested(self, name: str) -> ModelConfig | None:
        if "/" not in name or not is_contained(name) or name.lower().endswith(NOT_MODELS):
            return None
        # Also not `a//b` and `a/./b`: each spelling would be a model of its own.
        if any(not part or part.startswith(".") for part in name.split("/")):
            return None
        path = self.root / name
        inside = path.resolve().is_relative_to(self.root.resolve())
        return self._filled(_loose(self.root, name)) if inside and path.is_file() else None

    def _filled(self, model: ModelConfig) -> ModelConfig:
        defaults = self._defaults
        return replace(
            model,
            backend=model.backend or _backend_of(self.root / model.file if model.file else None),
            threads=model.threads if model.threads is not None else defaults.threads,
            context_size=model.context_size or defaults.context_size,
            f16=model.f16 if model.f16 is not None else defaults.f16,
        )


def _changed(root: Path) -> int:
    try:
        return root.stat().st_mtime_ns
    except OSError:
        return 0


def _fingerprint(root: Path, problems: list[Problem]) -> Fingerprint:
    """Return time and size of the last change of each file, by name in order; hidden files are none."""
    found: Fingerprint = {}
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                try:
                    entry.name.encode()
                    if entry.is_file():
                        stat = entry.stat()
                        found[entry.name] = (stat.st_mtime_ns, stat.st_size)
                except UnicodeEncodeError:
                    shown = os.fsencode(entry.name).decode(errors="backslashreplace")
                    problems.append(Problem(shown, "has a name that is not UTF-8"))
                except OSError as error:
                    problems.append(Problem(entry.name, f"cannot be read: {error.strerror}"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        problems.append(Problem(".", f"cannot be read: {error.strerror}"))
    return dict(sorted(found.items()))


def _only_users(configured: dict[str, ModelConfig]) -> dict[str, ModelConfig]:
    """Return the configurations whose file no other one uses, by the file."""
    uses = Counter(model.file for model in configured.values() if model.file)
    return {model.file: model for model in configured.values() if uses[model.file] == 1}


def _loose(root: Path, name: str) -> ModelConfig:
    return ModelConfig(name=name, file=name, backend=_backend_of(root / name))


def _backend_of(path: Path | None) -> str:
    """Tell the backend by the first bytes of the file; empty when they say nothing."""
    try:
        if path is not None and path.is_file():
            with path.open("rb") as file:
                return "llama" if file.read(len(GGUF_MAGIC)) == GGUF_MAGIC else ""
    except OSError:
        pass
    return ""
