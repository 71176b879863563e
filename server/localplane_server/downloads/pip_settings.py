"""What the operator's pip is told of package indexes, read as pip reads it."""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from localplane_server.downloads.credentials import Credentials, basic

_PUBLIC_INDEX = "https://pypi.org/simple"
_SECTIONS = ("global", "download")
"""Those of pip's files that count here, the stronger last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipSettings:
    """Where packages come from."""

    index_urls: tuple[str, ...] = (_PUBLIC_INDEX,)
    """The indexes, in the order in which they are asked. Without users' names in them."""
    certificate: str = ""
    """File of certificates that are trusted besides. Empty for none."""
    credentials: Credentials = Credentials()
    """Keys for the indexes."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> PipSettings:
        """Read pip's files and its part of an environment. What cannot be read is left out."""
        said: dict[str, str] = {}
        for path in _files(environment):
            said.update(_read_file(path))
        for name, value in environment.items():
            if name.startswith("PIP_") and value.strip():
                said[name.removeprefix("PIP_").lower().replace("_", "-")] = value.strip()
        urls = [said.get("index-url", _PUBLIC_INDEX), *said.get("extra-index-url", "").split()]
        if said.get("no-index", "").lower() in ("1", "true", "yes", "on"):
            urls = []
        credentials = Credentials()
        plain = []
        for url in urls:
            try:
                bare, key = _without_user(url)
            except ValueError:
                continue
            plain.append(bare)
            if key:
                credentials = credentials.bound(bare, key)
        return cls(
            index_urls=tuple(dict.fromkeys(plain)),
            certificate=said.get("cert", ""),
            credentials=credentials,
        )


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Give pip's files, the strongest last."""
    given = environment.get("PIP_CONFIG_FILE", "")
    if given == os.devnull:
        return
    home = Path(environment.get("HOME") or "/nonexistent")
    for folder in environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"):
        yield Path(folder, "pip", "pip.conf")
    yield Path("/etc/pip.conf")
    yield home / ".pip" / "pip.conf"
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    yield Path(sys.prefix, "pip.conf")
    if given:
        yield Path(given)


def _read_file(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, OSError, UnicodeError):
        return {}
    return {
        name.replace("_", "-"): value
        for section in _SECTIONS
        if parser.has_section(section)
        for name, value in parser.items(section)
    }


def _without_user(url: str) -> tuple[str, str]:
    """Split a URL into itself without a user's name, and the key that the name and password make.

    Raises:
        ValueError: If it is no URL.
    """
    parts = urlsplit(url)
    if parts.port == 0 or not parts.hostname:
        raise ValueError("no host or no port")
    if parts.username is None:
        return url.rstrip("/"), ""
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
    return bare, basic(unquote(parts.username), unquote(parts.password or ""))
