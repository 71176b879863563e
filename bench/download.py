"""Times the download of a file of 1 GiB, verified and on the disk, against curl, tee, sha256sum and sync.

Usage: ``python bench/download.py [--json] [--rounds N]``. Both fetch from the same server on
loopback, in processes of their own. The time of ours begins when its process has its modules, since
a service has them already; that of curl begins with the shell.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop
from one_file import file_server
from rounds import arguments, comparison, report, take_turns

from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.downloads.credentials import Credentials
from localplane_server.downloads.downloader import Downloader
from localplane_server.downloads.endpoints import Endpoints

SIZE_BYTES = 1024**3
TARGET = 0.8
BASE = 'curl -s "$1" | tee "$2" | sha256sum; sync "$2"'


def main() -> None:
    """Compare and print."""
    if len(sys.argv) > 1 and sys.argv[1] == "fetch":
        print(uvloop.run(_fetch(*sys.argv[2:])))
        return
    options = arguments(__doc__, rounds=3)
    if shutil.which("curl") is None:
        print("skipped: install curl", file=sys.stderr)
        report([], as_json=options.json)
        return
    with TemporaryDirectory(prefix="localplane-bench-") as folder:
        file = Path(folder, "model.bin")
        sha256 = _write(file)
        with file_server(file) as url:

            def ours() -> float:
                argv = [sys.executable, __file__, "fetch", folder, url, sha256]
                return float(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout)

            def base() -> float:
                target = Path(folder, "curl.bin")
                argv = ["sh", "-c", BASE, "sh", url, str(target)]
                began = time.perf_counter()
                done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
                seconds = time.perf_counter() - began
                assert done.stdout.split()[0] == sha256
                target.unlink()
                return seconds

            pairs = take_turns(ours, base, rounds=options.rounds)
    result = comparison("download of 1 GiB, verified", pairs, unit="s", target=TARGET)
    report([result], as_json=options.json)


def _write(file: Path) -> str:
    """Write the file, and return its digest."""
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for _ in range(SIZE_BYTES // (16 * 1024**2)):
            piece = os.urandom(16 * 1024**2)
            out.write(piece)
            digest.update(piece)
        os.fsync(out.fileno())
    return digest.hexdigest()


async def _fetch(folder: str, url: str, sha256: str) -> float:
    """Fetch the file, and return how long that took."""
    began = time.perf_counter()
    async with Downloader(
        Path(folder, "staging"),
        policy=AddressPolicy.of(["127.0.0.1"]),
        endpoints=Endpoints(),
        credentials=Credentials(),
    ) as downloader:
        staged = await downloader.fetch(url, sha256=sha256)
    seconds = time.perf_counter() - began
    staged.path.unlink()
    return seconds


if __name__ == "__main__":
    main()
