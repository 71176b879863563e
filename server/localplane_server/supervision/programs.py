"""The backend programs that can be started, by name and alias."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendProgram:
    """A program that speaks the backend protocol."""

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

    @property
    def missing(self) -> str | None:
        """The extra that must be installed before the program can start, or None."""
        if self.needs is None or importlib.util.find_spec(self.needs) is not None:
            return None
        return self.extra


class BackendPrograms:
    """The programs that can be started. A model's configuration can name these and no others."""

    def __init__(self, programs: Iterable[BackendProgram]) -> None:
        self._programs = {program.name: program for program in programs}
        self._names = dict(self._programs)
        for program in self._programs.values():
            for alias in program.aliases:
                self._names.setdefault(alias, program)

    def get(self, name: str) -> BackendProgram | None:
        """Return the program of that name or alias, or None."""
        return self._names.get(name)

    def all(self) -> list[BackendProgram]:
        """Return the programs, by name."""
        return [self._programs[name] for name in sorted(self._programs)]

    def names(self) -> list[str]:
        """Return all names and aliases, each once, sorted."""
        return sorted(self._names)


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
