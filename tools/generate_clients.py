"""Generate the code in ``examples/clients`` from ``proto/``, or check that it is fresh.

Usage: ``python tools/generate_clients.py [--check] [go] [node]``, all languages by default. Run by
``make gen-clients``. Each language's own plugin is used, in the version that the example's lock
file names; it is fetched when it is not there.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import google.rpc

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = Path("examples", "clients")
CACHE = ROOT / ".cache" / "clients"
GO_PLUGINS = CACHE / "go-plugins"
# Errors carry google.rpc.ErrorInfo; its protos come with googleapis-common-protos.
COMMON = Path(next(iter(google.rpc.__path__))).parents[1]


@dataclass(frozen=True, slots=True)
class Client:
    """A language."""

    tool: str
    """Program that must be there."""
    code: Path
    """Folder of what is generated, below the checkout. It holds nothing else."""
    fetch: Callable[[], None]
    """Fetches all that the example and the plugins need, checked against the lock file."""
    options: Callable[[Path], list[str]]
    """Returns protoc's options to generate into a folder that stands for `code`, once the plugins are there."""
    more: tuple[str, ...]
    """Protos to generate besides our own, because no library of the language has them."""


def _fetch_go() -> None:
    run("go", "mod", "download", folder=CLIENTS / "go")


def _go(target: Path) -> list[str]:
    # Built rather than fetched: go.sum is the lock.
    run("go", "install", "tool", folder=CLIENTS / "go", GOBIN=str(GO_PLUGINS))
    plugins = [f"--plugin={GO_PLUGINS / name}" for name in ("protoc-gen-go", "protoc-gen-go-grpc")]
    # The protos name the package localplane.dev/go/localplane/v1; the example is localplane.dev/go.
    module = "module=localplane.dev/go/localplane"
    return [
        *plugins,
        *(f"--go_out={target}", f"--go_opt={module}"),
        *(f"--go-grpc_out={target}", f"--go-grpc_opt={module}"),
    ]


def _fetch_node() -> None:
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", folder=CLIENTS / "node")


def _node(target: Path) -> list[str]:
    plugin = ROOT / CLIENTS / "node" / "node_modules" / ".bin" / "protoc-gen-ts_proto"
    if not plugin.exists():
        _fetch_node()
    chosen = {
        "outputServices": "grpc-js",
        "env": "node",
        "esModuleInterop": "true",
        "importSuffix": ".js",
        # grpc-js wants the binary form only.
        "outputJsonMethods": "false",
        # Options of the protos are for the service.
        "emitImportedFiles": "false",
    }
    return [
        f"--plugin={plugin}",
        f"--ts_proto_out={target}",
        "--ts_proto_opt=" + ",".join(f"{name}={value}" for name, value in chosen.items()),
    ]


LANGUAGES = {
    "go": Client("go", CLIENTS / "go" / "localplane", _fetch_go, _go, ()),
    "node": Client(
        "npm",
        CLIENTS / "node" / "src" / "gen",
        _fetch_node,
        _node,
        (
            "google/api/httpbody.proto",
            "google/protobuf/any.proto",
            "google/protobuf/duration.proto",
            "google/protobuf/struct.proto",
            "google/protobuf/timestamp.proto",
            "google/rpc/error_details.proto",
            "google/rpc/status.proto",
        ),
    ),
}
"""The languages, by name."""


def run(*command: str, folder: Path = Path(), **environment: str) -> None:
    """Run a command in a folder of the checkout.

    Raises:
        subprocess.CalledProcessError: If it fails; what it said is in `output`.
    """
    if not os.access(os.environ.get("HOME", ""), os.W_OK):
        # Go and npm keep their caches there. Go's files are read-only, unless asked otherwise.
        environment = {"HOME": str(CACHE), "GOFLAGS": "-modcacherw", **environment}
    subprocess.run(
        command,
        cwd=ROOT / folder,
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def generate(client: Client, target: Path) -> None:
    """Generate a language's code into a folder."""
    ours = sorted(
        str(path.relative_to(ROOT / "proto"))
        for path in (ROOT / "proto/localplane/v1").glob("*.proto")
    )
    run(
        *(sys.executable, "-m", "grpc_tools.protoc"),
        *("-Iproto", "-Iproto/third_party", f"-I{COMMON}"),
        *client.options(target),
        *(*ours, *client.more),
    )


def stale(client: Client) -> list[str]:
    """Return the files that differ from what the protos give, relative to the checkout."""
    with tempfile.TemporaryDirectory(prefix="localplane-clients-") as folder:
        fresh, committed = Path(folder), ROOT / client.code
        generate(client, fresh)
        names = {
            path.relative_to(root)
            for root in (fresh, committed)
            for path in root.rglob("*")
            if path.is_file()
        }
        _, differing, missing = filecmp.cmpfiles(
            fresh, committed, sorted(map(str, names)), shallow=False
        )
    return sorted(str(client.code / name) for name in (*differing, *missing))


def replace(client: Client) -> None:
    """Put what the protos give in the place of what the checkout has."""
    with tempfile.TemporaryDirectory(prefix="localplane-clients-") as folder:
        generate(client, Path(folder))
        shutil.rmtree(ROOT / client.code, ignore_errors=True)
        shutil.copytree(folder, ROOT / client.code)


def main() -> int:
    """Generate, then compare or replace."""
    parser = argparse.ArgumentParser(description="Generate the code in examples/clients.")
    parser.add_argument("--check", action="store_true", help="fail if it is stale; write nothing")
    parser.add_argument("languages", nargs="*", metavar="LANGUAGE", help="go, node")
    arguments = parser.parse_args()
    unknown = set(arguments.languages) - LANGUAGES.keys()
    if unknown:
        parser.error(f"no example in {', '.join(sorted(unknown))}")
    report: list[str] = []
    for name in arguments.languages or LANGUAGES:
        if shutil.which(LANGUAGES[name].tool) is None:
            print(f"cannot generate for {name}: {LANGUAGES[name].tool} is not installed")
            return 1
        try:
            if arguments.check:
                report += stale(LANGUAGES[name])
            else:
                replace(LANGUAGES[name])
        except subprocess.CalledProcessError as error:
            print(error.output)
            return 1
    for path in report:
        print(f"{path}: stale")
    if report:
        print("Generated files differ from proto/. Run `make gen-clients` and commit the result.")
    return 1 if report else 0


if __name__ == "__main__":
    sys.exit(main())
