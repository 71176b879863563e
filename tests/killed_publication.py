"""A program that changes a models folder again and again, and is killed before each step that touches the disk.

Started with `install`, `delete` or `take-back` and an empty folder, it writes a line of JSON for each step: what was
in the models folder after the kill, and what after the recovery. Forks, so nothing else may run in it.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localplane_server.gallery.installs.models_folder import ModelsFolder
from localplane_server.gallery.installs.publication import FOLDER_NAME, Publication, recover

STEPS = ("chmod", "fsync", "link", "mkdir", "rename", "rmdir", "unlink")
"""Calls of the operating system before which it is killed."""


def visible(root: Path) -> dict[str, str]:
    """Return what is in the models folder but for what is hidden."""
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file() and FOLDER_NAME not in path.parts
    }


def install(root: Path, staged: Path) -> None:
    """Replace one file, bring another, and write the configuration last."""
    with Publication(ModelsFolder(root)) as publication:
        publication.add("sub/x.gguf", staged)
        publication.write("shared.json", "new")
        publication.write("x.yaml", "new")
        publication.commit()


def delete(root: Path, _staged: Path) -> None:
    """Remove the configuration first, and then a file."""
    with Publication(ModelsFolder(root)) as publication:
        publication.remove("x.yaml")
        publication.remove("shared.json")
        publication.commit()


def take_back(root: Path, staged: Path) -> None:
    """Fail at the last change, so that the others are taken back."""
    (root / "y.yaml").mkdir()
    try:
        with Publication(ModelsFolder(root)) as publication:
            publication.add("sub/x.gguf", staged)
            publication.write("shared.json", "new")
            publication.remove("x.yaml")
            publication.write("y.yaml", "new")
            publication.commit()
    except IsADirectoryError as error:
        if error.errno != errno.EISDIR:
            raise


CHANGES: dict[str, Callable[[Path, Path], None]] = {
    "install": install,
    "delete": delete,
    "take-back": take_back,
}


def die_before(step: int) -> None:
    """Kill this process when it is about to take a step."""
    taken = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            nonlocal taken
            taken += 1
            if taken > step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return wrapper

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))


def run(folder: Path, change: Callable[[Path, Path], None], step: int) -> bool:
    """Make a change up to a step, recover, tell of it, and return whether the process was killed."""
    root, staging = folder / f"models-{step}", folder / f"staging-{step}"
    root.mkdir()
    staging.mkdir()
    (root / "x.yaml").write_text("old")
    (root / "shared.json").write_text("old")
    staged = staging / "x.part"
    staged.write_text("weights")
    child = os.fork()
    if child == 0:
        die_before(step)
        change(root, staged)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    after_kill = visible(root)
    recover(ModelsFolder(root))
    told = {
        "step": step,
        "after_kill": after_kill,
        "after_recovery": visible(root),
        "hidden": (root / FOLDER_NAME).exists(),
        "staged": staged.exists(),
    }
    sys.stdout.write(json.dumps(told) + "\n")
    return os.WIFSIGNALED(status)


def remove(root: Path, names: list[str]) -> None:
    """Remove files."""
    with Publication(ModelsFolder(root)) as publication:
        for name in names:
            publication.remove(name)
        publication.commit()


def main() -> None:
    """Kill it before each step, until it gets to its end; or before one step only."""
    if sys.argv[1] == "remove":
        die_before(int(sys.argv[3]))
        remove(Path(sys.argv[2]), sys.argv[4:])
        return
    change, folder = CHANGES[sys.argv[1]], Path(sys.argv[2])
    step = 0
    while run(folder, change, step):
        step += 1


if __name__ == "__main__":
    main()
