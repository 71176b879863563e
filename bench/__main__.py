"""Run the measurements, each in a process of its own.

Usage: ``python bench [NAME ...] [--json] [--rounds N]``. Run by ``make bench``. A measurement is a
script in this folder that can be run alone; a module that only others import is none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def scripts() -> dict[str, Path]:
    """Return the measurements by name, in the order of their names."""
    return {
        path.stem: path
        for path in sorted(FOLDER.glob("*.py"))
        if path.name != "__main__.py" and 'if __name__ == "__main__":' in path.read_text()
    }


def main() -> int:
    """Run some measurements, or all; return how many failed."""
    known = scripts()
    parser = argparse.ArgumentParser(prog="bench", description="Run the measurements.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(known)}")
    parser.add_argument("--json", action="store_true", help="print one JSON object, by name")
    parser.add_argument("--rounds", type=int, help="rounds of each, in place of its own number")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in known]:
        parser.error(f"no such measurement: {', '.join(unknown)}")

    options = ["--json"] if arguments.json else []
    if arguments.rounds is not None:
        options += ["--rounds", str(arguments.rounds)]
    failed = 0
    results: dict[str, object] = {}
    for name in arguments.names or known:
        if not arguments.json:
            print(f"== {name}", flush=True)
        done = subprocess.run(
            [sys.executable, str(known[name]), *options],
            stdout=subprocess.PIPE if arguments.json else None,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            failed += 1
            print(f"{name} failed with exit code {done.returncode}", file=sys.stderr)
        elif arguments.json:
            results[name] = json.loads(done.stdout)
    if arguments.json:
        print(json.dumps(results, indent=2))
    return failed


if __name__ == "__main__":
    sys.exit(main())
