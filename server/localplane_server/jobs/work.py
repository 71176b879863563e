"""What jobs do: implemented by whoever has something to do that lasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from localplane_server.jobs.progress import JobProgress

Report = Callable[[JobProgress], None]
"""Takes note of how far work has come. Must be called on the event loop; may be called as often as anybody likes."""


class Work(Protocol):
    """One kind of work. Everything that it needs to know is in the request, which outlives the service."""

    async def run(
        self, request: Mapping[str, Any], report: Report, *, is_again: bool
    ) -> Mapping[str, Any]:
        """Do the work and return what it came to, as JSON has it.

        It is cancelled when the job is paused or cancelled and when the service stops: it then ends within a second
        and keeps what it has fetched, so that another run goes on there. If it cannot turn back any more, it ends as if
        it had not been cancelled. The service can also end at any moment, even after the work is done and before that
        is known: another run of the same request then comes to the same end.

        Args:
            request: What is asked for.
            report: Takes note of how far it is.
            is_again: Whether a run of this job began before. It may have done everything.

        Raises:
            LocalplaneError: If it cannot be done. The job fails with that.
        """

    def identity(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what all requests have in common that come to the same, however they are written.

        It is asked again whenever two requests are compared, for what is known may change: whatever takes time is left
        out. A request that says everything itself is its own identity.
        """

    async def discard(self, request: Mapping[str, Any]) -> None:
        """Throw away what an unfinished run has fetched, if there is anything: the job was cancelled."""
