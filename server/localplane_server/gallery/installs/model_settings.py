"""Settings of a model's configuration that strangers send: what they may say, merged, and written."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import yaml

from localplane_server.errors import InvalidArgumentError
from localplane_server.gallery.installs.file_names import check_backend_name, check_file_name
from localplane_server.models.configuration import ConfigurationError, parse_configuration

DEEPEST_NESTING = 30
"""Mappings and lists inside each other."""
LARGEST_SETTINGS = 512 * 1024
"""Bytes of the largest settings, written as JSON. A configuration must stay readable."""

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def check_settings(settings: Mapping[str, Any], *, field: str) -> None:
    """Check settings for a model's configuration: JSON that can be written, of a sensible size.

    Raises:
        InvalidArgumentError: If they are something else.
    """
    if _depth(settings) > DEEPEST_NESTING:
        message = f"cannot use {field}: it is nested deeper than {DEEPEST_NESTING} levels"
        raise InvalidArgumentError(message, field=field)
    try:
        size = len(json.dumps(settings, default=_writable, ensure_ascii=False).encode())
    except (TypeError, ValueError) as error:
        message = f"cannot use {field}: it holds something that cannot be written"
        raise InvalidArgumentError(message, field=field) from error
    if size > LARGEST_SETTINGS:
        message = f"cannot use {field}: it is larger than {LARGEST_SETTINGS} bytes"
        raise InvalidArgumentError(message, field=field)


def check_named(settings: Mapping[str, Any], *, field: str) -> None:
    """Check what settings choose by a name that would become a program or a path.

    Raises:
        InvalidArgumentError: If a backend is no name, or a file leads out of the models folder.
    """
    backend = settings.get("backend")
    if backend not in (None, ""):
        check_backend_name(str(backend), field=f"{field}.backend")
    try:
        # The same rules as for any configuration, whatever it is called.
        parse_configuration(yaml_text({**settings, "name": "any"}), config_file="any.yaml")
    except ConfigurationError as error:
        raise InvalidArgumentError(f"cannot use {field}: {error}", field=field) from error
    downloads = settings.get("download_files")
    for number, one in enumerate(downloads if isinstance(downloads, list) else ()):
        if isinstance(one, Mapping) and one.get("filename"):
            at = f"{field}.download_files[{number}].filename"
            check_file_name(str(one["filename"]), field=at)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return one mapping with another over it.

    Mappings inside are merged key by key. Everything else is replaced: lists as a whole, and also by what is false,
    zero, empty or null.
    """
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            result[key] = merged(below, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def yaml_text(content: Mapping[str, Any]) -> str:
    """Return content as YAML, in the order that it has."""
    return yaml.dump(
        _plain(content), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True
    )


def _plain(value: Any) -> Any:
    """Return a copy without what only Python knows, and with nothing in it twice: no file of ours needs aliases."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _writable(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    # YAML knows dates and times.
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(type(value).__name__)


def _depth(value: object) -> int:
    """Return how deep something is nested, without recursing, which something deep would not survive."""
    deepest, waiting = 0, [(value, 1)]
    while waiting and deepest <= DEEPEST_NESTING:
        one, depth = waiting.pop()
        inner = one.values() if isinstance(one, Mapping) else one if isinstance(one, list) else ()
        deepest = max(deepest, depth)
        waiting += [(each, depth + 1) for each in inner if isinstance(each, Mapping | list)]
    return deepest
