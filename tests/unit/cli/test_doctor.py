"""`localplane doctor` as a whole; what it looks at has tests of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from localplane_server.cli import main
from localplane_server.cli.doctor import _session_with
from localplane_server.cli.session import Session
from localplane_server.config import Settings
from localplane_server.setting_values import parse_endpoint
from localplane_server.state.lock import DataDirLock


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The doctor for a directory of its own, free ports, and no service."""
    for name in [name for name in os.environ if name.startswith("LOCALPLANE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LOCALPLANE_GRPC_LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("LOCALPLANE_HTTP_LISTEN", "127.0.0.1:0")
    target = f"unix:{tmp_path / 'nobody'}"
    return ["doctor", "--data-dir", str(tmp_path / "data"), "--grpc", target]


class TestWithoutService:
    def test_nothing_to_mend(self, arguments: list[str]) -> None:
        """That no service runs is worth a word and no fault."""
        result = CliRunner().invoke(main, arguments)

        assert 0 == result.exit_code
        assert "note     service  no service answers at unix:" in result.stdout
        assert "-> Start one: localplane serve" in result.stdout
        assert "nothing must be mended" == result.stdout.splitlines()[-1]

    def test_json(self, arguments: list[str]) -> None:
        """A program gets one document."""
        found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)

        assert found["ok"] is True
        assert {"check", "verdict", "message", "remedy"} == found["findings"][0].keys()

    def test_something_to_mend(self, arguments: list[str], tmp_path: Path) -> None:
        """One problem is exit code 1, and the last line counts."""
        (tmp_path / "data").write_text("")

        result = CliRunner().invoke(main, arguments)

        assert 1 == result.exit_code
        assert f"problem  data     {tmp_path}/data is no directory" in result.stdout
        assert result.stdout.splitlines()[-1].endswith(" to be mended")

    def test_settings_that_contradict(
        self, arguments: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Settings that `serve` would refuse are the finding."""
        monkeypatch.setenv("LOCALPLANE_HTTP_LISTEN", "0.0.0.0:0")

        result = CliRunner().invoke(main, arguments)

        assert 1 == result.exit_code
        assert "problem  settings cannot listen on 0.0.0.0:0 without an API key" in result.stdout

    def test_service_that_does_not_answer(self, arguments: list[str], tmp_path: Path) -> None:
        """A service holds the directory and cannot be reached: that is a fault."""
        with DataDirLock(tmp_path / "data"):
            result = CliRunner().invoke(main, arguments)

        assert 1 == result.exit_code
        assert f"process {os.getpid()} is a service, but: cannot reach unix:" in result.stdout


class TestTarget:
    @pytest.mark.parametrize(
        ("target", "listen", "asked"),
        [
            ("127.0.0.1:50051", "127.0.0.1:6000", "127.0.0.1:6000"),
            ("127.0.0.1:50051", "0.0.0.0:6000", "127.0.0.1:6000"),
            ("127.0.0.1:50051", "[::]:6000", "[::1]:6000"),
            ("127.0.0.1:50051", "127.0.0.1:0", "127.0.0.1:50051"),
            ("elsewhere:1", "127.0.0.1:6000", "elsewhere:1"),
        ],
    )
    def test_follows_the_settings(self, target: str, listen: str, asked: str) -> None:
        """It asks where the service would listen, unless the caller names another place."""
        session = Session(target=target, api_key=None, timeout=None, is_json=False)
        given = Settings(grpc_listen=parse_endpoint(listen))

        assert asked == _session_with(session, given).target
