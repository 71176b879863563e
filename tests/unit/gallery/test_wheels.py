"""Which pip is asked."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from localplane_server.errors import InstallFailedError
from localplane_server.gallery.wheels import pip_command


class TestPipCommand:
    """An environment made without pip still has one: the first on the path."""

    @pytest.fixture(autouse=True)
    def without_pip(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    def test_takes_the_program(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A pip on the path is used when this interpreter has none."""
        program = tmp_path / "pip3"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

        assert [str(program)] == pip_command()

    def test_needs_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without any pip the error says what is missing."""
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(InstallFailedError, match=r"^cannot download: pip is not installed$"):
            pip_command()
