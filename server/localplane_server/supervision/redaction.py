"""What of an environment nobody else may read. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SHORTEST = 8
"""A shorter value is no secret, and may well be a part of any word."""
MARK = "***"
"""What stands in place of a secret."""

_WORDS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL")


def secrets_in(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values of the variables whose names say that they are secret, the longest first."""
    values = {
        value
        for name, value in environment.items()
        if len(value) >= SHORTEST and any(word in name.upper() for word in _WORDS)
    }
    return tuple(sorted(values, key=lambda value: (-len(value), value)))


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Return a text without secrets."""
    for secret in secrets:
        text = text.replace(secret, MARK)
    return text
