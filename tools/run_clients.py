"""Build the clients in ``examples/clients`` and run them against a service of their own.

Usage: ``python tools/run_clients.py [go] [node]``, all languages by default. Run by
``make test-clients``. A language is skipped, and the reason printed, where its toolchain is missing
or too old or what it needs cannot be fetched. Where it can be built, everything must hold: the
generated code is fresh, the formatting and types are right, and the program does what it promises
and fails as it should.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from generate_clients import CACHE, CLIENTS, LANGUAGES, ROOT, run, stale

PATIENCE_SECONDS = 120
NO_NETWORK = re.compile(
    r"EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENOTCACHED|ENOTFOUND|ETIMEDOUT|E40[13]\b|40[13] Forbidden|"
    r"dial tcp|i/o timeout|TLS handshake timeout|module lookup disabled"
)
PROMISED = (
    r"model: tiny\n"
    r"load: model loaded\n"
    r"monitor: MONITOR_STATE_READY, process [1-9]\d*\n"
    r"monitor: [1-9]\d* MiB resident\n"
    r"answer: (?s:.+)\n"
    r"usage: [1-9]\d* tokens of the prompt, [1-9]\d* generated\n"
    r"tokens: [1-9]\d* generated at [1-9]\d*\.\d per second, [1-9]\d* since 20\d\d-\S+Z\n"
    r"stop: model stopped after \d+\.\d\d s\n"
    r"monitor: MODEL_NOT_LOADED, as it should be now\n"
)
"""What each program writes."""


class SkippedError(Exception):
    """A language cannot be tried on this machine."""


@dataclass(frozen=True, slots=True)
class Program:
    """How to build and start the client in one language."""

    require: Callable[[], None]
    """Raises `SkippedError` when the toolchain does not do."""
    build: tuple[tuple[str, ...], ...]
    """Commands that check and build it, in the example's folder."""
    start: tuple[str, ...]
    """The command that starts it, there."""


def _require_go() -> None:
    said = _version("go", "version", pattern=r"go(\d+)\.(\d+)")
    needed = re.search(
        r"^go (\d+)\.(\d+)", (ROOT / CLIENTS / "go" / "go.mod").read_text(), re.MULTILINE
    )
    assert needed is not None  # noqa: S101 - go.mod always says
    if said < (int(needed[1]), int(needed[2])):
        raise SkippedError(f"go {said[0]}.{said[1]} is older than {needed[1]}.{needed[2]}")


def _require_node() -> None:
    _version("npm", "--version", pattern=r"(\d+)\.(\d+)")
    said = _version("node", "--version", pattern=r"v(\d+)\.(\d+)")
    if said < (20, 0):
        raise SkippedError(f"node {said[0]}.{said[1]} is older than 20")


def _version(program: str, flag: str, *, pattern: str) -> tuple[int, int]:
    if shutil.which(program) is None:
        raise SkippedError(f"{program} is not installed")
    # Where Go may fetch a newer one of itself it is asked about the one that is there.
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    done = subprocess.run(
        [program, flag], capture_output=True, text=True, check=False, env=environment
    )
    found = re.search(pattern, done.stdout)
    if done.returncode != 0 or found is None:
        raise SkippedError(f"{program} {flag} fails: {done.stderr.strip()}")
    return int(found[1]), int(found[2])


PROGRAMS = {
    "go": Program(
        _require_go,
        (
            ("sh", "-c", 'test -z "$(gofmt -l .)" || { gofmt -d .; exit 1; }'),
            ("go", "mod", "verify"),
            ("go", "vet", "-mod=readonly", "./..."),
            ("go", "build", "-mod=readonly", "-o", str(CACHE / "go-client"), "."),
        ),
        (str(CACHE / "go-client"),),
    ),
    "node": Program(
        _require_node,
        (("npm", "run", "--silent", "build"),),
        ("node", "dist/main.js"),
    ),
}
"""The programs, by language."""


@contextlib.contextmanager
def served() -> Iterator[str]:
    """Run a service with a tiny model for as long as the context is open; give its address."""
    with tempfile.TemporaryDirectory(prefix="localplane-clients-") as name:
        models = Path(name, "models")
        models.mkdir()
        write = runpy.run_path(str(ROOT / "tools" / "make_tiny_gguf.py"))["write_tiny_gguf"]
        write(models / "tiny.gguf")
        # Greedy, so that what it says, and that it says something, does not depend on luck.
        (models / "tiny.yaml").write_text(
            "name: tiny\nbackend: llama\nparameters: {model: tiny.gguf, temperature: 0}\n"
        )
        log = Path(name, "log")
        with log.open("w") as errors:
            service = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-c"),
                    "from localplane_server.cli import main; main()",
                    *("serve", "--data-dir", name),
                    *("--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            assert service.stdout is not None  # noqa: S101 - asked for above
            found = re.fullmatch(r"ready grpc=(\S+) http=\S+ pid=\d+\n", service.stdout.readline())
            if found is None:
                raise ChildProcessError(f"the service does not start: {log.read_text()}")
            yield found[1]
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(PATIENCE_SECONDS)


def prepare(language: str) -> None:
    """Fetch what a client needs, look whether its generated code is fresh, and build it.

    Raises:
        SkippedError: If that cannot be done on this machine.
        ChildProcessError: If something is wrong with the client.
        subprocess.CalledProcessError: The same, as the toolchain found it.
    """
    PROGRAMS[language].require()
    try:
        LANGUAGES[language].fetch()
    except subprocess.CalledProcessError as error:
        found = NO_NETWORK.search(error.output)
        if found is None:
            raise
        line = next(line for line in error.output.splitlines() if found[0] in line)
        raise SkippedError(f"its libraries cannot be fetched: {line}") from error
    differing = stale(LANGUAGES[language])
    if differing:
        raise ChildProcessError(
            f"not what `make gen-clients` gives with this proto/: {', '.join(differing)}"
        )
    for command in PROGRAMS[language].build:
        run(*command, folder=CLIENTS / language)


def call(language: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a client that was built."""
    return subprocess.run(
        [*PROGRAMS[language].start, *arguments],
        cwd=ROOT / CLIENTS / language,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def prove(language: str, address: str) -> None:
    """Run a client as it is meant, with a model that is not there, and without a server.

    Raises:
        ChildProcessError: If it does not do what it promises.
    """
    done = call(language, "--address", address)
    print(f"\n--- {language}, run against a service:\n{done.stdout}{done.stderr}", end="")
    if done.returncode != 0 or re.fullmatch(PROMISED, done.stdout) is None:
        raise ChildProcessError(
            f"it ended with {done.returncode} and wrote other lines than it should"
        )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        # Nothing answers here once it is closed.
        nobody = "{}:{}".format(*taken.getsockname())
    for case, arguments in {
        "a model that is not there": ("--address", address, "--model", "nobody"),
        "no service": ("--address", nobody),
    }.items():
        done = call(language, *arguments)
        print(f"--- {language}, {case}: exit {done.returncode}: {done.stderr}", end="")
        if done.returncode == 0 or not done.stderr.startswith("error: "):
            raise ChildProcessError(f"with {case} it ended with {done.returncode}")


def main() -> int:
    """Build all clients that can be built, then run them one after the other."""
    parser = argparse.ArgumentParser(description="Build and run the clients in examples/clients.")
    parser.add_argument("languages", nargs="*", metavar="LANGUAGE", help="go, node")
    languages = parser.parse_args().languages or list(PROGRAMS)
    unknown = set(languages) - PROGRAMS.keys()
    if unknown:
        parser.error(f"no example in {', '.join(sorted(unknown))}")
    outcome = {}
    with contextlib.ExitStack() as stack:
        address = ""
        for language in languages:
            try:
                prepare(language)
                address = address or stack.enter_context(served())
                prove(language, address)
            except SkippedError as error:
                outcome[language] = f"skipped: {error}"
            except (ChildProcessError, subprocess.CalledProcessError) as error:
                print(getattr(error, "output", None) or "", end="")
                outcome[language] = f"failed: {error}"
            else:
                outcome[language] = "passed"
    for language, told in outcome.items():
        print(f"client in {language}: {told}")
    return 1 if any(told.startswith("failed") for told in outcome.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
