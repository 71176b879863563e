"""What a keeper may consist of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from localplane_server.supervision import channel, keeper, warden


def test_standard_library_only() -> None:
    """A keeper runs without site-packages, and nothing heavy gets into it by way of our own modules."""
    program = (
        "import sys; before = set(sys.modules); sys.path.append(sys.argv[1]);"
        "import localplane_server.supervision.keeper;"
        "print('\\n'.join({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    root = str(Path(keeper.__file__).parents[2])

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, root], check=True, capture_output=True
    )

    names = set(done.stdout.decode().split())
    assert {"localplane_server"} == names - sys.stdlib_module_names
    assert set() == names & {"asyncio", "threading", "logging", "subprocess", "pathlib"}


def test_server_that_is_gone() -> None:
    """A keeper whose server is gone before it looks exits by itself, and well."""
    ours, theirs = channel.pair()
    ours.close()
    with theirs:
        done = subprocess.run(
            [sys.executable, "-I", "-S", keeper.__file__, str(theirs.fileno())],
            check=False,
            pass_fds=[theirs.fileno()],
            capture_output=True,
        )

    assert (0, b"") == (done.returncode, done.stderr)


def test_warden_is_not_a_program() -> None:
    """A warden that somebody starts by hand says so."""
    root = str(Path(warden.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "localplane_server.supervision.warden"],
        check=False,
        capture_output=True,
        env={"PYTHONPATH": root},
    )

    assert (1, b"a warden is forked by a keeper\n") == (done.returncode, done.stderr)
