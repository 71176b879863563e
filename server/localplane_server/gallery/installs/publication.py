"""Changes to the models folder that happen together or not at all, whenever the process ends."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import stat
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from localplane_server.gallery.installs.models_folder import CHUNK_BYTES, ModelsFolder, Place

log = logging.getLogger(__name__)

FOLDER_NAME = ".localplane"
"""Where changes are prepared: hidden, and in the models folder itself, so that the last step is always a rename."""
JOURNAL = "journal.json"
UNDO = "undo"
MODE = 0o644
"""Permissions of what is installed. Backends may run as somebody else."""
UNLINKABLE = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
"""What linking fails with where it is not possible, and copying is."""


@dataclass(frozen=True, slots=True)
class Change:
    """A file that comes, is replaced or goes."""

    path: str
    """The file, below the models folder."""

    new: str
    """Name of what takes its place, where changes are prepared. Empty when nothing does."""

    old: str
    """Name that what was in its place gets there."""

    staged: str = ""
    """The file that was staged for it, which goes once all changes are made. Empty when there is none."""


class Publication:
    """Files that come to the models folder and go from it, together or not at all. A context manager.

    First everything new is put beside the models, in a hidden folder. Then a journal says what belongs where. Then
    each file is renamed into its place, in the order in which they were given, and what was there is kept aside.
    Then the journal is removed, and with it what was kept. If the process ends before there is a journal, nothing
    happened, and `recover` clears away; if it ends later, `recover` does the rest of the renames. If a rename fails,
    all of them are taken back. Each step is on disk before the next one begins.

    All of it blocks. One at a time may be in `commit`.
    """

    def __init__(self, folder: ModelsFolder) -> None:
        self._folder = folder
        self._path = f"{FOLDER_NAME}/{uuid.uuid4().hex}"
        self._changes: list[Change] = []
        self._lock = -1

    def __enter__(self) -> Self:
        self._folder.root.mkdir(parents=True, exist_ok=True)
        with self._folder.place(f"{self._path}/any", is_made=True) as place:
            self._lock = os.dup(place.folder)
        # Another service on the same models folder must not take this for what a dead one left.
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            _clear(self._folder, self._path)
            _remove_if_empty(self._folder)
        except OSError:
            # What was changed is changed, and what was not is not. The next recovery clears away.
            log.exception("cannot clear away what a change left", extra={"folder": self._path})
        finally:
            os.close(self._lock)

    @property
    def paths(self) -> list[str]:
        """What it changes, in order."""
        return [one.path for one in self._changes]

    def add(self, path: str, staged: Path) -> None:
        """Put a file that is whole and on disk in the place of a path.

        The file stays where it is, too, until all changes are made: if they are not, it need not be fetched again.

        Raises:
            FileNotFoundError: If it is not there any more.
        """
        new = self._add(path, staged)
        with self._folder.place(f"{self._path}/{new}") as place:
            try:
                os.link(staged, place.name, dst_dir_fd=place.folder, follow_symlinks=False)
                os.chmod(place.name, MODE, dir_fd=place.folder)
            except OSError as error:
                if error.errno not in UNLINKABLE:
                    raise
                _copy(staged, place)

    def write(self, path: str, text: str) -> None:
        """Put a text in the place of a path."""
        new = self._add(path)
        with self._folder.place(f"{self._path}/{new}") as place:
            _write(place, text)

    def remove(self, path: str) -> None:
        """Remove what is at a path; nothing is no error."""
        self._changes.append(Change(path, "", f"old-{len(self._changes)}"))

    def commit(self) -> None:
        """Make all of the changes.

        Raises:
            InstallFailedError: If something is in the way. Everything is as it was then.
            OSError: If the disk fails. Everything is as it was then, as far as the disk lets it.
        """
        with self._folder.place(f"{self._path}/any") as place:
            os.fsync(place.folder)
            _write(Place(place.folder, JOURNAL), json.dumps([asdict(one) for one in self._changes]))
            os.fsync(place.folder)
        _carry_out(self._folder, self._path, self._changes)

    def _add(self, path: str, staged: Path | None = None) -> str:
        number = len(self._changes)
        self._changes.append(
            Change(path, f"new-{number}", f"old-{number}", str(staged.absolute()) if staged else "")
        )
        return f"new-{number}"


def recover(folder: ModelsFolder) -> list[str]:
    """Bring to an end what a process left that ended in the middle. Return the paths that were concerned.

    What another process is working on is left alone. What cannot be brought to an end is logged, and stays for the
    next time.
    """
    concerned: list[str] = []
    try:
        with folder.place(f"{FOLDER_NAME}/any") as place:
            names = sorted(os.listdir(place.folder))  # noqa: PTH208 - of an open folder
    except FileNotFoundError:
        return []
    for name in names:
        path = f"{FOLDER_NAME}/{name}"
        try:
            concerned += _recovered(folder, path)
        except Exception:
            log.exception("an interrupted change was not finished", extra={"folder": path})
    _remove_if_empty(folder)
    return concerned


def _recovered(folder: ModelsFolder, path: str) -> list[str]:
    with folder.place(f"{path}/any") as place:
        if _is_locked(place.folder):
            return []
        changes = _journal(place)
        try:
            if changes and _is_there(Place(place.folder, UNDO)):
                _take_back(folder, path, changes)
            elif changes:
                _carry_out(folder, path, changes)
        finally:
            _clear(folder, path)
    return [one.path for one in changes]


def _carry_out(folder: ModelsFolder, path: str, changes: list[Change]) -> None:
    """Make changes, as far as they are not made yet, and forget the journal."""
    try:
        for change in changes:
            _make(folder, path, change)
    except Exception:
        with folder.place(f"{path}/{UNDO}") as place:
            _write(place, "")
            os.fsync(place.folder)
        _take_back(folder, path, changes)
        raise
    try:
        for change in changes:
            if change.staged:
                # It is the file in its place, under a second name, by which nobody may write to it.
                Path(change.staged).unlink(missing_ok=True)
        _forget(folder, path)
    except OSError:
        # All is in place, and nobody is to be told otherwise. The next recovery finds nothing left to make.
        log.exception("a change was made and cannot be forgotten", extra={"folder": path})


def _make(folder: ModelsFolder, path: str, change: Change) -> None:
    with folder.place(f"{path}/{JOURNAL}") as aside:
        new, old = Place(aside.folder, change.new), Place(aside.folder, change.old)
        if change.new and not _is_there(new):
            return
        try:
            with folder.place(change.path, is_made=bool(change.new)) as place:
                _refuse_folder(place, change.path)
                if not _is_there(old):
                    _keep(place, old, is_replaced=bool(change.new))
                if change.new:
                    _rename(new, place)
                os.fsync(place.folder)
        except FileNotFoundError:
            if change.new:
                raise
        os.fsync(aside.folder)
    if not change.new:
        folder.remove_empty_folders(change.path)


def _take_back(folder: ModelsFolder, path: str, changes: list[Change]) -> None:
    """Undo changes, as far as they are made, and forget the journal.

    What cannot be undone holds up nothing else; the journal stays then, for the next time.
    """
    failures: list[Exception] = []
    for change in reversed(changes):
        try:
            _unmake(folder, path, change)
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)
    if failures:
        raise failures[0]
    _forget(folder, path)


def _unmake(folder: ModelsFolder, path: str, change: Change) -> None:
    with folder.place(f"{path}/{JOURNAL}") as aside:
        new, old = Place(aside.folder, change.new), Place(aside.folder, change.old)
        is_made = bool(change.new) and not _is_there(new)
        if _is_there(old):
            with folder.place(change.path, is_made=True) as place:
                if is_made:
                    _keep(place, new, is_replaced=True)
                # What was to be replaced may still be there, and be kept aside as well.
                if not _is_same(old, place):
                    _rename(old, place)
                    os.fsync(place.folder)
        elif is_made:
            with suppress(FileNotFoundError), folder.place(change.path) as place:
                _rename(place, new)
                os.fsync(place.folder)
        os.fsync(aside.folder)
    folder.remove_empty_folders(change.path)


def _keep(place: Place, old: Place, *, is_replaced: bool) -> None:
    """Keep what is in a place aside. What is replaced stays there until the moment at which it is."""
    if not _is_there(place):
        return
    if is_replaced:
        try:
            os.link(
                place.name,
                old.name,
                src_dir_fd=place.folder,
                dst_dir_fd=old.folder,
                follow_symlinks=False,
            )
        except OSError as error:
            if error.errno not in UNLINKABLE:
                raise
        else:
            return
    _rename(place, old)


def _rename(source: Place, target: Place) -> None:
    os.rename(source.name, target.name, src_dir_fd=source.folder, dst_dir_fd=target.folder)


def _refuse_folder(place: Place, path: str) -> None:
    with suppress(FileNotFoundError):
        found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder is in the place of a file", path)


def _forget(folder: ModelsFolder, path: str) -> None:
    with folder.place(f"{path}/{JOURNAL}") as place:
        with suppress(FileNotFoundError):
            os.unlink(place.name, dir_fd=place.folder)
        os.fsync(place.folder)


def _clear(folder: ModelsFolder, path: str) -> None:
    """Remove a folder in which changes were prepared, unless its journal says that there is still something to do."""
    with suppress(FileNotFoundError), folder.place(path) as place:
        if not _is_there(Place(place.folder, f"{place.name}/{JOURNAL}")):
            shutil.rmtree(place.name, dir_fd=place.folder)


def _remove_if_empty(folder: ModelsFolder) -> None:
    with suppress(OSError), folder.place(FOLDER_NAME) as place:
        os.rmdir(place.name, dir_fd=place.folder)


def _journal(place: Place) -> list[Change]:
    try:
        descriptor = os.open(JOURNAL, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=place.folder)
    except FileNotFoundError:
        return []
    with os.fdopen(descriptor) as file:
        return [Change(**one) for one in json.load(file)]


def _is_locked(descriptor: int) -> bool:
    # The lock goes with the descriptor, which whoever asks keeps open while it works.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _is_there(place: Place) -> bool:
    try:
        os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_same(one: Place, other: Place) -> bool:
    try:
        return os.path.samestat(
            *(
                os.stat(each.name, dir_fd=each.folder, follow_symlinks=False)
                for each in (one, other)
            )
        )
    except FileNotFoundError:
        return False


def _write(place: Place, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    # Under another name first: a journal that is there is whole.
    aside = f"{place.name}.partial"
    with suppress(FileNotFoundError):
        os.unlink(aside, dir_fd=place.folder)
    with os.fdopen(os.open(aside, flags, MODE, dir_fd=place.folder), "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    os.rename(aside, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)


def _copy(staged: Path, place: Place) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        staged.open("rb") as source,
        os.fdopen(os.open(place.name, flags, MODE, dir_fd=place.folder), "wb") as target,
    ):
        shutil.copyfileobj(source, target, CHUNK_BYTES)
        target.flush()
        os.fsync(target.fileno())
