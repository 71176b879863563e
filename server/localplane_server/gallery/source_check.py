"""Looking where a URL leads before anything is fetched from there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult

from localplane_server.downloads.addresses import AddressPolicy, default_port
from localplane_server.downloads.connections import Resolve, resolve
from localplane_server.downloads.endpoints import Endpoints
from localplane_server.downloads.sources import FileSource, WebSource, parse_source
from localplane_server.errors import SourceRefusedError


class SourceCheck:
    """Refuses URLs that lead where they may not, so that whoever names one hears it at once.

    It makes nothing safe: where a name leads may change, so the download looks again.

    Args:
        policy: What may be reached.
        endpoints: Where the sources with names of their own are.
        file_roots: Folders that files may be in.
        offline: Whether names are not to be resolved either.
        find: Finds the addresses of a host.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        endpoints: Endpoints,
        *,
        file_roots: Sequence[Path] = (),
        offline: bool = False,
        find: Resolve = resolve,
    ) -> None:
        self._policy = policy
        self._endpoints = endpoints
        self._roots = [root.resolve() for root in file_roots]
        self._offline = offline
        self._resolve = find

    async def __call__(self, uri: str, /) -> None:
        """Look at a URL, and at where the name in it leads.

        Raises:
            SourceRefusedError: If nothing may be fetched from there.
        """
        parts = self.look(uri)
        if parts is None:
            return
        host = parts.hostname or ""
        port = parts.port or default_port(parts.scheme)
        if self._offline:
            return
        try:
            addresses = await self._resolve(host, port)
        except OSError:
            # Galleries need not be reachable.
            return
        self._policy.reachable(host, port, addresses)

    def look(self, uri: str) -> SplitResult | None:
        """Look at a URL itself, which is done at once; return its parts if it leads to a host.

        Raises:
            SourceRefusedError: If nothing may be fetched from there, whatever the name in it stands for.
        """
        source = parse_source(uri, self._endpoints)
        if isinstance(source, FileSource):
            self._check_path(uri, source.path)
        return self._policy.check_url(source.url) if isinstance(source, WebSource) else None

    def _check_path(self, uri: str, path: str) -> None:
        resolved = Path(path).resolve()
        if not any(resolved.is_relative_to(root) for root in self._roots):
            raise SourceRefusedError(uri, "it is outside the models folder")
