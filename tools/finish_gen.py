"""Finish a run of protoc: drop empty service modules, mark the packages as packages and as typed.

Usage: ``python tools/finish_gen.py gen``. Run by ``make gen``.
"""

from __future__ import annotations

import sys
from pathlib import Path


def finish(root: Path) -> None:
    """Make what protoc wrote below ``root`` importable and free of modules that hold nothing."""
    for module in sorted(root.rglob("*_pb2_grpc.py")):
        if "class " not in module.read_text():
            module.unlink()
            module.with_suffix(".pyi").unlink(missing_ok=True)
    for module in sorted(root.rglob("*_pb2.py")):
        for folder in module.relative_to(root).parents:
            if folder != Path():
                (root / folder / "__init__.py").touch()
    for package in sorted(child for child in root.iterdir() if child.is_dir()):
        (package / "py.typed").touch()


if __name__ == "__main__":
    finish(Path(sys.argv[1]))
