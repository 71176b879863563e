"""A model's configuration, in LocalAI's YAML."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from localplane_server.models.engine_keys import ENGINE_KEYS, EngineValue, Kind
from localplane_server.models.names import LONGEST_NAME, is_contained
from localplane_server.setting_values import BACKEND_NAME

LARGEST_FILE = 1024 * 1024
"""Bytes of the largest configuration that is read."""
MOST_ALIASES = 64
"""YAML aliases in one file. A file of billions of laughs uses more."""
DEEPEST_NESTING = 32
"""Mappings and lists inside each other. The C loader recurses and would crash at some depth."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ConfigurationError(ValueError):
    """A configuration cannot be used. The message says why and names the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a model's tokens are sampled where a call does not say. None means the backend's default."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One model, as its configuration describes it, or as its file alone tells."""

    name: str
    """Name under which it is asked for."""
    backend: str = ""
    """Backend that serves it. Empty: whichever can."""
    aliases: tuple[str, ...] = ()
    """Other names that mean it."""
    file: str = ""
    """Model file, relative to the models folder."""
    config_file: str | None = None
    """Configuration file, relative to the models folder. None for a model file without one."""
    context_size: int | None = None
    """Context size in tokens. None: the backend decides."""
    threads: int | None = None
    """Threads to compute with. None: the backend decides."""
    f16: bool | None = None
    """Whether the key-value cache holds 16-bit numbers. None: the backend decides."""
    embeddings: bool = False
    """Whether it computes embeddings."""
    batch: int | None = None
    """Prompt tokens per batch. None: the backend decides."""
    gpu_layers: int | None = None
    """Layers to put on a device. None: all that fit."""
    mmap: bool | None = None
    """Whether the file is mapped. None: the backend decides."""
    options: tuple[str, ...] = ()
    """Options for the backend, each `key:value`."""
    stop: tuple[str, ...] = ()
    """Texts at which generation stops, besides those of a call."""
    use_cases: frozenset[str] = frozenset()
    """What it is for, in LocalAI's words. Empty: not said."""
    description: str = ""
    """What it is, for people."""
    pinned: bool = False
    """Whether it stays loaded, whoever else needs its place."""
    sampling: Sampling = Sampling()
    """How its tokens are sampled where a call does not say."""
    engine: tuple[tuple[str, EngineValue], ...] = ()
    """What is handed on to backends that are none of ours: fields of the protocol's `ModelOptions`, and values."""


def read_configuration(path: Path, *, root: Path) -> ModelConfig:
    """Read one configuration file.

    Keys that the service does not use are left to those who do: they are no error.

    Raises:
        ConfigurationError: If the file cannot be read, is no YAML mapping, or a key has a value it cannot have.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigurationError(f"is larger than {LARGEST_FILE} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot be read: {error}") from error
    return parse_configuration(text, config_file=path.relative_to(root).as_posix())


def parse_configuration(text: str, *, config_file: str) -> ModelConfig:
    """Return what the text of a configuration file says.

    Raises:
        ConfigurationError: As `read_configuration`.
    """
    return _configuration(parse_mapping(text), config_file=config_file)


def parse_mapping(text: str) -> dict[Any, Any]:
    """Return the keys and values that a text in YAML holds, whatever they mean.

    Raises:
        ConfigurationError: If it is no YAML mapping, or one that grows or recurses when it is read.
    """
    content = _parse(text)
    if not isinstance(content, dict):
        raise ConfigurationError("is not a mapping of keys to values")
    return content


def _parse(text: str) -> Any:
    try:
        _check_structure(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, in C where there is one
    except yaml.YAMLError as error:
        raise ConfigurationError(f"is not YAML: {' '.join(str(error).split())}") from error
    except ConfigurationError:
        raise
    except (RecursionError, ValueError) as error:
        raise ConfigurationError("is not YAML that can be used") from error


def _check_structure(text: str) -> None:
    aliases = depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if aliases > MOST_ALIASES:
            raise ConfigurationError(f"uses more than {MOST_ALIASES} YAML aliases")
        if depth > DEEPEST_NESTING:
            raise ConfigurationError(f"is nested deeper than {DEEPEST_NESTING} levels")


def _configuration(content: Mapping[Any, Any], *, config_file: str) -> ModelConfig:
    keys = _Keys(content, "")
    parameters = _Keys(keys.get("parameters", _mapping, {}), "parameters.")
    name = keys.get("name", _text, "")
    if not name:
        raise ConfigurationError("name is missing")
    if len(name.encode()) > LONGEST_NAME or any(ord(char) < 32 for char in name):  # noqa: PLR2004 - control characters
        raise ConfigurationError("name is too long or has control characters")
    backend = keys.get("backend", _text, "")
    if backend and not BACKEND_NAME.fullmatch(backend):
        # Never a path or an address: a configuration chooses among what the operator has, and brings nothing.
        raise ConfigurationError(
            f"backend {backend!r} is not a name of letters, digits, -, _ and ."
        )
    file = parameters.get("model", _text, "") or keys.get("model", _text, "")
    if not is_contained(file):
        raise ConfigurationError(f"parameters.model {file!r} leads out of the models folder")
    return ModelConfig(
        name=name,
        backend=backend,
        aliases=tuple(keys.get("aliases", _texts, [])),
        file=file,
        config_file=config_file,
        context_size=keys.get("context_size", _positive, None),
        threads=keys.get("threads", _positive, None),
        f16=keys.get("f16", _flag, None),
        embeddings=keys.get("embeddings", _flag, False),
        batch=parameters.get("batch", _positive, None),
        gpu_layers=keys.get("gpu_layers", _whole, None),
        mmap=keys.get("mmap", _flag, None),
        options=tuple(keys.get("options", _texts, [])),
        stop=tuple(keys.get("stopwords", _texts, [])),
        use_cases=frozenset(word.lower() for word in keys.get("known_usecases", _texts, [])),
        description=keys.get("description", _text, ""),
        pinned=keys.get("pinned", _flag, False),
        sampling=Sampling(
            max_tokens=parameters.get("max_tokens", _positive, None),
            temperature=parameters.get("temperature", _number, None),
            top_p=parameters.get("top_p", _number, None),
            top_k=parameters.get("top_k", _whole, None),
            min_p=parameters.get("min_p", _number, None),
            seed=parameters.get("seed", _whole, None),
            repeat_penalty=parameters.get("repeat_penalty", _number, None),
            frequency_penalty=parameters.get("frequency_penalty", _number, None),
            presence_penalty=parameters.get("presence_penalty", _number, None),
        ),
        engine=_engine(content),
    )


def _engine(content: Mapping[Any, Any]) -> tuple[tuple[str, EngineValue], ...]:
    found: dict[str, EngineValue] = {}
    for path, (field, kind) in ENGINE_KEYS.items():
        outer, _, key = path.rpartition(".")
        keys = _Keys(content, "")
        if outer:
            keys = _Keys(keys.get(outer, _mapping, {}), f"{outer}.")
        value = keys.get(key, _ENGINE_PARSERS[kind], None)
        if value is not None:
            # Of two keys for one field, the one that says something counts.
            found[field] = found.get(field) or value
    return tuple(found.items())


class _Keys:
    """The keys of one mapping; a key that is there and null counts as not there, as LocalAI has it."""

    def __init__(self, content: Mapping[Any, Any], prefix: str) -> None:
        self._content = content
        self._prefix = prefix

    def get(self, key: str, parse: Callable[[Any], Any], default: Any) -> Any:
        value = self._content.get(key)
        if value is None:
            return default
        try:
            return parse(value)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{self._prefix}{key} {error}") from error


def _text(value: Any) -> str:
    # YAML reads `name: 1.5` as a number; a person means the text.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError("is not text")
    return str(value)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise TypeError("is not a list of texts")
    return [_text(item) for item in value]


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("is not true or false")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value < 2**31:
        raise TypeError("is not a whole number of 32 bits")
    return value


def _positive(value: Any) -> int | None:
    # LocalAI's files say 0, and -1 for tokens, where they mean the default.
    number = _whole(value)
    return number if number > 0 else None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError("is not a number")
    return float(value)


def _switch(value: Any) -> str:
    # YAML reads on and off as true and false.
    return ("on" if value else "off") if isinstance(value, bool) else _text(value)


def _numbers(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise TypeError("is not a list of numbers")
    return tuple(_number(item) for item in value)


def _contained(value: Any) -> str:
    path = _text(value)
    if not is_contained(path):
        raise ValueError(f"{path!r} leads out of the models folder")
    return path


def _contained_all(value: Any) -> tuple[str, ...]:
    return tuple(_contained(item) for item in _texts(value))


def _json(value: Any) -> str:
    try:
        return json.dumps(_mapping(value), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError("is not a mapping that JSON can hold") from error


def _mapping(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise TypeError("is not a mapping")
    return value


_ENGINE_PARSERS: Mapping[Kind, Callable[[Any], Any]] = {
    "flag": _flag,
    "json": _json,
    "number": _number,
    "numbers": _numbers,
    "path": _contained,
    "paths": _contained_all,
    "switch": _switch,
    "text": _text,
    "whole": _whole,
}
