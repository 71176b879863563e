"""The backends that can be used, by name and alias: programs that are started, and servers that others run."""

from __future__ import annotations

import enum
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from localplane_server.setting_values import Endpoint

LOCALAI_ALIASES: Mapping[str, tuple[str, str]] = {
    "go-llama": ("llama-cpp", ""),
    "embedded-store": ("local-store", ""),
    "stablediffusion": ("stablediffusion-ggml", ""),
    "sentencetransformers": ("transformers", "SentenceTransformer"),
    "huggingface-embeddings": ("transformers", "SentenceTransformer"),
    "mamba": ("transformers", "Mamba"),
    "transformers-musicgen": ("transformers", "MusicgenForConditionalGeneration"),
    "ik_llama": ("ik-llama-cpp", ""),
    "ik-llama": ("ik-llama-cpp", ""),
    "valkey": ("valkey-store", ""),
}
"""Names that LocalAI takes for another, with the kind of model that they ask for. `llama` is one of ours."""


class BackendSource(enum.Enum):
    """Where a backend comes from."""

    SHIPPED = "shipped"
    """It comes with the package."""
    INSTALLED = "installed"
    """It lies in the backends folder."""
    EXTERNAL = "external"
    """The operator named it when the service was started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendMetadata:
    """What an installation wrote beside a backend. Empty texts are not there."""

    alias: str = ""
    """Another name that means it."""
    meta_backend_for: str = ""
    """Backend that this name stands for."""
    name: str = ""
    """Name in the gallery."""
    gallery_url: str = ""
    """Gallery that it is from."""
    installed_at: str = ""
    """When it was installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendProgram:
    """A program that speaks the backend protocol. It is started for each model."""

    name: str
    """Name, as a model's configuration gives it."""
    argv: tuple[str, ...]
    """What is started; `--addr HOST:PORT` is put behind it."""
    aliases: tuple[str, ...] = ()
    """Other names that mean it."""
    extra: str | None = None
    """The extra of the package that it needs. None: nothing but the package itself."""
    needs: str | None = None
    """The module that the extra brings."""
    source: BackendSource = BackendSource.SHIPPED
    """Where it comes from."""
    is_ours: bool = False
    """Whether a program that the operator named is one of the package's: it needs none of LocalAI's defaults."""
    cwd: Path | None = None
    """Working directory. None for the service's."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables of its own, besides those of all backends. May hold secrets."""
    metadata: BackendMetadata | None = None
    """What its installation wrote. None where nothing did."""

    @property
    def missing(self) -> str | None:
        """The extra that must be installed before the program can start, or None."""
        if self.needs is None or importlib.util.find_spec(self.needs) is not None:
            return None
        return self.extra


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalServer:
    """A server that speaks the backend protocol and is run by somebody else. It holds one model at a time."""

    name: str
    """Name, as a model's configuration gives it."""
    address: Endpoint
    """Where it listens."""
    aliases: tuple[str, ...] = ()
    """Other names that mean it."""
    source: BackendSource = BackendSource.EXTERNAL
    """Where it comes from."""


RegisteredBackend = BackendProgram | ExternalServer


class Choice(NamedTuple):
    """What a name means."""

    backend: RegisteredBackend
    """The backend."""
    model_type: str
    """The kind of model that the name asks for, in the backend's words. Empty: none."""


class BackendProblem(NamedTuple):
    """Something that was to be a backend and cannot be one, or not wholly."""

    name: str
    """Its name in the backends folder."""
    message: str
    """What is wrong with it."""


class Installed(Protocol):
    """The backends of a folder, which may change while the service runs."""

    def refresh(self, *, at_once: bool = False) -> bool:
        """Look for changes, sooner or later or at once, and return whether there are any."""

    def reload(self) -> None:
        """Read the folder again."""

    @property
    def programs(self) -> tuple[BackendProgram, ...]:
        """The backends, by name."""

    @property
    def problems(self) -> tuple[BackendProblem, ...]:
        """What could not be used, by name."""


class BackendPrograms:
    """The backends that can be used. A model's configuration can name these and no others.

    A name wins over an alias. Of two backends with one name, the one that was given last wins, and all of them win
    over an installed one. An alias of what an operator brought wins over one of a shipped backend.
    """

    def __init__(
        self, programs: Iterable[RegisteredBackend], installed: Installed | None = None
    ) -> None:
        self._given = {program.name: program for program in programs}
        self._installed = installed
        self._backends: dict[str, RegisteredBackend] = {}
        self._names: dict[str, Choice] = {}
        self._problems: tuple[BackendProblem, ...] = ()
        self.reload()

    def get(self, name: str) -> Choice | None:
        """Return what a name or an alias means, or None. As in LocalAI, capitals may stand for small letters."""
        self._refresh(at_once=True)
        return self._names.get(name) or self._names.get(name.lower())

    def all(self) -> list[RegisteredBackend]:
        """Return the backends by name, each with all the aliases that mean it."""
        self._refresh()
        return [self._backends[name] for name in sorted(self._backends)]

    def names(self) -> list[str]:
        """Return all names and aliases, each once, sorted."""
        self._refresh()
        return sorted(self._names)

    @property
    def problems(self) -> tuple[BackendProblem, ...]:
        """What lies in the backends folder and cannot be used, by name."""
        self._refresh()
        return self._problems

    def reload(self) -> None:
        """Read the backends folder again, every file of it."""
        if self._installed is not None:
            self._installed.reload()
        self._build()

    def _refresh(self, *, at_once: bool = False) -> None:
        if self._installed is not None and self._installed.refresh(at_once=at_once):
            self._build()

    def _build(self) -> None:
        found = self._installed.programs if self._installed is not None else ()
        problems = list(self._installed.problems if self._installed is not None else ())
        backends = dict(self._given)
        for program in found:
            if backends.setdefault(program.name, program) is not program:
                source = backends[program.name].source.value
                message = f"has the name of the {source} backend, which is used"
                problems.append(BackendProblem(program.name, message))
        self._names = _named(backends, problems)
        self._backends = {
            name: replace(backend, aliases=tuple(self._aliases(name)))
            for name, backend in backends.items()
        }
        self._problems = tuple(sorted(problems))

    def _aliases(self, name: str) -> list[str]:
        return sorted(
            alias
            for alias, choice in self._names.items()
            if alias != name and choice.backend.name == name
        )


def _named(
    backends: Mapping[str, RegisteredBackend], problems: list[BackendProblem]
) -> dict[str, Choice]:
    names = {name: Choice(backend, "") for name, backend in backends.items()}
    # What an operator brought means more than what we call ours as well.
    brought = [one for one in backends.values() if one.source is not BackendSource.SHIPPED]
    for some in (
        brought,
        [one for one in backends.values() if one.source is BackendSource.SHIPPED],
    ):
        for backend in some:
            for alias in backend.aliases:
                other = names.setdefault(alias, Choice(backend, "")).backend
                if other is not backend and other.source is backend.source and alias != other.name:
                    message = f"its alias {alias} means {other.name}, which is used"
                    problems.append(BackendProblem(backend.name, message))
        for alias, (target, model_type) in LOCALAI_ALIASES.items():
            if target in names:
                names.setdefault(alias, Choice(names[target].backend, model_type))
    return names


def shipped_programs() -> BackendPrograms:
    """Return the programs that come with the package."""
    llama = BackendProgram(
        name="llama",
        argv=(sys.executable, "-m", "localplane_backends.llama"),
        # LocalAI's names for its llama.cpp backend: configurations made for it name these.
        aliases=("llama-cpp", "llama.cpp", "go-llama"),
        extra="llama",
        needs="xllamacpp",
    )
    return BackendPrograms([llama])
