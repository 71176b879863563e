"""The rules for a model's name."""

from __future__ import annotations

import unicodedata

from localplane_server.errors import InvalidModelNameError

LONGEST_NAME = 255
"""Bytes of the longest name: it becomes a file name, and no file system takes more."""


def check_name(name: str, *, field: str = "model") -> str:
    """Return the name if it can be the name of a model.

    Raises:
        InvalidModelNameError: If it is empty or blank, longer than 255 bytes, or has control characters.
    """
    if not name or not name.strip():
        raise InvalidModelNameError(f"{field} is required", field=field)
    if len(name.encode()) > LONGEST_NAME:
        message = f"cannot use a model name longer than {LONGEST_NAME} bytes"
        raise InvalidModelNameError(message, field=field)
    if any(unicodedata.category(char) == "Cc" for char in name):
        raise InvalidModelNameError("cannot use a model name with control characters", field=field)
    return name


def is_contained(path: str) -> bool:
    """Whether a path of a configuration stays inside the models folder.

    LocalAI's rule, with the backslash and NUL besides: not absolute, no `..` as a part.
    """
    parts = path.replace("\\", "/").split("/")
    return not path.startswith(("/", "\\")) and ".." not in parts and "\0" not in path
