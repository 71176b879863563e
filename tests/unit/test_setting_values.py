"""What settings can say."""

from __future__ import annotations

from pathlib import Path

import pytest

from localplane_server.config import load_settings
from localplane_server.errors import SettingsError
from localplane_server.setting_values import (
    Endpoint,
    ExternalSetting,
    parse_bool,
    parse_duration,
    parse_endpoint,
    parse_external_backends,
    parse_size,
)


class TestParsers:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("127.0.0.1:80", Endpoint("127.0.0.1", 80)),
            ("[::1]:0", Endpoint("::1", 0)),
            (":8080", Endpoint("127.0.0.1", 8080)),
        ],
    )
    def test_endpoint(self, text: str, expected: Endpoint) -> None:
        """Version 4, version 6 in brackets, and no host, which means loopback."""
        assert expected == parse_endpoint(text)

    def test_endpoint_is_written_as_it_is_read(self) -> None:
        """What is printed can be given back."""
        assert "[::1]:5" == str(parse_endpoint("[::1]:5"))

    @pytest.mark.parametrize(
        ("text", "expected"), [("5", 5), ("2K", 2048), ("1MiB", 1024**2), ("3gb", 3 * 1024**3)]
    )
    def test_size(self, text: str, expected: int) -> None:
        """Sizes are powers of 1024, however they are written."""
        assert expected == parse_size(text)

    @pytest.mark.parametrize(
        ("text", "expected"), [("5", 5), ("250ms", 0.25), ("1.5s", 1.5), ("2m", 120), ("1h", 3600)]
    )
    def test_duration(self, text: str, expected: float) -> None:
        """Durations are seconds where no unit is given."""
        assert expected == parse_duration(text)

    @pytest.mark.parametrize(("text", "expected"), [("yes", True), ("0", False), (True, True)])
    def test_bool(self, text: str | bool, expected: bool) -> None:  # noqa: FBT001 - the table's
        """Yes and no in every usual spelling."""
        assert expected is parse_bool(text)


class TestExternalBackends:
    @pytest.mark.parametrize(
        ("text", "name", "target"),
        [
            ("far:gpu-box:50051", "far", Endpoint("gpu-box", 50051)),
            ("far:GPU-Box:1", "far", Endpoint("gpu-box", 1)),
            ("far:10.0.0.7:65535", "far", Endpoint("10.0.0.7", 65535)),
            ("far:[::1]:50051", "far", Endpoint("::1", 50051)),
            ("mine:/opt/b/run.sh", "mine", Path("/opt/b/run.sh")),
            ("mine:/opt/a:b/run.py", "mine", Path("/opt/a:b/run.py")),
        ],
    )
    def test_one(self, text: str, name: str, target: Endpoint | Path) -> None:
        """A server or a path; only the first colon ends the name."""
        assert (ExternalSetting(name, target),) == parse_external_backends(text)

    def test_several(self) -> None:
        """Separated by commas, given several times, or both."""
        expected = tuple(ExternalSetting(name, Endpoint("h", 1)) for name in "abc")

        assert expected == parse_external_backends("a:h:1, b:h:1,c:h:1,")
        assert expected == parse_external_backends(["a:h:1,b:h:1", "c:h:1"])

    def test_localai_names(self) -> None:
        """LocalAI's variables work; the token is among them."""
        environment = {
            "LOCALAI_EXTERNAL_GRPC_BACKENDS": "a:h:1",
            "LOCALAI_BACKENDS_PATH": "/b",
            "LOCALAI_GRPC_AUTH_TOKEN": "t",
        }
        settings = load_settings({}, environment)

        assert (ExternalSetting("a", Endpoint("h", 1)),) == settings.external_grpc_backends
        assert (Path("/b"), "t") == (settings.backends_dir, settings.external_grpc_token)

    @pytest.mark.parametrize(
        ("text", "cause"),
        [
            ("far", "expected NAME:HOST:PORT"),
            (":h:1", "expected NAME:HOST:PORT"),
            ("far:", "expected NAME:HOST:PORT"),
            ("http://h:1", "expected NAME:HOST:PORT"),
            ("far:http://h:1", "expected NAME:HOST:PORT"),
            ("far:h", "neither HOST:PORT nor a path"),
            ("far:h:", "neither HOST:PORT nor a path"),
            ("far:h:x", "neither HOST:PORT nor a path"),
            ("far:h:0", "neither HOST:PORT nor a path"),
            ("far:h:65536", "neither HOST:PORT nor a path"),
            ("far::1", "neither HOST:PORT nor a path"),
            ("far:::1:50051", "neither HOST:PORT nor a path"),
            ("far:run.sh", "neither HOST:PORT nor a path"),
            ("../x:h:1", "cannot name a backend '../x'"),
            ("a b:h:1", "cannot name a backend 'a b'"),
            ("..:h:1", "cannot name a backend '..'"),
            ("a:h:1,b:h:1,a:h:2", "cannot name two backends a"),
        ],
    )
    def test_refused(self, text: str, cause: str) -> None:
        """What cannot be meant is refused with what was expected, and with where it was said."""
        with pytest.raises(SettingsError, match=f"^--external-grpc-backends: .*{cause}"):
            load_settings({"external_grpc_backends": [text]}, {})
