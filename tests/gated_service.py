"""`localplane` that stands still once before a step of a change of the models folder, and goes on as a test says.

Started with a folder, the name of the step, and what follows `localplane`. A step is the renaming of a file of that
name, or its removal, where changes are prepared. Before the first one it makes the file `reached` in the folder, and
reads from the pipe `go_on` what becomes of it: `go` lets it happen, `fail` has the disk fail.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localplane_server.cli import main

# It looks at what the operating system can do when it is imported: before anything is put in the place of that.
assert shutil.rmtree.avoids_symlink_attacks
STEPS = ("rename", "unlink")
"""Calls of the operating system before which it can stand still."""


class Gate:
    """What a test has of it."""

    def __init__(self, folder: Path) -> None:
        """Make the pipe, in a folder that there is not yet."""
        folder.mkdir()
        self.folder = folder
        """The folder."""
        os.mkfifo(folder / "go_on")

    def program(self, step: str) -> tuple[str, ...]:
        """Return what to start in place of `localplane`."""
        return (sys.executable, "-P", __file__, str(self.folder), step)

    @property
    def is_reached(self) -> bool:
        """Whether it stands still, or has gone on."""
        return (self.folder / "reached").exists()

    def open(self, word: str) -> None:
        """Let it go on."""
        (self.folder / "go_on").write_text(word)


def stand_still_before(step: str, folder: Path) -> None:
    """Have a step wait for the test, the first time."""

    def gated(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(path: Any, *arguments: Any, **options: Any) -> Any:
            reached = folder / "reached"
            if path == step and not reached.exists():
                reached.touch()
                if (folder / "go_on").read_text() == "fail":
                    raise OSError(errno.EIO, os.strerror(errno.EIO), step)
            return call(path, *arguments, **options)

        return wrapper

    for name in STEPS:
        setattr(os, name, gated(getattr(os, name)))


if __name__ == "__main__":
    stand_still_before(sys.argv[2], Path(sys.argv[1]))
    sys.argv[1:] = sys.argv[3:]
    main()
