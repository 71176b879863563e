"""The rules for names that become files below the models folder, whoever chose them."""

from __future__ import annotations

import re
import unicodedata

from localplane_server.errors import InvalidArgumentError, InvalidModelNameError
from localplane_server.models.names import check_name

LONGEST_PART = 255
"""Bytes of the longest name of one file: no file system takes more."""
LONGEST_PATH = 1024
"""Bytes of the longest path below the models folder."""
DEEPEST = 16
"""Folders inside each other, and the file."""
LONGEST_MODEL_NAME = 200
"""Bytes of the longest name of a model that is installed: `._gallery_NAME.yaml` must fit, and so must what is
written beside it."""

CONFIGURATION_SUFFIXES = (".yaml", ".yml")
TEMPLATE_SUFFIX = ".tmpl"
BACKEND_NAME = re.compile(r"[a-zA-Z0-9_-]+")
"""What a gallery may name as a backend, as LocalAI has it."""
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def configuration_file(name: str) -> str:
    """Return the name of the file that holds a model's configuration."""
    return f"{name}.yaml"


def gallery_file(name: str) -> str:
    """Return the name of the file that says how a model was installed. The name is LocalAI's."""
    return f"._gallery_{name}.yaml"


def installed_name(name: str, *, field: str = "name") -> str:
    """Return the name under which a model is installed: with `__` for each `/`.

    Raises:
        InvalidModelNameError: If no file could be called so, or it would lead elsewhere.
    """
    flat = name.replace("/", "__")
    problem = None if is_encodable(name) else _problem_of_part(flat)
    if problem is None:
        check_name(name, field=field)
        problem = _problem_of_part(flat)
    if problem is None and len(flat.encode()) > LONGEST_MODEL_NAME:
        problem = f"is longer than {LONGEST_MODEL_NAME} bytes"
    if problem is not None:
        message = f"cannot use {shown(name)} as the name of a model: it {problem}"
        raise InvalidModelNameError(message, field=field)
    return flat


def check_file_name(path: str, *, field: str) -> str:
    """Return the path of a file below the models folder if it is one that an installation may write.

    Raises:
        InvalidArgumentError: If it leads elsewhere, names a hidden file or a configuration, or no file could be
            called so.
    """
    problem = _problem_of_path(path)
    if problem is None and "/" not in path and path.lower().endswith(CONFIGURATION_SUFFIXES):
        # It would be a model, with whatever settings whoever made it likes.
        problem = "is that of a model's configuration"
    if problem is not None:
        message = f"cannot install a file as {shown(path)}: the name {problem}"
        raise InvalidArgumentError(message, field=field)
    return path


def check_template_name(name: str, *, field: str) -> str:
    """Return the name of a prompt template if a file can be called so.

    Raises:
        InvalidArgumentError: If not.
    """
    check_file_name(name + TEMPLATE_SUFFIX, field=field)
    return name


def check_backend_name(name: str, *, field: str) -> str:
    """Return the name of a backend if it is one, and no path.

    Raises:
        InvalidArgumentError: If not.
    """
    if not BACKEND_NAME.fullmatch(name):
        message = f"cannot use backend {shown(name)}: its name may have letters, digits, - and _"
        raise InvalidArgumentError(message, field=field)
    return name


def check_sha256(digest: str, *, field: str) -> str:
    """Return a SHA-256 in small letters; empty where there is none.

    Raises:
        InvalidArgumentError: If it is not 64 hexadecimal digits.
    """
    if digest and not SHA256.fullmatch(digest):
        message = f"cannot use {shown(digest)} as a SHA-256: expected 64 hexadecimal digits"
        raise InvalidArgumentError(message, field=field)
    return digest.lower()


def is_encodable(text: str) -> bool:
    """Whether a text can be written at all: JSON may carry halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(text: str) -> str:
    """Return a text as an error may repeat it: short, and without what a terminal would obey."""
    most = 80
    return ascii(text if len(text) <= most else f"{text[:most]}...")


def _problem_of_path(path: str) -> str | None:
    if not path or not path.strip():
        return "is missing"
    if path.startswith("/"):
        return "is absolute"
    parts = path.split("/")
    if len(parts) > DEEPEST:
        return f"has more than {DEEPEST} parts"
    problem = next((found for found in map(_problem_of_part, parts) if found), None)
    if problem is None and len(path.encode()) > LONGEST_PATH:
        return f"is longer than {LONGEST_PATH} bytes"
    return problem


def _problem_of_part(part: str) -> str | None:
    if not is_encodable(part):
        return "is no text that can be written"
    checks = (
        (not part.strip(), "has a part without a name"),
        (part in (".", ".."), "leads elsewhere"),
        (part.startswith("."), "is that of a hidden file"),
        ("\\" in part, "has a backslash"),
        (any(unicodedata.category(char) == "Cc" for char in part), "has control characters"),
        (len(part.encode()) > LONGEST_PART, f"has a part longer than {LONGEST_PART} bytes"),
    )
    return next((problem for is_wrong, problem in checks if is_wrong), None)
