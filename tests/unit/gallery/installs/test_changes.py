"""Changes of the models folder, one after the other."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from localplane_server.errors import InstallFailedError, InsufficientStorageError
from localplane_server.gallery.installs.changes import Changes, failures_told
from localplane_server.gallery.installs.models_folder import ModelsFolder
from localplane_server.gallery.installs.publication import Publication
from localplane_server.models.catalog import ModelCatalog


@pytest.fixture
def catalog(tmp_path: Path) -> ModelCatalog:
    (tmp_path / "models").mkdir()
    return ModelCatalog(tmp_path / "models")


@pytest.fixture
def changes(tmp_path: Path, catalog: ModelCatalog) -> Changes:
    return Changes(ModelsFolder(catalog.root), tmp_path / "staging", catalog)


def writes(name: str) -> Callable[[Publication], None]:
    return lambda publication: publication.write(f"{name}.yaml", f"name: {name}\nbackend: llama\n")


class TestMake:
    async def test_seen(self, changes: Changes, catalog: ModelCatalog) -> None:
        """The catalog has what changed as soon as the change is made."""
        await changes.make(writes("x"), model="x")

        assert ["x"] == [one.name for one in catalog.configured()]

    async def test_one_at_a_time(self, changes: Changes) -> None:
        """However many are asked for, one is made at a time."""
        busy = threading.Lock()

        def describe(publication: Publication) -> None:
            assert busy.acquire(blocking=False)
            publication.write("x", "text")
            busy.release()

        await asyncio.gather(*(changes.make(describe, model="x") for _ in range(20)))

    async def test_cancelled(self, changes: Changes, catalog: ModelCatalog) -> None:
        """One that began is made, even if whoever asked for it is cancelled, and cancelled again."""
        began, goes_on = threading.Event(), threading.Event()

        def describe(publication: Publication) -> None:
            began.set()
            assert goes_on.wait(30)
            writes("x")(publication)

        task = asyncio.create_task(changes.make(describe, model="x"))
        await asyncio.to_thread(began.wait)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        goes_on.set()
        await task

        assert ["x"] == [one.name for one in catalog.configured()]

    async def test_failed(self, changes: Changes, catalog: ModelCatalog) -> None:
        """One that fails is told as a failure, and the next one is made."""

        def describe(publication: Publication) -> None:
            writes("x")(publication)
            raise OSError(errno.EIO, "Input/output error")

        with pytest.raises(InstallFailedError, match="cannot change the files of x: Input"):
            await changes.make(describe, model="x")
        await changes.make(writes("y"), model="y")

        assert ["y"] == [one.name for one in catalog.configured()]


class TestRecover:
    async def test_prepared(self, changes: Changes) -> None:
        """What was prepared for a change that never began is cleared away."""
        async with changes.preparing() as folder:
            (folder / "x").write_text("x")
            left = folder.parent / "left"
            left.mkdir()
            assert 0o700 == folder.stat().st_mode & 0o777

        await changes.recover()

        assert not folder.exists()
        assert not left.exists()

    async def test_nothing(self, changes: Changes) -> None:
        """Where there is nothing, nothing happens."""
        await changes.recover()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full(number: int) -> None:
    """A full disk is told as such."""
    with pytest.raises(InsufficientStorageError), failures_told("x"):
        raise OSError(number, "full")
