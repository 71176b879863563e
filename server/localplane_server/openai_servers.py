"""The servers with OpenAI's API that the operator registered as backends."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from localplane_server.errors import SettingsError
from localplane_server.setting_values import check_backend_name, parse_duration

VALUES_OF_MODELS = ("model", "model_file", "models_path", "context_size", "threads", "batch")
PLACEHOLDERS = ("host", "port", "gpu_layers", "api_key", *VALUES_OF_MODELS)
"""What an argument or a variable of a command can stand for."""
SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish")

_PLACEHOLDER = re.compile(r"\{([a-z_]+)(?::[^{}]*)?\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIServer:
    """A server that runs elsewhere, or a command that runs one."""

    name: str
    """Name of the backend, as the configurations of models give it."""
    api_key_env: str | None = None
    """Variable of the service's environment that has the key which the server wants."""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The rest, for the program that speaks to it. Has `url`, `command` or both."""

    @property
    def command(self) -> tuple[str, ...]:
        """What is started. Empty for a server that runs elsewhere."""
        return tuple(self.options.get("command", ()))

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of a server that runs elsewhere."""
        parts = urlsplit(self.options["url"])
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return what tells the program about the server. It may hold secrets.

        Raises:
            SettingsError: If the key's variable is not set.
        """
        told = {"LOCALPLANE_OPENAI_SERVER": json.dumps({"name": self.name, **self.options})}
        if self.api_key_env is not None:
            key = inherited.get(self.api_key_env, "").strip()
            if not key or not (key.isascii() and key.isprintable()):
                raise SettingsError(
                    f"openai_backends: {self.name}: {self.api_key_env} is not set to a key"
                )
            told["LOCALPLANE_OPENAI_KEY"] = key
        return told


def parse_openai_servers(given: str | Mapping[str, Any]) -> tuple[OpenAIServer, ...]:
    """Parse `NAME=URL,...`, or a mapping of names to URLs or to mappings of settings.

    Args:
        given: As it was written.

    Raises:
        SettingsError: If a setting is unknown or cannot be what it is. The message names it.
    """
    servers = []
    for name, value in _entries(given):
        try:
            settings = {"url": value} if isinstance(value, str) else value
            servers.append(_server(name, settings))
        except SettingsError as error:
            raise SettingsError(f"{name}: {error}") from error
    for server in servers:
        check_backend_name(server.name)
    return tuple(servers)


def key_variables(servers: Iterable[OpenAIServer]) -> set[str]:
    """Return the variables that have keys: they are for these servers and for no other backend."""
    return {server.api_key_env for server in servers if server.api_key_env is not None}


def _entries(given: str | Mapping[str, Any]) -> list[tuple[str, Any]]:
    if isinstance(given, Mapping):
        return [(str(name), value) for name, value in given.items()]
    if not isinstance(given, str):
        raise SettingsError("expected NAME=URL,... or a mapping")
    entries: dict[str, str] = {}
    for word in filter(None, map(str.strip, given.split(","))):
        name, equals, url = word.partition("=")
        if not equals or not url:
            # Not the word itself: a URL can hold a password.
            raise SettingsError("expected NAME=URL,...")
        if entries.setdefault(name.strip(), url.strip()) != url.strip():
            raise SettingsError(f"{name.strip()} is given twice")
    return list(entries.items())


def _server(name: str, given: Any) -> OpenAIServer:
    if not isinstance(given, Mapping):
        raise SettingsError("expected a URL or a mapping")
    read = {str(key).replace("-", "_"): value for key, value in given.items()}
    if unknown := sorted(read.keys() - _PARSERS.keys()):
        known = ", ".join(_PARSERS)
        raise SettingsError(f"unknown setting {', '.join(unknown)}; known are {known}")
    options: dict[str, Any] = {}
    for key, value in read.items():
        if value is not None:
            try:
                options[key] = _PARSERS[key](value)
            except SettingsError as error:
                raise SettingsError(f"{key}: {error}") from error
    key_variable = options.pop("api_key_env", None)
    _check(options, has_key=key_variable is not None)
    return OpenAIServer(name=name, api_key_env=key_variable, options=options)


def _check(options: Mapping[str, Any], *, has_key: bool) -> None:
    if "command" in options:
        _check_command(options, has_key=has_key or "api_key_file" in options)
    elif "url" not in options:
        raise SettingsError("expected url or command")
    else:
        _check_url(options["url"])
        if "env" in options:
            raise SettingsError("env is for a command, and there is none")
    if has_key and "api_key_file" in options:
        raise SettingsError("expected api_key_env or api_key_file, not both")
    if not all(options.get(name, 1) > 0 for name in _DURATIONS):
        raise SettingsError(f"expected {' and '.join(_DURATIONS)} above 0")


def _check_command(options: Mapping[str, Any], *, has_key: bool) -> None:
    command = options["command"]
    variables = options.get("env", {})
    for text in (*command, *variables.values(), options.get("url", "")):
        for name in _PLACEHOLDER.findall(text):
            if name not in PLACEHOLDERS:
                known = ", ".join(PLACEHOLDERS)
                raise SettingsError(f"unknown placeholder {{{name}}}; known are {known}")
    everywhere = " ".join((*command, *variables.values()))
    if "{port" not in everywhere:
        raise SettingsError("command: neither it nor env says {port}, where it is to listen")
    if "{api_key" in " ".join(command):
        raise SettingsError("command: every user can see arguments; give {api_key} in env")
    if has_key and "{api_key" in everywhere:
        raise SettingsError("expected {api_key}, a random one, or a key of your own, not both")
    if _PLACEHOLDER.search(command[0]):
        raise SettingsError("command: a placeholder cannot choose the program")
    if any(Path(word).name in SHELLS for word in command):
        for before, script in itertools.pairwise(command):
            if re.fullmatch(r"-[a-z]*c", before) and _PLACEHOLDER.search(script):
                # The name of a model would become part of a script.
                raise SettingsError(
                    "command: no placeholder can stand in a script; give it as an argument behind"
                )
    if "url" in options:
        _check_url(_PLACEHOLDER.sub("1", options["url"]))


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingsError("url: not a URL") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise SettingsError("url: expected http://HOST:PORT or https://HOST")
    if parts.username is not None or parts.password is not None:
        raise SettingsError("url: cannot hold a name or a password; use api_key_env or headers")
    if parts.query or parts.fragment:
        raise SettingsError("url: cannot have a query or a fragment")


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value):
        raise SettingsError("expected text")
    if not str(value).isprintable():
        raise SettingsError("expected text without control characters")
    return str(value)


def _variable(value: Any) -> str:
    if not _VARIABLE.fullmatch(_text(value)):
        raise SettingsError("expected the name of a variable")
    return _text(value)


def _file(value: Any) -> str:
    return str(Path(_text(value)).expanduser().absolute())


def _command(value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise SettingsError("expected a list: the program and its arguments")
    return [_text(one) for one in value]


def _variables(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise SettingsError("expected a mapping")
    return {_variable(name): _text(text) for name, text in value.items()}


def _headers(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise SettingsError("expected a mapping")
    for name, text in value.items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name) or not _text(text).isascii():
            raise SettingsError(f"{name!r} is not the name of a header, or its value is not ASCII")
    return {name: _text(text) for name, text in value.items()}


def _path(value: Any) -> str:
    if not _text(value).startswith("/"):
        raise SettingsError("expected a path that begins with /")
    return _text(value)


def _proxy(value: Any) -> str:
    parts = urlsplit(_text(value))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError("expected http://HOST:PORT")
    return _text(value)


def _parameters(value: Any) -> dict[str, str | None]:
    if not isinstance(value, Mapping):
        raise SettingsError("expected a mapping")
    return {_text(old): None if new is None else _text(new) for old, new in value.items()}


def _body(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError("expected a mapping")
    try:
        body: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise SettingsError("cannot be written as JSON") from error
    return body


_DURATIONS = ("connect_timeout", "timeout")
"""The settings that are durations."""
_PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "url": _text,
    "command": _command,
    "env": _variables,
    "model": _text,
    "api_key_env": _variable,
    "api_key_file": _file,
    "headers": _headers,
    "proxy": _proxy,
    "ca_file": _file,
    "ready_path": _path,
    "parameters": _parameters,
    "body": _body,
    **dict.fromkeys(_DURATIONS, parse_duration),
}
"""The settings of a server, and how each value is read."""
