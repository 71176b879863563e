"""Settings: where they come from, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from localplane_server.config import load_settings, options
from localplane_server.errors import SettingsError
from localplane_server.setting_values import (
    Endpoint,
    parse_budget,
)


class TestPrecedence:
    def test_flag_before_environment_before_file_before_default(self, tmp_path: Path) -> None:
        """Each source gives way to the one nearer to the user's hand."""
        file = tmp_path / "settings.yaml"
        file.write_text("threads: 1\ncontext-size: 1\nhttp_listen: 127.0.0.1:1\n")
        environment = {"LOCALPLANE_THREADS": "2", "LOCALPLANE_CONTEXT_SIZE": "2"}

        settings = load_settings({"threads": "3"}, environment, file)

        assert (3, 2, Endpoint("127.0.0.1", 1)) == (
            settings.threads,
            settings.context_size,
            settings.http_listen,
        )
        assert Endpoint("127.0.0.1", 50051) == settings.grpc_listen

    def test_localai_names(self) -> None:
        """LocalAI's variables work, and give way to ours."""
        environment = {
            "LOCALAI_MODELS_PATH": "/a",
            "LOCALAI_THREADS": "5",
            "LOCALPLANE_THREADS": "6",
        }

        settings = load_settings({}, environment)

        assert (Path("/a"), 6) == (settings.models_path, settings.threads)

    def test_empty_variable_counts_as_not_set(self) -> None:
        """An empty variable, as a unit file or a compose file leaves it, changes nothing."""
        assert load_settings({}, {"LOCALPLANE_THREADS": ""}).threads is None


class TestRefused:
    def test_unknown_key_in_file(self, tmp_path: Path) -> None:
        """A misspelt setting is an error, not silence."""
        file = tmp_path / "settings.yaml"
        file.write_text("thread: 1\n")

        with pytest.raises(SettingsError, match="unknown setting thread"):
            load_settings({}, {}, file)

    @pytest.mark.parametrize("text", ["[", "- a", "\x00"])
    def test_file_that_is_no_mapping(self, tmp_path: Path, text: str) -> None:
        """A file that holds no settings is named in the error."""
        file = tmp_path / "settings.yaml"
        file.write_text(text)

        with pytest.raises(SettingsError, match=r"settings\.yaml"):
            load_settings({}, {}, file)

    def test_missing_file(self, tmp_path: Path) -> None:
        """A file that was asked for must be there."""
        with pytest.raises(SettingsError, match="cannot read"):
            load_settings({}, {}, tmp_path / "none.yaml")

    @pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:1", "10.0.0.1:80"])
    def test_open_address_without_key(self, listen: str) -> None:
        """Nobody is let in from outside by accident."""
        with pytest.raises(SettingsError, match="without an API key"):
            load_settings({"http_listen": listen}, {})

    def test_open_address_with_key(self) -> None:
        """With a key, any address may be listened on."""
        settings = load_settings({"http_listen": "0.0.0.0:8080"}, {"LOCALPLANE_API_KEY": "a,b"})

        assert ("a", "b") == settings.api_key

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("threads", "0"),
            ("threads", "x"),
            ("grpc_listen", "host"),
            ("grpc_listen", "host:70000"),
            ("max_body_size", "-1"),
            ("load_timeout", "soon"),
            ("log_format", "xml"),
            ("no_autoload", "perhaps"),
            ("max_active_backends", "-1"),
            ("max_active_backends", "few"),
            ("memory_budget", "0%"),
            ("memory_budget", "0"),
            ("device_memory_budget", "0K"),
            ("memory_budget", "101%"),
            ("memory_budget", "half"),
            ("device_memory_budget", "101%"),
            ("queue_timeout", "-1s"),
            ("watchdog_idle", "sometimes"),
        ],
    )
    def test_error_names_the_setting(self, name: str, value: str) -> None:
        """Whoever reads the error knows which flag to mend."""
        with pytest.raises(SettingsError, match="--" + name.replace("_", "-")):
            load_settings({name: value}, {})


class TestLimits:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [("85%", 850.0), ("100 %", 1000.0), ("512", 512.0), ("1G", 2.0**30), ("off", math.inf)],
    )
    def test_budget(self, text: str, expected: float) -> None:
        """A share of what there is, bytes, or no budget at all; as it is written, so it is read."""
        budget = parse_budget(text)

        assert expected == budget.bytes_of(1000)
        assert budget == parse_budget(str(budget))

    def test_budget_in_a_file(self, tmp_path: Path) -> None:
        """YAML reads `off` as false; it means the same."""
        file = tmp_path / "settings.yaml"
        file.write_text("memory_budget: off\n")

        assert math.inf == load_settings({}, {}, file).memory_budget.bytes_of(1)

    @pytest.mark.parametrize(
        ("flags", "environment", "expected"),
        [
            ({}, {}, math.inf),
            ({"max_active_backends": "3"}, {}, 3),
            ({"max_active_backends": "0"}, {}, math.inf),
            ({}, {"MAX_ACTIVE_BACKENDS": "2"}, 2),
            ({}, {"LOCALAI_SINGLE_ACTIVE_BACKEND": "true"}, 1),
            ({"max_active_backends": "3"}, {"SINGLE_ACTIVE_BACKEND": "true"}, 1),
        ],
    )
    def test_places(
        self, flags: dict[str, str], environment: dict[str, str], expected: float
    ) -> None:
        """One number, under LocalAI's names too; 0 is none, and a single one wins."""
        assert expected == load_settings(flags, environment).most_backends

    @pytest.mark.parametrize(
        ("environment", "idle", "busy"),
        [
            ({}, math.inf, math.inf),
            ({"LOCALAI_WATCHDOG_IDLE": "true", "LOCALAI_WATCHDOG_BUSY": "true"}, 900, 300),
            ({"WATCHDOG_IDLE": "true", "WATCHDOG_IDLE_TIMEOUT": "5m"}, 300, math.inf),
            ({"LOCALPLANE_WATCHDOG_BUSY_TIMEOUT": "10s"}, math.inf, 10),
            ({"WATCHDOG_IDLE": "false", "WATCHDOG_IDLE_TIMEOUT": "5m"}, math.inf, math.inf),
            ({"WATCHDOG_IDLE": "true", "WATCHDOG_IDLE_TIMEOUT": "0"}, math.inf, math.inf),
        ],
    )
    def test_watchdogs(self, environment: dict[str, str], idle: float, busy: float) -> None:
        """LocalAI's switches and durations; a duration is enough, and a switch that is off wins."""
        settings = load_settings({}, environment)

        assert (idle, busy) == (settings.idle_seconds, settings.busy_seconds)


def test_every_setting_has_help() -> None:
    """A setting that nobody explained would be a setting that nobody finds."""
    assert [] == [option.name for option in options() if not option.help]
