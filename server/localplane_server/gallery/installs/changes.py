"""Changing the models folder, one change after the other."""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from localplane_server.errors import InstallFailedError, InsufficientStorageError, LocalplaneError
from localplane_server.gallery.blocking import uninterrupted
from localplane_server.gallery.installs.models_folder import ModelsFolder
from localplane_server.gallery.installs.publication import Publication, recover
from localplane_server.models.catalog import ModelCatalog

log = logging.getLogger(__name__)

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Changes:
    """Changes the models folder, and knows what interrupted changes left."""

    def __init__(self, folder: ModelsFolder, staging: Path, catalog: ModelCatalog) -> None:
        self.folder = folder
        """The models folder."""
        self._preparing = staging / "preparing"
        self._catalog = catalog
        self._lock = asyncio.Lock()

    async def recover(self) -> None:
        """Bring to an end what a process that is gone was at, and clear away what it prepared.

        To be called before the first change, by the one process that the staging folder belongs to.
        """

        def work() -> list[str]:
            shutil.rmtree(self._preparing, ignore_errors=True)
            return recover(self.folder)

        async with self._lock:
            concerned = await uninterrupted(asyncio.to_thread(work))
        if concerned:
            log.warning("an interrupted change was finished", extra={"files": sorted(concerned)})
            self._catalog.reload()

    async def make(self, describe: Callable[[Publication], None], *, model: str) -> None:
        """Make one change, wholly or not at all, and have the catalog see it. Once begun it is not interrupted.

        Args:
            describe: Says on a thread what changes.
            model: Whom it is for, for errors.

        Raises:
            InsufficientStorageError: If the disk is full.
            InstallFailedError: If the models folder cannot be changed.
        """

        def work() -> None:
            # What failed to be finished earlier may not come on top of this later.
            recover(self.folder)
            with failures_told(model), Publication(self.folder) as publication:
                describe(publication)
                publication.commit()

        async def change() -> None:
            async with self._lock:
                await asyncio.to_thread(work)
                self._catalog.reload()

        await uninterrupted(change())

    @asynccontextmanager
    async def preparing(self) -> AsyncGenerator[Path]:
        """Give an empty folder for what is made before a change, and remove it afterwards."""
        path = self._preparing / uuid.uuid4().hex
        await asyncio.to_thread(path.mkdir, parents=True, mode=0o700)
        try:
            yield path
        finally:
            await uninterrupted(asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))


@contextmanager
def failures_told(model: str) -> Generator[None]:
    """Turn what the disk says into an error that says what it was about."""
    try:
        yield
    except LocalplaneError:
        raise
    except FileNotFoundError:
        # Something that was there a moment ago: whoever knows what it was tells.
        raise
    except OSError as error:
        cause = error.strerror or str(error)
        if error.errno in NO_SPACE:
            raise InsufficientStorageError(f"cannot install {model}: {cause}") from error
        where = f" ({error.filename})" if isinstance(error.filename, str) else ""
        message = f"cannot change the files of {model}: {cause}{where}"
        raise InstallFailedError(message, model=model) from error
