"""The backends in the backends folder: `NAME/run.sh`, and `metadata.json` beside it if an installation wrote one."""

from __future__ import annotations

import logging
import os
import stat
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import orjson

from localplane_server.setting_values import BACKEND_NAME
from localplane_server.supervision.programs import (
    BackendMetadata,
    BackendProblem,
    BackendProgram,
    BackendSource,
)

log = logging.getLogger(__name__)

RUN_FILE = "run.sh"
METADATA_FILE = "metadata.json"
LARGEST_METADATA = 64 * 1024
"""Bytes of the largest `metadata.json` that is read."""
LOOK_SECONDS = 1.0
"""How often the folder is looked at for changes."""

_METADATA_KEYS = tuple(one.name for one in fields(BackendMetadata))

Fingerprint = dict[str, tuple[tuple[int, ...], ...]]


class InstalledBackends:
    """Reads the backends folder, and again when something in it changed. What is broken is told and left out.

    Nothing outside the folder is read or run, whatever its entries link to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        """The folder. It may be missing: then there are no backends."""
        self._fingerprint: Fingerprint | None = None
        self._looked_at = 0.0
        self._programs: tuple[BackendProgram, ...] = ()
        self._problems: tuple[BackendProblem, ...] = ()

    @property
    def programs(self) -> tuple[BackendProgram, ...]:
        """The backends, by name."""
        return self._programs

    @property
    def problems(self) -> tuple[BackendProblem, ...]:
        """What could not be used, by name."""
        return self._problems

    def refresh(self, *, at_once: bool = False) -> bool:
        """Look for changes, unless that was done within a second; return whether there are any.

        Args:
            at_once: Whether to look whenever it was done last.
        """
        now = time.monotonic()
        if not at_once and self._fingerprint is not None and now - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = now
        seen = _fingerprint(self.root)
        if self._fingerprint == seen:
            return False
        self._read(seen)
        return True

    def reload(self) -> None:
        """Read the folder again, every file of it."""
        self._read(_fingerprint(self.root))

    def _read(self, fingerprint: Fingerprint) -> None:
        """Read the folder, of which this was seen before."""
        self._fingerprint = fingerprint
        before = self._problems
        self._scan()
        for problem in self._problems:
            if problem not in before:
                extra = {"entry": problem.name, "cause": problem.message}
                log.warning("an entry of the backends folder cannot be used", extra=extra)

    def _scan(self) -> None:
        root = self.root.resolve()
        programs: dict[str, BackendProgram] = {}
        metas: dict[str, BackendMetadata] = {}
        problems: list[BackendProblem] = []
        try:
            names = _entries(root)
        except OSError as error:
            names = []
            problems.append(BackendProblem(".", f"cannot be read: {error.strerror}"))
        for name in names:
            try:
                metadata = _metadata(root, name)
                if metadata is not None and metadata.meta_backend_for:
                    metas[name] = metadata
                else:
                    programs[name] = _program(root, name, metadata)
            except _EntryError as error:
                problems.append(BackendProblem(_shown(name), str(error)))
            except (OSError, RuntimeError) as error:
                # A folder that may not be entered, links that were made into a circle meanwhile.
                problems.append(BackendProblem(_shown(name), f"cannot be read: {error}"))
        for name, metadata in metas.items():
            target = programs.get(metadata.meta_backend_for)
            if target is None or target.name in metas:
                message = f"stands for {metadata.meta_backend_for}, which is no backend here"
                problems.append(BackendProblem(name, message))
            else:
                aliases = (metadata.alias,) if metadata.alias else ()
                programs[name] = replace(target, name=name, aliases=aliases, metadata=metadata)
        self._programs = tuple(programs[name] for name in sorted(programs))
        self._problems = tuple(sorted(problems))


class _EntryError(ValueError):
    """An entry is no backend. The message says why."""


def _entries(root: Path) -> list[str]:
    """Return the names in the folder that mean to be backends, sorted."""
    try:
        with os.scandir(root) as entries:
            return sorted(
                entry.name
                for entry in entries
                # What an installation has not finished is hidden; files beside the backends are anybody's.
                if not entry.name.startswith(".") and (entry.is_symlink() or entry.is_dir())
            )
    except FileNotFoundError:
        return []


def _program(root: Path, name: str, metadata: BackendMetadata | None) -> BackendProgram:
    path = root / name / RUN_FILE
    if not _regular_file(root, path):
        raise _EntryError(f"has no {RUN_FILE}")
    if not os.access(path, os.X_OK):
        raise _EntryError(f"its {RUN_FILE} is not executable")
    return BackendProgram(
        name=name,
        argv=(str(path),),
        aliases=(metadata.alias,) if metadata is not None and metadata.alias else (),
        source=BackendSource.INSTALLED,
        cwd=path.parent,
        metadata=metadata,
    )


def _metadata(root: Path, name: str) -> BackendMetadata | None:
    """Return what an installation wrote of an entry whose name and place are right; None where none did."""
    if not BACKEND_NAME.fullmatch(name):
        raise _EntryError("is not called as a backend may be: with letters, digits, -, _ and .")
    folder = root / name
    if not folder.is_dir():
        raise _EntryError("links to no folder")
    _check_inside(root, folder)
    path = folder / METADATA_FILE
    if not _regular_file(root, path):
        return None
    try:
        if path.stat().st_size > LARGEST_METADATA:
            raise _EntryError(f"its {METADATA_FILE} is larger than {LARGEST_METADATA} bytes")
        content = orjson.loads(path.read_bytes())
    except OSError as error:
        raise _EntryError(f"its {METADATA_FILE} cannot be read: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise _EntryError(f"its {METADATA_FILE} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise _EntryError(f"its {METADATA_FILE} is not a JSON object")
    return _checked(content)


def _checked(content: dict[str, Any]) -> BackendMetadata:
    texts = {}
    for key in _METADATA_KEYS:
        value = content.get(key)
        if value is not None and not isinstance(value, str):
            raise _EntryError(f"{key} in its {METADATA_FILE} is not text")
        texts[key] = value or ""
    for key in ("alias", "meta_backend_for"):
        if texts[key] and not BACKEND_NAME.fullmatch(texts[key]):
            raise _EntryError(f"{key} in its {METADATA_FILE} is no name of a backend")
    return BackendMetadata(**texts)


def _regular_file(root: Path, path: Path) -> bool:
    """Whether there is a regular file inside the folder, whatever links lead there."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _EntryError(f"its {path.name} cannot be read: {error.strerror}") from error
    _check_inside(root, path)
    return True


def _check_inside(root: Path, path: Path) -> None:
    if not path.resolve().is_relative_to(root):
        what = "" if path.parent == root else f"its {path.name} "
        raise _EntryError(f"{what}links out of the backends folder")


def _fingerprint(root: Path) -> Fingerprint:
    """Return what changes when an entry comes, goes or changes."""
    try:
        names = _entries(root)
    except OSError:
        return {"": ()}
    return {
        name: tuple(
            stamp
            for path in (root / name, root / name / RUN_FILE, root / name / METADATA_FILE)
            for stamp in (_stamp(path, follows=False), _stamp(path, follows=True))
        )
        for name in names
    }


def _stamp(path: Path, *, follows: bool) -> tuple[int, ...]:
    try:
        seen = path.stat(follow_symlinks=follows)
    except OSError:
        return ()
    return (seen.st_ino, seen.st_mode, seen.st_size, seen.st_mtime_ns)


def _shown(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")
