"""What the doctor sees on this machine."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localplane_server.cli import examination
from localplane_server.cli.examination import Finding, Verdict, examine, lock_holder
from localplane_server.config import Settings
from localplane_server.openai_servers import OpenAIServer
from localplane_server.setting_values import Endpoint
from localplane_server.state.lock import DataDirLock
from localplane_server.supervision.programs import BackendProgram, BackendPrograms

NO_PROGRAMS = BackendPrograms([])


def settings(data_dir: Path, **more: Any) -> Settings:
    anywhere = Endpoint("127.0.0.1", 0)
    given = {"grpc_listen": anywhere, "http_listen": anywhere, **more}
    return Settings(data_dir=data_dir, **given)


def findings(given: Settings, check: str, programs: BackendPrograms = NO_PROGRAMS) -> list[Finding]:
    return [one for one in examine(given, programs) if one.check == check]


@pytest.fixture
def taken() -> Iterator[Endpoint]:
    """An address on which this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Endpoint("127.0.0.1", listener.getsockname()[1])


class TestHealthy:
    def test_nothing_to_mend(self, tmp_path: Path) -> None:
        """A machine that the tests run on has what is needed, and looking makes nothing."""
        found = list(examine(settings(tmp_path / "data"), NO_PROGRAMS))

        assert [] == [one for one in found if one.verdict is Verdict.PROBLEM]
        assert {"python", "proc", "pidfd", "data", "space", "lock", "models", "grpc"} <= {
            one.check for one in found
        }
        assert not (tmp_path / "data").exists()

    def test_every_other_finding_has_a_remedy(self, tmp_path: Path) -> None:
        """What is not as it should be comes with what to do about it."""
        (tmp_path / "models").write_text("a file")
        found = list(examine(settings(tmp_path), NO_PROGRAMS))

        assert [] == [one for one in found if one.verdict is not Verdict.OK and not one.remedy]


class TestKernel:
    def test_no_pidfd(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sandbox that refuses pidfds is named."""

        def refuse(_pid: int) -> int:
            raise PermissionError("not here")

        monkeypatch.setattr(os, "pidfd_open", refuse)

        [found] = findings(settings(tmp_path), "pidfd")
        assert (Verdict.PROBLEM, "the kernel gives no pidfd: not here") == (
            found.verdict,
            found.message,
        )

    def test_no_proc(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """So is one without /proc."""

        def refuse(*_: object) -> None:
            raise PermissionError("no /proc")

        monkeypatch.setattr("psutil.Process", refuse)

        assert Verdict.PROBLEM is findings(settings(tmp_path), "proc")[0].verdict

    def test_old_python(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A Python that is too old is named with the one that is needed."""
        monkeypatch.setattr(examination, "OLDEST_PYTHON", (3, 99))

        [found] = findings(settings(tmp_path), "python")
        assert (Verdict.PROBLEM, "Install Python 3.99.") == (found.verdict, found.remedy)


class TestFolders:
    def test_file_in_the_way(self, tmp_path: Path) -> None:
        """A file where the directory should be."""
        (tmp_path / "data").write_text("")

        [found] = findings(settings(tmp_path / "data"), "data")
        assert (Verdict.PROBLEM, f"{tmp_path}/data is no directory") == (
            found.verdict,
            found.message,
        )

    def test_not_writable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A directory that this user may not write; root may everything, so the system is asked in its place."""
        monkeypatch.setattr(os, "access", lambda *_: False)

        assert Verdict.PROBLEM is findings(settings(tmp_path), "data")[0].verdict

    def test_open_to_all(self, tmp_path: Path) -> None:
        """A data directory that every user can change runs every user's programs."""
        tmp_path.chmod(0o777)

        [found] = findings(settings(tmp_path), "privacy")
        assert (Verdict.PROBLEM, f"chmod o-w {tmp_path}") == (found.verdict, found.remedy)

    @pytest.mark.parametrize(
        ("free", "verdict"),
        [(2 << 30, Verdict.OK), (1 << 29, Verdict.NOTE), (1 << 20, Verdict.PROBLEM)],
    )
    def test_space(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, verdict: Verdict
    ) -> None:
        """Little space is worth a word, almost none must be mended."""
        usage = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

        assert verdict is findings(settings(tmp_path), "space")[0].verdict

    def test_lock(self, tmp_path: Path) -> None:
        """The process of a service is named for as long as it holds the directory."""
        before = lock_holder(tmp_path)
        with DataDirLock(tmp_path):
            during = lock_holder(tmp_path)

        assert [None, os.getpid(), None] == [before, during, lock_holder(tmp_path)]


class TestModels:
    def test_none(self, tmp_path: Path) -> None:
        """A newcomer is told how to get one."""
        found = findings(settings(tmp_path), "models")[-1]

        assert (Verdict.NOTE, "localplane models install smollm2") == (found.verdict, found.remedy)

    def test_unusable_configuration(self, tmp_path: Path) -> None:
        """A file that cannot be used is named with the cause."""
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "bad.yaml").write_text("name: [")

        found = findings(settings(tmp_path), "models")[-1]
        assert Verdict.NOTE is found.verdict
        assert found.message.startswith(f"{tmp_path}/models/bad.yaml cannot be used: ")


class TestPorts:
    def test_somebody_else(self, tmp_path: Path, taken: Endpoint) -> None:
        """A port that another program has is named with the program."""
        [found] = findings(settings(tmp_path, http_listen=taken), "http")

        assert Verdict.PROBLEM is found.verdict
        assert f"(process {os.getpid()})" in found.message
        assert "--http-listen" in (found.remedy or "")

    def test_ours(self, tmp_path: Path, taken: Endpoint) -> None:
        """The port of the service that works on the data directory is as it should be."""
        with DataDirLock(tmp_path):
            [found] = findings(settings(tmp_path, grpc_listen=taken), "grpc")

        assert Finding("grpc", Verdict.OK, f"the service listens on {taken}") == found

    def test_no_such_address(self, tmp_path: Path) -> None:
        """An address that this machine does not have."""
        elsewhere = Endpoint("192.0.2.1", 1)
        given = settings(tmp_path, grpc_listen=elsewhere, api_key=("k",))

        assert Verdict.PROBLEM is findings(given, "grpc")[0].verdict


class TestKeys:
    def test_file_that_others_read(self, tmp_path: Path) -> None:
        """The key file is for its owner alone, and the remedy says the command."""
        file = tmp_path / "keys"
        file.write_text("secret\n")
        file.chmod(0o644)

        [found] = findings(settings(tmp_path, api_key_file=file), "keys")
        assert Verdict.PROBLEM is found.verdict
        assert f"chmod 600 {file}" in (found.remedy or "")
        assert "secret" not in found.message

    def test_good_file(self, tmp_path: Path) -> None:
        """A file as it should be."""
        file = tmp_path / "keys"
        file.touch(0o600)
        file.write_text("secret\n")

        [found] = findings(settings(tmp_path, api_key_file=file), "keys")
        assert Verdict.OK is found.verdict


class TestBackends:
    def program(self, name: str, needs: str) -> BackendProgram:
        return BackendProgram(name=name, argv=("true",), extra=name, needs=needs)

    def test_nothing_to_serve_with(self, tmp_path: Path) -> None:
        """Without any backend no model can be served."""
        programs = BackendPrograms([self.program("llama", "no_such_module")])

        [found] = findings(settings(tmp_path), "backend", programs)
        assert (Verdict.PROBLEM, "pip install 'localplane[llama]'") == (
            found.verdict,
            found.remedy,
        )

    def test_one_of_two(self, tmp_path: Path) -> None:
        """With one that works, another is a matter of taste."""
        programs = BackendPrograms([self.program("a", "no_such_module"), self.program("b", "json")])

        found = findings(settings(tmp_path), "backend", programs)
        assert [Verdict.NOTE, Verdict.OK] == [one.verdict for one in found]

    def test_library_that_breaks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A library that is there and cannot be loaded is found out by loading it, elsewhere."""
        (tmp_path / "breaks.py").write_text("raise ImportError('wrong machine')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.syspath_prepend(str(tmp_path))
        programs = BackendPrograms([self.program("x", "breaks")])

        [found] = findings(settings(tmp_path), "backend", programs)
        assert Verdict.PROBLEM is found.verdict
        assert "ImportError: wrong machine" in found.message
        assert "breaks" not in sys.modules


class TestOpenAIServers:
    """What the operator registered is looked at, and its absence is no fault: it may come later."""

    def found(self, tmp_path: Path, **server: Any) -> Finding:
        one = OpenAIServer(name="gpu", options=server)
        (finding,) = findings(settings(tmp_path, openai_backends=(one,)), "backend")
        return finding

    def test_listens(self, tmp_path: Path, taken: Endpoint) -> None:
        """Somebody listens where the URL leads."""
        found = self.found(tmp_path, url=f"http://{taken}/v1")

        assert (Verdict.OK, f"gpu listens at {taken}") == (found.verdict, found.message)

    def test_nobody_listens(self, tmp_path: Path) -> None:
        """Nobody does."""
        found = self.found(tmp_path, url="http://127.0.0.1:1")

        assert Verdict.NOTE is found.verdict
        assert "gpu cannot be reached at 127.0.0.1:1: Connection refused" == found.message
        assert "--openai-backends" in str(found.remedy)

    def test_command(self, tmp_path: Path) -> None:
        """The program of a command is there, or not."""
        there = self.found(tmp_path, command=["sh", "{port}"])
        missing = self.found(tmp_path, command=["/nowhere/llama-server", "{port}"])

        assert (Verdict.OK, Verdict.NOTE) == (there.verdict, missing.verdict)
        assert "gpu cannot run /nowhere/llama-server: there is no such program" == missing.message
