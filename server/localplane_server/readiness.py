"""Whether the service can do its work, and why not."""

from __future__ import annotations

from collections.abc import Callable

from localplane_server.errors import NotReadyError


class Readiness:
    """The causes for which the service is not ready; it is ready when there are none."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}
        self._listeners: list[Callable[[bool], None]] = []

    @property
    def is_ready(self) -> bool:
        """Whether there is no cause against it."""
        return not self._causes

    def block(self, cause: str, message: str) -> None:
        """Be not ready for this cause.

        Args:
            cause: One word, by which `unblock` takes it back.
            message: For people.
        """
        was_ready = self.is_ready
        self._causes[cause] = message
        if was_ready:
            self._tell()

    def unblock(self, cause: str) -> None:
        """Take a cause back."""
        if self._causes.pop(cause, None) is not None and self.is_ready:
            self._tell()

    def listen(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` now and whenever the service becomes ready or stops being so."""
        self._listeners.append(listener)
        listener(self.is_ready)

    def check(self) -> None:
        """Return if the service is ready.

        Raises:
            NotReadyError: If it is not. The message says why.
        """
        if self._causes:
            message = f"not ready: {'; '.join(self._causes.values())}"
            raise NotReadyError(message, causes=",".join(self._causes))

    def _tell(self) -> None:
        for listener in self._listeners:
            listener(self.is_ready)
