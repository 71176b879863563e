"""Installing and deleting as kinds of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localplane_server.errors import InvalidArgumentError, ModelNotFoundError
from localplane_server.gallery.installs.deletion import Remover
from localplane_server.gallery.installs.file_names import installed_name
from localplane_server.gallery.installs.installation import Installer
from localplane_server.gallery.installs.request import InstallRequest
from localplane_server.gallery.installs.resolution import Resolver
from localplane_server.jobs.work import Report

INSTALL = "install"
"""Kind of a job that installs a model. Its request is that of `InstallRequest.to_json`."""
DELETE = "delete"
"""Kind of a job that deletes a model. Its request is that of `deletion`."""
NAME = "name"


class InstallWork:
    """Installs a model."""

    def __init__(self, installer: Installer, resolver: Resolver) -> None:
        self._installer = installer
        self._resolver = resolver

    async def run(
        self, request: Mapping[str, Any], report: Report, *, is_again: bool
    ) -> Mapping[str, Any]:
        """See `Work`. What is installed already is not installed anew, so every run may be the first."""
        installed = await self._installer.install(InstallRequest.from_json(request), report)
        return installed.to_json()

    async def discard(self, request: Mapping[str, Any]) -> None:
        """See `Work`."""
        await self._installer.discard(InstallRequest.from_json(request))

    def identity(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Work`: an entry of a gallery is the same by all its names."""
        try:
            return self._resolver.identity(InstallRequest.from_json(request))
        except InvalidArgumentError:
            # An earlier service took what this one would refuse.
            return request


class DeleteWork:
    """Deletes a model."""

    def __init__(self, remover: Remover) -> None:
        self._remover = remover

    async def run(
        self, request: Mapping[str, Any], report: Report, *, is_again: bool
    ) -> Mapping[str, Any]:
        """See `Work`."""
        name = request.get(NAME)
        if not isinstance(name, str):
            raise InvalidArgumentError("cannot delete a model without its name", field=NAME)
        try:
            removed = await self._remover.delete(name, report)
        except ModelNotFoundError:
            if not is_again:
                raise
            # The service ended between the deletion and the end of the job. What it came to is not known any more.
            return {NAME: name, "removed": [], "kept": [], "freed_bytes": 0}
        return removed.to_json()

    async def discard(self, request: Mapping[str, Any]) -> None:
        """See `Work`. A deletion fetches nothing."""

    def identity(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Work`. What is deleted is what is called just so, be it a model or a file."""
        return request


def deletion(name: str) -> dict[str, Any]:
    """Return the request of a job that deletes a model. `request.target` has its target.

    Raises:
        InvalidModelNameError: If nothing can be called so.
    """
    installed_name(name, field="model")
    return {NAME: name}
