"""Fetches one file, as a process that can be killed. Run as a program.

Usage: ``python download_program.py STAGING URI SHA256 [LARGEST_FILE_BYTES]``. Prints JSON: the path of the file and how
many bytes were staged when it began, or the reason why there is none.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.downloads.credentials import Credentials
from localplane_server.downloads.downloader import Downloader
from localplane_server.downloads.endpoints import Endpoints
from localplane_server.downloads.patience import Patience
from localplane_server.errors import LocalplaneError


async def main(staging: str, uri: str, sha256: str) -> dict[str, str]:
    """Fetch and tell."""
    async with Downloader(
        Path(staging),
        policy=AddressPolicy.of(["127.0.0.1"]),
        endpoints=Endpoints(),
        credentials=Credentials(),
        patience=Patience(attempts=3, first_delay_seconds=0.01),
    ) as downloader:
        try:
            staged = await downloader.fetch(uri, sha256=sha256)
        except LocalplaneError as error:
            return {"reason": error.reason, "message": error.message, **error.metadata}
        return {"path": str(staged.path), "sha256": staged.sha256}


if __name__ == "__main__":
    if len(sys.argv) > 4:
        limit = int(sys.argv[4])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    print(json.dumps(asyncio.run(main(*sys.argv[1:4]))))  # noqa: T201 - it is what others read
