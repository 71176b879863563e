"""The server that an operator registered, as the environment hands it to the program."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

VARIABLE = "LOCALPLANE_OPENAI_SERVER"
"""Has the registration, as JSON: the fields below by their names."""
KEY_VARIABLE = "LOCALPLANE_OPENAI_KEY"
"""Has the key that the server wants, where it does not come from a file."""


class RegistrationError(Exception):
    """The registration is missing or makes no sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """How to reach a server, and how to start it if that is to be done here."""

    name: str
    """Name of the backend; begins the messages of errors."""
    url: str = ""
    """Where its API is. With a command it may say `{port}`, and has a default."""
    command: tuple[str, ...] = ()
    """Program and arguments of a server to start, with placeholders. Empty: it runs already."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables for the command, with placeholders."""
    model: str = ""
    """Name of the model, as the server knows it. Empty: the one that is asked for at the load."""
    key: str = field(default="", repr=False)
    """What the server knows its callers by. Empty for none."""
    api_key_file: str = ""
    """File that has the key; read at each load."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request."""
    proxy: str = field(default="", repr=False)
    """Proxy to go through. Those of the environment are not used."""
    ca_file: str = ""
    """Certificates of authorities to trust besides the usual ones."""
    ready_path: str = ""
    """Path that answers well when the server is ready. Empty: whichever of the usual ones it has."""
    connect_timeout: float = 5.0
    """Seconds until a connection must stand."""
    timeout: float = 600.0
    """Seconds that the server may be silent during a call."""
    parameters: Mapping[str, str | None] = field(default_factory=dict)
    """Other names of fields of the body; None leaves a field out."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """Fields that are added to the body of every prediction."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not show up in a message."""
        texts = (self.key, self.proxy, *self.headers.values())
        return tuple(text for text in texts if text)


def taken_from(environment: MutableMapping[str, str]) -> Registration:
    """Return the registration that an environment has, and take it out: no child inherits it.

    Raises:
        RegistrationError: If there is none, or it cannot be read. The message has nothing of it.
    """
    text = environment.pop(VARIABLE, "")
    key = environment.pop(KEY_VARIABLE, "")
    if not text:
        raise RegistrationError(f"{VARIABLE} is not set: it says which server to use")
    try:
        said = json.loads(text)
    except ValueError as error:
        raise RegistrationError(f"{VARIABLE} is not JSON") from error
    known = {one.name for one in fields(Registration)} - {"key"}
    if not isinstance(said, dict) or not said.get("name"):
        raise RegistrationError(f"{VARIABLE} names no server")
    if unknown := sorted(said.keys() - known):
        raise RegistrationError(f"{VARIABLE} has unknown fields: {', '.join(unknown)}")
    if not said.get("url") and not said.get("command"):
        raise RegistrationError(f"{VARIABLE} has neither url nor command")
    said["command"] = tuple(said.get("command", ()))
    return Registration(**said, key=key)


def key_of(registration: Registration) -> str:
    """Return the key to present, read now if it is in a file. Empty for none.

    Raises:
        RegistrationError: If the file cannot be read, holds no key, or others may read it.
    """
    if not registration.api_key_file:
        return registration.key
    file = Path(registration.api_key_file)
    try:
        mode = file.stat().st_mode
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is no text"
        raise RegistrationError(f"cannot read the key in {file.name}: {cause}") from error
    if mode & 0o077:
        raise RegistrationError(f"cannot use the key in {file.name}: others may read it; chmod 600")
    if not key or not (key.isascii() and key.isprintable()):
        raise RegistrationError(f"cannot use {file.name}: it holds no key")
    return key
