"""What all running backends have in common, whoever runs them: loading a model, ending, telling why."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from localplane_server.errors import BackendGoneError, LoadFailedError, LocalplaneError
from localplane_server.supervision.backend_client import BackendClient
from localplane_server.supervision.calls import LoadOptions
from localplane_server.supervision.process_table import Entry
from localplane_server.supervision.redaction import redacted

log = logging.getLogger(__name__)

T = TypeVar("T")

FREE_SECONDS = 5.0
"""How long a backend may take to free its model before it is ended all the same."""
DEATH_SECONDS = 5.0
"""How long a backend whose connection broke may take to be seen to end, on a machine that is busy."""


class RunningBackend(ABC):
    """A backend that answers. It has no model until `load`, and none after `stop`."""

    unseen: str | None = None
    """Why the operating system here has no figures of it. None where it has."""

    def __init__(
        self,
        model: str,
        client: BackendClient,
        *,
        hidden: Sequence[Path],
        secrets: Sequence[str] = (),
    ) -> None:
        """Take over a backend that answers.

        Args:
            model: Name of the model that it is for.
            client: Calls it.
            hidden: Folders that errors do not name: whoever asks for a model need not learn where things are kept.
            secrets: What else errors do not say.
        """
        self.model = model
        """Name of the model that it is for."""
        self.client = client
        """Calls it."""
        self.is_stopping = False
        """Whether it was asked to stop: then a broken connection is no failure."""
        self._hidden = tuple(f"{folder}/" for folder in hidden)
        self._secrets = tuple(secrets)

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """Its process. None where that is not ours."""

    @property
    @abstractmethod
    def exited(self) -> asyncio.Future[Any]:
        """Done once it has ended by itself or by `stop`; the result says in words how. Shield it to wait for it."""

    @abstractmethod
    def tree_in(self, table: Mapping[int, Entry]) -> list[int]:
        """Return its living processes by a process table, the backend first."""

    @abstractmethod
    def ended(self) -> str:
        """Say how it ended."""

    @abstractmethod
    async def log_lines(self) -> list[str]:
        """Return the last lines that it wrote, where they can be seen."""

    @abstractmethod
    async def stop(
        self, *, free: bool = True, cut_calls: bool = False, within_seconds: float | None = None
    ) -> int | None:
        """End it and return the bytes that came back, or None when they could not be read.

        Returns when nothing of it is left here. One that ended by itself is cleaned up after.

        Args:
            free: Whether it is asked to free its model first.
            cut_calls: Whether calls in flight are cut first. Else they end when it does.
            within_seconds: How long all of it may take. Default: as long as a backend may take to free its model
                and to end by itself.
        """

    @abstractmethod
    async def hurry(self, within_seconds: float) -> None:
        """Have a stop that is going on be over within so many seconds."""

    async def load(self, options: LoadOptions) -> None:
        """Load the model, however long that takes.

        Raises:
            LoadFailedError: If the backend refuses, or ends meanwhile. The message carries the cause and the last
                lines of the log.
        """
        loading = asyncio.ensure_future(self.client.load(options))
        try:
            await asyncio.wait((loading, self.exited), return_when=asyncio.FIRST_COMPLETED)
            if self.exited.done():
                raise await self.load_error(self.ended())
            try:
                await loading
            except BackendGoneError as error:
                # The connection breaks a moment before the end is seen.
                await self.wait_for_end(DEATH_SECONDS)
                cause = self.ended() if self.exited.done() else error.message
                raise await self.load_error(cause) from error
            except LocalplaneError as error:
                raise await self.load_error(error.message) from error
        finally:
            loading.cancel()

    async def load_error(self, cause: str) -> LoadFailedError:
        """Return the error of a load that failed for this cause, with the last lines of the log."""
        message = self._discreet(f"cannot load model {self.model}: {cause}")
        return LoadFailedError(quoting(message, await self.last_words()), model=self.model)

    async def last_words(self) -> str:
        """Return the last lines that it wrote as one, without what callers are not told. Empty when there are none."""
        return self._discreet(" | ".join(await self.log_lines()))

    async def wait_for_end(self, seconds: float) -> None:
        """Wait until it has ended, but no longer than so many seconds."""
        await asyncio.wait((self.exited,), timeout=seconds)

    def _discreet(self, text: str) -> str:
        for folder in self._hidden:
            text = text.replace(folder, "")
        return redacted(text, self._secrets)

    async def free(self, seconds: float) -> None:
        """Ask it to free its model. One that does not is no failure: it is ended all the same."""
        try:
            await self.client.free(seconds)
        except LocalplaneError as error:
            log.debug("a backend did not free its model", extra={"cause": error.message})


def quoting(message: str, last_words: str) -> str:
    """Return a message with the last lines of a log behind it, if there are any."""
    return f"{message}; last lines of its log: {last_words}" if last_words else message


async def completed(work: Awaitable[T]) -> T:
    """Return what the work returns, however often the caller is cancelled meanwhile: for cleaning up."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            log.debug("a clean-up goes on")
    return task.result()
