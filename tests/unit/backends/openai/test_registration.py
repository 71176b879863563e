"""What the program is told of its server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from localplane_backends.openai.registration import (
    KEY_VARIABLE,
    VARIABLE,
    Registration,
    RegistrationError,
    key_of,
    taken_from,
)


class TestTakenFrom:
    def test_taken_out(self) -> None:
        """Nothing that this process starts inherits it, and it cannot be printed by accident."""
        environment = {
            VARIABLE: json.dumps({"name": "a", "url": "http://x", "headers": {"k": "secret-1"}}),
            KEY_VARIABLE: "secret-2",
            "HOME": "/",
        }

        registration = taken_from(environment)

        assert {"HOME": "/"} == environment
        assert ("a", "http://x", "secret-2") == (
            registration.name,
            registration.url,
            registration.key,
        )
        assert "secret" not in repr(registration)
        assert ("secret-2", "secret-1") == registration.secrets

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "is not set"),
            ("{", "is not JSON"),
            ("[]", "names no server"),
            ('{"url": "http://x"}', "names no server"),
            ('{"name": "a"}', "neither url nor command"),
            ('{"name": "a", "url": "http://x", "uri": 1}', "unknown fields: uri"),
            ('{"name": "a", "url": "http://x", "key": "k"}', "unknown fields: key"),
        ],
    )
    def test_unusable(self, text: str, says: str) -> None:
        """What makes no sense is refused without being quoted."""
        with pytest.raises(RegistrationError, match=says):
            taken_from({VARIABLE: text})


class TestKeyOf:
    def test_file(self, tmp_path: Path) -> None:
        """A key of a file is its text without blanks around it."""
        file = tmp_path / "key"
        file.touch(0o600)
        file.write_text(" k\n")

        assert "k" == key_of(Registration(name="a", api_key_file=str(file)))

    @pytest.mark.parametrize(
        ("content", "mode", "says"),
        [(b"", 0o600, "no key"), (b"k", 0o640, "others"), (b"\xff", 0o600, "it is no text")],
    )
    def test_unusable(self, tmp_path: Path, content: bytes, mode: int, says: str) -> None:
        """A file that is none of a key is refused."""
        file = tmp_path / "key"
        file.write_bytes(content)
        file.chmod(mode)

        with pytest.raises(RegistrationError, match=says):
            key_of(Registration(name="a", api_key_file=str(file)))

    def test_missing(self, tmp_path: Path) -> None:
        """So is one that is not there."""
        with pytest.raises(RegistrationError, match="No such file"):
            key_of(Registration(name="a", api_key_file=str(tmp_path / "key")))
