"""Generate ``gen/`` and ``gateway/openapi.yaml`` from ``proto/``, or check that they are fresh.

Besides the Python code, ``gen/`` has the descriptor set of the API: what programs read that want to
call or describe it without the protos.

Usage: ``python tools/generate.py [--check]``. Run by ``make gen`` and ``make check-gen``.
Everything is generated into a folder aside first: a proto that does not compile leaves the last
good code in place, and ``--check`` changes nothing.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FINISH = ROOT / "tools" / "finish_gen.py"
PLUGIN = ROOT / "tools" / "protoc_gen_openapi.py"
DOCUMENT = Path("gateway", "openapi.yaml")
API = Path("proto", "localplane", "v1")
DESCRIPTORS = Path("gen", "localplane.binpb")
DIFF_LINES = 40


def protoc(*options: str, gen: Path, below: Path = Path("proto", "localplane")) -> None:
    """Run protoc on our protos, with this interpreter's plugins and the code in ``gen``."""
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / below).rglob("*.proto"))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        # The OpenAPI plugin reads our options: through the code made from the protos at hand, not
        # through what an earlier run left in gen/.
        "PYTHONPATH": str(gen),
    }
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iproto", "-Iproto/third_party"]
    subprocess.run([*command, *options, *protos], cwd=ROOT, env=environment, check=True)


def generate(target: Path) -> None:
    """Write ``gen/`` and ``gateway/openapi.yaml`` below ``target``."""
    gen = target / "gen"
    gen.mkdir(parents=True)
    protoc(
        f"--python_out={gen}",
        f"--grpc_python_out={gen}",
        f"--mypy_out=quiet:{gen}",
        f"--mypy_grpc_out=quiet:{gen}",
        gen=gen,
    )
    subprocess.run([sys.executable, str(FINISH), str(gen)], check=True)
    # With what the protos import, so that it is complete; without comments, which are most of its size.
    protoc(f"--descriptor_set_out={target / DESCRIPTORS}", "--include_imports", gen=gen, below=API)

    document = target / DOCUMENT
    document.parent.mkdir()
    # protoc starts a plugin by path and without arguments, so the interpreter goes into a script.
    launcher = target / "protoc-gen-openapi"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(PLUGIN)])} "$@"\n')
    launcher.chmod(0o700)
    protoc(f"--plugin=protoc-gen-openapi={launcher}", f"--openapi_out={document.parent}", gen=gen)


def files(root: Path) -> dict[Path, bytes]:
    """Return what is generated below ``root``, by relative path."""
    found = [path for path in (root / "gen").rglob("*") if path.is_file()]
    if (root / DOCUMENT).exists():
        found.append(root / DOCUMENT)
    return {path.relative_to(root): path.read_bytes() for path in found if path.suffix != ".pyc"}


def stale(fresh: Path) -> list[str]:
    """Return one line for each difference between the checkout and ``fresh``."""
    committed, expected = files(ROOT), files(fresh)
    report = []
    for path in sorted(committed.keys() | expected.keys()):
        old, new = committed.get(path), expected.get(path)
        if old == new:
            continue
        report.append(
            f"{path}: {'missing' if old is None else 'left over' if new is None else 'stale'}"
        )
        if old is not None and new is not None and path != DESCRIPTORS:
            lines = difflib.unified_diff(
                old.decode().splitlines(),
                new.decode().splitlines(),
                "committed",
                "fresh",
                lineterm="",
            )
            report += [f"    {line}" for _, line in zip(range(DIFF_LINES), lines, strict=False)]
    return report


def replace(fresh: Path) -> None:
    """Put ``fresh`` in the place of what the checkout has."""
    shutil.rmtree(ROOT / "gen", ignore_errors=True)
    shutil.copytree(fresh / "gen", ROOT / "gen")
    shutil.copyfile(fresh / DOCUMENT, ROOT / DOCUMENT)


def main() -> int:
    """Generate, then compare or replace."""
    parser = argparse.ArgumentParser(description="Generate gen/ and gateway/openapi.yaml.")
    parser.add_argument(
        "--check", action="store_true", help="fail if they are stale; write nothing"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="localplane-gen-") as folder:
        fresh = Path(folder)
        try:
            generate(fresh)
        except subprocess.CalledProcessError as error:
            # protoc has said why on standard error.
            return error.returncode
        if not arguments.check:
            replace(fresh)
            return 0
        report = stale(fresh)
    for line in report:
        print(line)
    if report:
        print("Generated files differ from proto/. Run `make gen` and commit the result.")
    return 1 if report else 0


if __name__ == "__main__":
    sys.exit(main())
