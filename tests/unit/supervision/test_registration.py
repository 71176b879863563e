"""What the operator names becomes a backend, or is refused at the start with the cause."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from localplane_server.config import load_settings
from localplane_server.errors import SettingsError
from localplane_server.supervision.programs import (
    BackendProgram,
    BackendPrograms,
    BackendSource,
    ExternalServer,
    shipped_programs,
)
from localplane_server.supervision.registration import register


def registered(tmp_path: Path, *external: str, **more: Any) -> BackendPrograms:
    flags = {"data_dir": tmp_path, "external_grpc_backends": list(external) or None, **more}
    return register(shipped_programs(), load_settings(flags, {}), {})


def script(path: Path, text: str = "#!/bin/sh\n", mode: int = 0o755) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


class TestPrograms:
    def test_script(self, tmp_path: Path) -> None:
        """A script is started as it is, in its folder."""
        path = script(tmp_path / "run.sh")
        choice = registered(tmp_path, f"mine:{path}").get("mine")

        assert choice is not None
        assert isinstance(choice.backend, BackendProgram)
        assert ((str(path),), tmp_path) == (choice.backend.argv, choice.backend.cwd)
        assert BackendSource.EXTERNAL is choice.backend.source

    @pytest.mark.parametrize(
        ("text", "mode", "is_ours"),
        [
            ("#!/opt/venv/bin/python\n", 0o755, False),
            ("#!/opt/venv/bin/python\n", 0o644, True),
            ("import grpc\n", 0o755, True),
            ("", 0o644, True),
        ],
    )
    def test_python(self, tmp_path: Path, text: str, mode: int, *, is_ours: bool) -> None:
        """Python that can be executed chooses its interpreter; other Python gets ours."""
        path = script(tmp_path / "backend.py", text, mode)
        choice = registered(tmp_path, f"mine:{path}").get("mine")

        assert choice is not None
        assert isinstance(choice.backend, BackendProgram)
        assert (((sys.executable,) if is_ours else ()) + (str(path),)) == choice.backend.argv

    def test_server(self, tmp_path: Path) -> None:
        """An address is a server."""
        choice = registered(tmp_path, "far:h:1").get("far")

        assert choice is not None
        assert isinstance(choice.backend, ExternalServer)

    def test_default_folder(self, tmp_path: Path) -> None:
        """The backends folder is in the data directory, unless another is named."""
        for name, root in (("a", tmp_path / "backends"), ("b", tmp_path / "other")):
            (root / name).mkdir(parents=True)
            script(root / name / "run.sh")

        assert registered(tmp_path).get("a") is not None
        assert registered(tmp_path, backends_path=tmp_path / "other").get("b") is not None


class TestRefused:
    def refusal(self, tmp_path: Path, *external: str) -> str:
        with pytest.raises(SettingsError) as caught:
            registered(tmp_path, *external)
        return str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        """A file that is not there, or is none."""
        path = tmp_path / "run.sh"
        expected = f"--external-grpc-backends: cannot use {path} as mine:"

        assert f"{expected} there is no such file" == self.refusal(tmp_path, f"mine:{path}")
        path.mkdir()
        assert f"{expected} it is no file" == self.refusal(tmp_path, f"mine:{path}")

    def test_not_executable(self, tmp_path: Path) -> None:
        """A script that cannot be executed; what to do is said."""
        path = script(tmp_path / "run.sh", mode=0o644)

        assert f"it is not executable (chmod +x {path})" in self.refusal(tmp_path, f"mine:{path}")

    def test_shipped_name(self, tmp_path: Path) -> None:
        """The name of a backend of ours; an alias of one is free."""
        assert "cannot name a backend llama: there is one already" in self.refusal(
            tmp_path, "llama:h:1"
        )

        choice = registered(tmp_path, "llama-cpp:h:1").get("llama-cpp")
        assert choice is not None
        assert "llama-cpp" == choice.backend.name
