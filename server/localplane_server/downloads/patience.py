"""How long downloads wait, how often they try again, and what is worth another try."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from localplane_server.errors import DownloadFailedError

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Waits and attempts of downloads."""

    connect_seconds: float = 15.0
    """How long a connection may take to be made."""
    stall_seconds: float = 60.0
    """How long a server may send nothing."""
    document_seconds: float = 120.0
    """How long a small document may take in all."""
    attempts: int = 6
    """How often the same thing is tried in a row without any progress."""
    first_delay_seconds: float = 1.0
    """Wait after the first failure. Each further one waits twice as long."""
    longest_delay_seconds: float = 60.0
    """The longest such wait."""
    longest_retry_after_seconds: float = 600.0
    """The longest wait that a server may ask for. One that wants more has failed."""

    def hurried(self) -> Patience:
        """Return the patience for what somebody waits for and can ask for again: facts and documents."""
        return dataclasses.replace(
            self,
            attempts=min(self.attempts, 3),
            longest_delay_seconds=min(self.longest_delay_seconds, 5.0),
            longest_retry_after_seconds=min(self.longest_retry_after_seconds, 10.0),
        )

    def delay(self, failures: int, trouble: TransferError) -> float:
        """Return how long to wait after so many failures in a row, the last of them this one.

        Clients that failed together come back a little apart from each other.
        """
        doubled: float = self.first_delay_seconds * 2 ** (failures - 1)
        delay = min(doubled, self.longest_delay_seconds) * random.uniform(0.75, 1.0)  # noqa: S311 - no secret
        return max(delay, trouble.retry_after_seconds or 0.0)

    def is_over(self, failures: int, trouble: TransferError) -> bool:
        """Whether to give up after so many failures in a row, the last of them this one."""
        wanted = trouble.retry_after_seconds or 0.0
        return (
            trouble.is_lasting
            or failures >= self.attempts
            or wanted > self.longest_retry_after_seconds
        )


class TransferError(Exception):
    """A request that did not give what it should. Stays within this package."""

    def __init__(
        self,
        cause: str,
        *,
        is_lasting: bool = False,
        status: int | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        """What happened, as the end of a sentence."""
        self.is_lasting = is_lasting
        """Whether the same request would fail again."""
        self.status = status
        """Status of HTTP, if that is what was wrong."""
        self.retry_after_seconds = retry_after_seconds
        """When the server wants to be asked again, if it said so."""

    def failure(self, source: str) -> DownloadFailedError:
        """Return the error of the domain that tells this."""
        told = {} if self.status is None else {"status": str(self.status)}
        return DownloadFailedError(source, self.cause, **told)


async def persist(
    patience: Patience, source: str, attempt: Callable[[], Awaitable[_Result]]
) -> _Result:
    """Attempt something until it works or patience ends.

    Raises:
        DownloadFailedError: If patience ends. It tells the cause of the last failure.
    """
    failures = 0
    while True:
        try:
            return await attempt()
        except TransferError as trouble:
            failures += 1
            if patience.is_over(failures, trouble):
                raise trouble.failure(source) from trouble
            await asyncio.sleep(patience.delay(failures, trouble))
