"""Build the wheel as a release does, look into it, and run the tests against it.

Usage: ``python tools/check_wheel.py [PYTEST ARGUMENTS]``. Run by ``make check-package``.

The wheel is built from the sdist and installed into an environment of its own, with its own
dependencies and the test tools only. The tests run in a copy outside the checkout, so whatever the
wheel lacks, be it a file or a dependency, is missed by a test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ROOTS = ("gateway", "gen", "server")
PACKAGES = {
    "localplane",
    "localplane_backends",
    "localplane_client",
    "localplane_engines",
    "localplane_gateway",
    "localplane_server",
}
"""All that may ever be at the top of the wheel, beside its metadata."""
TESTS_NEED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Containerfile",
    "LICENSE",
    "Makefile",
    "README.md",
    "bench",
    "deploy",
    "docs",
    "examples",
    "gateway/openapi.yaml",
    "proto",
    "pyproject.toml",
    "requirements-build.lock",
    "requirements-dev.lock",
    "requirements.lock",
    "tests",
    "tools",
)
"""What is copied, where it exists: the tests and what they look at, but no package of ours."""
IGNORED = shutil.ignore_patterns("__pycache__", "dist", "node_modules")


def main() -> int:
    """Build, look, install, test."""
    with tempfile.TemporaryDirectory(prefix="localplane-wheel-") as folder:
        scratch = Path(folder)
        wheel = build(scratch / "dist")
        problems = look_into(wheel)
        for problem in problems:
            print(f"{wheel.name}: {problem}")
        if problems:
            return 1
        python = install(wheel, scratch)
        return test(python, scratch / "checkout", sys.argv[1:])


def build(target: Path) -> Path:
    """Build the sdist, then the wheel from the sdist alone, and return the wheel."""
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(ROOT)],
        check=True,
    )
    [wheel] = target.glob("*.whl")
    return wheel


def look_into(wheel: Path) -> list[str]:
    """Return what is wrong with the files in the wheel."""
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    metadata = {top for top in tops if top.endswith(".dist-info")}
    present = {
        package.name
        for root in SOURCE_ROOTS
        for package in (ROOT / root).iterdir()
        if (package / "__init__.py").exists()
    }
    problems = [f"unexpected at the top level: {top}" for top in tops - metadata - PACKAGES]
    problems += [f"package is missing: {package}" for package in present - tops]
    needed = {"localplane_gateway/openapi.yaml"}
    needed |= {f"{package}/py.typed" for package in present}
    needed |= {f"{folder}/licenses/LICENSE" for folder in metadata}
    problems += [f"file is missing: {name}" for name in needed - names]
    problems += [f"has no place in a wheel: {name}" for name in names if name.endswith(".pyc")]
    return sorted(problems)


def install(wheel: Path, scratch: Path) -> Path:
    """Install the wheel, all its extras and the test tools; return the new interpreter.

    Versions are those of the development lock. What is installed follows from the wheel's own
    metadata, so a dependency that it forgets to declare stays missing.
    """
    environment = scratch / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    constraints = scratch / "constraints.txt"
    lock = (ROOT / "requirements-dev.lock").read_text()
    pins = re.findall(r"^([\w.-]+==[^\\\n]+?) *\\?$", lock, re.MULTILINE)
    constraints.write_text("\n".join(pins) + "\n")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
    subprocess.run([*pip, f"{wheel}[all]", *group("test")], check=True)
    return python


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group of the project."""
    groups: dict[str, list[Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())[
        "dependency-groups"
    ]
    requirements: list[str] = []
    for entry in groups[name]:
        requirements += [entry] if isinstance(entry, str) else group(entry["include-group"])
    return requirements


def test(python: Path, copy: Path, arguments: list[str]) -> int:
    """Run the tests in a copy that has no source root, and return pytest's exit code."""
    copy.mkdir()
    for name in TESTS_NEED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=IGNORED)
        elif (ROOT / name).exists():
            (copy / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    elsewhere = subprocess.run(
        [str(python), "-c", IMPORTED_FROM, *sorted(PACKAGES)],
        cwd=copy,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    for line in elsewhere:
        print(f"not imported from the wheel: {line}")
    if elsewhere:
        return 1
    subprocess.run([str(python.parent / "localplane"), "--version"], env=environment, check=True)
    return subprocess.run(
        [str(python.parent / "pytest"), "-p", "no:cacheprovider", "-n", "logical", *arguments],
        cwd=copy,
        env=environment,
        check=False,
    ).returncode


IMPORTED_FROM = """
import importlib.util, sys, sysconfig
for name in sys.argv[1:]:
    spec = importlib.util.find_spec(name)
    if spec and not spec.origin.startswith(sysconfig.get_path("purelib")):
        print(name, spec.origin)
"""
"""Prints the packages that come from somewhere else than the environment."""


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        # The program itself has said why.
        sys.exit(f"failed with exit code {error.returncode}: {' '.join(error.cmd[:4])} ...")
