"""What a service says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import click

from localplane_client import Client, UnavailableError
from localplane_server.cli.text import columns_of, cut, printable


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A service, as last seen."""

    target: str
    """Where it is."""
    version: str
    """Its version."""
    cause: str | None
    """Why it is not ready. None when it is."""

    @classmethod
    def ask(cls, client: Client, target: str) -> Self:
        """Ask a service.

        Raises:
            LocalplaneError: If it does not say.
        """
        version = client.get_version().version
        try:
            client.ready()
        except UnavailableError as error:
            if error.reason != "NOT_READY":
                raise
            return cls(target, version, error.message)
        return cls(target, version, None)

    def line(self, columns: int | None = None) -> str:
        """Return it in a line, in colours, of no more than so many columns."""
        before = f"Localplane {printable(self.version)} at {self.target}: "
        state = printable(self.cause or "ready").replace("\n", " ")
        if columns is not None:
            before = cut(before, columns)
            state = cut(state, columns - columns_of(before))
        return before + click.style(state, fg="green" if self.cause is None else "red")

    def document(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "grpc": self.target,
            "version": self.version,
            "ready": self.cause is None,
            "message": self.cause,
        }
