"""What settings can say, and how it is read."""

from __future__ import annotations

import ipaddress
import math
import re
from pathlib import Path
from typing import NamedTuple

from localplane_server.errors import SettingsError

MEBIBYTE = 1024 * 1024
SMALLEST_LOG = 64 * 1024
MOST_LOG_FILES = 100

BACKEND_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
"""What a backend may be called. It is no path, whatever it is joined to."""


class Endpoint(NamedTuple):
    """An address to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_endpoint(text: str) -> Endpoint:
    """Parse `HOST:PORT` or `[V6]:PORT`; a host left out means loopback."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - the highest port there is
        raise SettingsError(f"cannot listen on {text}: expected HOST:PORT")
    return Endpoint(host.strip("[]") or "127.0.0.1", int(port))


_SIZES = {"": 1, "k": 1024, "m": MEBIBYTE, "g": 1024 * MEBIBYTE}
_DURATIONS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_size(text: str | int) -> int:
    """Parse bytes: `1048576`, `512K`, `32M`, `2GiB`."""
    found = re.fullmatch(r"(\d+)\s*([kmg]?)(?:i?b)?", str(text).strip().lower())
    if found is None:
        raise SettingsError(f"cannot read {text} as a size: expected a number with K, M or G")
    return int(found[1]) * _SIZES[found[2]]


def parse_duration(text: str | float) -> float:
    """Parse seconds: `30`, `1.5s`, `250ms`, `5m`, `1h`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)", str(text).strip().lower())
    if found is None:
        raise SettingsError(
            f"cannot read {text} as a duration: expected a number with ms, s, m or h"
        )
    return float(found[1]) * _DURATIONS[found[2]]


def parse_bool(text: str | bool) -> bool:  # noqa: FBT001 - YAML gives booleans where flags and environment give text
    """Parse `true`, `1`, `yes`, `on` and their opposites."""
    word = str(text).strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off", ""):
        return False
    raise SettingsError(f"cannot read {text} as yes or no")


def parse_words(text: str | list[str]) -> tuple[str, ...]:
    """Parse a comma-separated list."""
    words = text if isinstance(text, list) else text.split(",")
    return tuple(word.strip() for word in words if word.strip())


class ExternalSetting(NamedTuple):
    """A backend that the operator names."""

    name: str
    """Name, as a model's configuration gives it."""
    target: Endpoint | Path
    """Server that somebody else runs, or program that is started for each model."""


def parse_external_backends(text: str | list[str]) -> tuple[ExternalSetting, ...]:
    """Parse `NAME:HOST:PORT` and `NAME:PATH`, separated by commas."""
    parts = text if isinstance(text, list) else [text]
    words = [word for part in parts for word in parse_words(part)]
    found = tuple(_external_setting(word) for word in words)
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"cannot name two backends {name}")
    return found


def _external_setting(word: str) -> ExternalSetting:
    name, _, target = word.partition(":")
    if not name or not target or "://" in word:
        message = (
            f"cannot read {word} as a backend: expected NAME:HOST:PORT or NAME:/path/to/run.sh"
        )
        raise SettingsError(message)
    check_backend_name(name)
    if "/" in target:
        return ExternalSetting(name, parse_path(target))
    host, colon, port = target.rpartition(":")
    is_host = bool(host) and ((host.startswith("[") and host.endswith("]")) or ":" not in host)
    if not colon or not is_host or not port.isdigit() or not 0 < int(port) <= 65535:  # noqa: PLR2004 - the highest port
        message = (
            f"cannot read {word} as a backend: {target} is neither HOST:PORT nor a path with a /"
        )
        raise SettingsError(message)
    return ExternalSetting(name, Endpoint(host.strip("[]").lower(), int(port)))


def check_backend_name(name: str) -> None:
    """Refuse what no backend can be called."""
    if not BACKEND_NAME.fullmatch(name):
        raise SettingsError(f"cannot name a backend {name!r}: use letters, digits, -, _ and .")


def parse_positive(text: str | int) -> int:
    """Parse a whole number above zero."""
    if not str(text).isdigit() or int(text) == 0:
        raise SettingsError(f"cannot read {text}: expected a whole number above 0")
    return int(text)


def parse_most(text: str | int) -> int | None:
    """Parse a whole number; 0 is no limit."""
    if not str(text).isdigit():
        raise SettingsError(f"cannot read {text}: expected a whole number")
    return int(text) or None


class MemoryBudget(NamedTuple):
    """Memory that backends may take together."""

    amount: float
    """Bytes, or a share of what there is."""
    is_share: bool

    def bytes_of(self, total: int) -> float:
        """Return the budget in bytes, of so many bytes that there are."""
        return self.amount * total if self.is_share else self.amount

    def __str__(self) -> str:
        if self.amount == math.inf:
            return "off"
        return f"{self.amount * 100:g}%" if self.is_share else f"{self.amount:.0f}"


def parse_budget(text: str | int) -> MemoryBudget:
    """Parse bytes as `parse_size` does, a percentage such as `85%`, or `off`."""
    word = str(text).strip().lower()
    # YAML reads `off` as false.
    if word in ("off", "false"):
        return MemoryBudget(math.inf, is_share=False)
    if word.endswith("%"):
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", word)
        if found is None or not 0 < float(found[1]) <= 100:  # noqa: PLR2004 - percent
            raise SettingsError(
                f"cannot read {text} as a percentage: expected more than 0, up to 100"
            )
        return MemoryBudget(float(found[1]) / 100, is_share=True)
    size = parse_size(word)
    if not size:
        raise SettingsError(f"cannot use {text} as a budget: expected more than 0, or off")
    return MemoryBudget(float(size), is_share=False)


def parse_log_size(text: str | int) -> int:
    """Parse the size of a file of a log, which holds a few lines at least."""
    size = parse_size(text)
    if size < SMALLEST_LOG:
        raise SettingsError(f"cannot use {text} as the size of a log: expected 64K or more")
    return size


def parse_log_files(text: str | int) -> int:
    """Parse the number of files of a log."""
    files = parse_positive(text)
    if files > MOST_LOG_FILES:
        raise SettingsError(f"cannot keep {text} files of a log: expected {MOST_LOG_FILES} or less")
    return files


def parse_log_format(text: str) -> str:
    """Parse `text` or `json`."""
    if text not in ("text", "json"):
        raise SettingsError(f"cannot log as {text}: expected text or json")
    return text


def parse_path(text: str | Path) -> Path:
    """Parse a path; `~` is the user's folder, and one that is not absolute begins where the program runs."""
    return Path(text).expanduser().absolute()
