"""Model files that are made of what is published in another form. Only the built-in gallery asks for it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from localplane_server.errors import InstallFailedError, InvalidArgumentError
from localplane_server.gallery.blocking import Advance
from localplane_server.gallery.entry import GalleryFile

BERT_GGUF = "bert-gguf"
WEIGHTS, CONFIGURATION, VOCABULARY = "model.safetensors", "config.json", "vocab.txt"
"""What a conversion of BERT calls its sources."""

CONVERSIONS: Mapping[str, frozenset[str]] = {
    BERT_GGUF: frozenset({WEIGHTS, CONFIGURATION, VOCABULARY})
}
"""Names of conversions, and of the sources of each."""


def check_conversion(file: GalleryFile, *, field: str) -> None:
    """Check that a file can be made as it is to be.

    Raises:
        InvalidArgumentError: If no conversion is called so, a source is missing, or nobody says what comes out.
    """
    wanted = CONVERSIONS.get(file.convert)
    given = {one.filename for one in file.sources}
    if wanted is None or given != wanted or len(file.sources) != len(wanted):
        message = f"cannot make {file.filename}: no conversion {file.convert} of {sorted(given)}"
        raise InvalidArgumentError(message, field=field)
    if not file.sha256:
        message = f"cannot make {file.filename}: it is not said what has to come out"
        raise InvalidArgumentError(message, field=field)


def convert(file: GalleryFile, sources: Mapping[str, Path], target: Path, advance: Advance) -> int:
    """Make a file and return its size. Blocks.

    Args:
        file: What to make.
        sources: The files that it is made of, by name.
        target: Where to write it.
        advance: Is told how many more bytes were written.

    Raises:
        InstallFailedError: If it cannot be made of them, or something else comes out.
    """
    # Only whoever converts pays for numpy.
    from localplane_server.gallery.checkpoints.bert import ConversionError, convert_bert  # noqa: PLC0415

    try:
        with target.open("wb") as output:
            counted = _Counted(output, advance)
            convert_bert(
                weights=sources[WEIGHTS],
                configuration=sources[CONFIGURATION],
                vocabulary=sources[VOCABULARY],
                name=file.title,
                output=counted,
            )
            output.flush()
            os.fsync(output.fileno())
    except ConversionError as error:
        message = f"cannot make {file.filename}: {error}"
        raise InstallFailedError(message, file=file.filename) from error
    if counted.sha256 != file.sha256:
        message = (
            f"cannot make {file.filename}: it comes out with SHA-256 {counted.sha256},"
            f" and {file.sha256} was expected"
        )
        raise InstallFailedError(message, file=file.filename)
    return counted.size_bytes


def foreseen(file: GalleryFile, beginnings: Mapping[str, bytes]) -> tuple[bytes, int]:
    """Return how a file will begin that is to be made, and its size.

    Args:
        file: What to make. Where its gallery does not tell its size, that of its tensors is told.
        beginnings: The beginnings of its sources, by name: of those that `looked_at` names.

    Raises:
        InstallFailedError: If it cannot be made of them.
    """
    from localplane_server.gallery.checkpoints.bert import (  # noqa: PLC0415 - as above
        ConversionError,
        foresee_bert,
        foresee_bert_bytes,
    )

    configuration = beginnings[CONFIGURATION]
    try:
        header = foresee_bert(configuration=configuration, name=file.title)
        if file.size_bytes is not None:
            return header, file.size_bytes
        weights = beginnings[WEIGHTS]
        return header, foresee_bert_bytes(configuration=configuration, weights=weights)
    except ConversionError as error:
        message = f"cannot make {file.filename}: {error}"
        raise InstallFailedError(message, file=file.filename) from error


def looked_at(file: GalleryFile) -> list[GalleryFile]:
    """Return the sources of a file to make whose beginnings tell what it will be."""
    wanted = {CONFIGURATION} if file.size_bytes is not None else {CONFIGURATION, WEIGHTS}
    return [one for one in file.sources if one.filename in wanted]


class _Counted:
    """Writes to a file, tells how far it is, and knows the hash of what was written."""

    def __init__(self, file: IO[bytes], advance: Advance) -> None:
        self._file = file
        self._advance = advance
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)
        self._advance(len(data))

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()
