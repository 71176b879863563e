"""Reading the index of a gallery: YAML that strangers write.

The nodes that the C parser of PyYAML makes are read here, not by its constructor: so an entry that
is wrong costs nothing but itself, merges are seen where they are made, and what an alias stands for
is counted as often as it is used before anything is made of it. libyaml itself refuses what is
nested too deeply.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import yaml

from localplane_server.gallery.entry import GalleryEntry, GalleryFile
from localplane_server.gallery.yaml_values import NodeReader, WrongNodeError

MOST_INDEX_BYTES = 16 << 20
"""Size of an index. LocalAI's has about one megabyte."""
MOST_ENTRIES = 20_000
MOST_PARTS = 500_000
"""Lines, commas and brackets of an index: the parser makes no more nodes than that, of a kilobyte each."""
MOST_EXPANDED = 24 << 20
"""What an index may hold once every alias is replaced by what it stands for, in characters; values count as some."""
MOST_PROBLEMS = 100
"""How many bad entries are told of one by one."""
LONGEST_NAME = 255
_REREADINGS = 16
"""How many times over an index is read whose entries are no YAML together, at most."""

# What strangers write is matched without going back, or else a few kilobytes of it would take for ever.
_HTML = re.compile(
    rb"(?>\s+|<!--.*?-->)*+<(?:!doctype\s+html|html|head|body|\?xml)\b", re.IGNORECASE | re.DOTALL
)
_PIECE = re.compile(r"^- ", re.MULTILINE)
_ANCHOR = re.compile(r"(?<![^\s\[{,])&([^\s\[\]{},]+)")
_ALIAS = re.compile(r"(?<![^\s\[{,])\*([^\s\[\]{},]+)")
_NAME = re.compile(r"""^(?:- )?[ \t]*+name:[ \t]*+["']?([^"'\n]{1,255})""", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class UnreadableIndexError(Exception):
    """There is no index in these bytes. The text says why."""


@dataclass(frozen=True, slots=True)
class IndexProblem:
    """An entry that cannot be used."""

    entry: str
    """Its name. Empty when it has none that can be read."""
    line: int
    """Line of the index at which it begins."""
    message: str
    """What is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What a gallery offers."""

    gallery: str
    """Name of the gallery."""
    url: str
    """URL of the gallery."""
    entries: tuple[GalleryEntry, ...]
    """Its entries, in its order. No name is there twice, whatever the case of its letters."""
    problems: tuple[IndexProblem, ...]
    """Entries that were left out, as far as they are told one by one."""
    problem_count: int
    """How many were left out."""
    sha256: str
    """SHA-256 of the bytes."""
    by_key: Mapping[str, GalleryEntry]
    """Its entries by their keys."""

    def is_of(self, data: bytes) -> bool:
        """Whether it was read from these bytes."""
        return self.sha256 == hashlib.sha256(data).hexdigest()


def key_of(name: str) -> str:
    """Return what is the same for all ways to write a name: case does not matter, and `/` may be `__`."""
    return name.casefold().replace("/", "__")


def parse_index(data: bytes, *, gallery: str, url: str = "", is_builtin: bool = False) -> Index:
    """Read an index.

    An entry that cannot be used is left out and told in `problems`. That goes for a piece that is
    no YAML, too, as long as something else is some.

    Args:
        data: The index, as it was fetched.
        gallery: Name of the gallery.
        url: URL of the gallery.
        is_builtin: Whether it came with this package. Only then may files be conversions.

    Raises:
        UnreadableIndexError: If this is no index at all.
    """
    if len(data) > MOST_INDEX_BYTES:
        raise UnreadableIndexError(f"it has more than {MOST_INDEX_BYTES} bytes")
    if sum(map(data.count, (b"\n", b"\r", b",", b"[", b"{"))) > MOST_PARTS:
        raise UnreadableIndexError(f"it has more than {MOST_PARTS} parts")
    if _HTML.match(data[:4096]):
        raise UnreadableIndexError("it is a web page, and no index")
    reading = _Reading(gallery, url, is_builtin=is_builtin)
    try:
        root = yaml.compose(data, yaml.CSafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reading.take_pieces(data, error)
    else:
        if isinstance(root, yaml.SequenceNode):
            for node in root.value:
                reading.take(node)
        elif root is not None and root.value:
            raise UnreadableIndexError("it is no list of entries")
    return Index(
        gallery=gallery,
        url=url,
        entries=tuple(reading.entries.values()),
        problems=tuple(reading.problems),
        problem_count=reading.problem_count,
        sha256=hashlib.sha256(data).hexdigest(),
        by_key=reading.entries,
    )


class _Reading:
    """An index that is being read."""

    def __init__(self, gallery: str, url: str, *, is_builtin: bool) -> None:
        self.entries: dict[str, GalleryEntry] = {}
        self.problems: list[IndexProblem] = []
        self.problem_count = 0
        self._gallery = gallery
        self._url = url
        self._is_builtin = is_builtin
        self._reader = NodeReader()

    def take(self, node: yaml.Node, *, lines_before: int = 0) -> None:
        """Add the entry of a node, or tell what is wrong with it."""
        name = ""
        try:
            fields = self._reader.mapping(node)
            name = self._name(fields)
            key = key_of(name)
            if key in self.entries:
                raise WrongNodeError("another entry before it has this name")
            if len(self.entries) >= MOST_ENTRIES:
                raise UnreadableIndexError(f"it has more than {MOST_ENTRIES} entries")
            entry = self._entry(name, fields)
            if self._reader.weight > MOST_EXPANDED:
                message = "it is many times as large as it looks, by references to references"
                raise UnreadableIndexError(message)
            self.entries[key] = entry
        except WrongNodeError as error:
            begins = node.start_mark.line
            line = begins if error.mark is None else error.mark.line
            place = f" (line {lines_before + line + 1})" if line != begins else ""
            self._add_problem(name, lines_before + begins + 1, f"{error}{place}")

    def take_pieces(self, data: bytes, error: Exception) -> None:
        """Take the entries one by one, since they are no YAML together."""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise UnreadableIndexError("it is not UTF-8") from error
        starts = [found.start() for found in _PIECE.finditer(text)]
        if len(starts) < 2:  # noqa: PLR2004 - else the one entry is the whole
            raise UnreadableIndexError(f"it is no YAML: {_cause(error)}") from error
        pieces = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
        # What a piece refers to is in pieces before it, which are read again with it.
        holders: dict[str, int] = {}
        needs: list[set[int]] = []
        line = text.count("\n", 0, starts[0])
        allowance = _REREADINGS * len(text)
        for number, piece in enumerate(pieces):
            used = {holders[name] for name in _ALIAS.findall(piece) if name in holders}
            needed = used.union(*(needs[one] for one in used))
            needs.append(needed)
            before = "".join(pieces[one] for one in sorted(needed))
            allowance -= len(before)
            if allowance < 0:
                raise UnreadableIndexError(f"it is no YAML: {_cause(error)}") from error
            try:
                root = yaml.compose(before + piece, yaml.CSafeLoader)
            except (yaml.YAMLError, RecursionError, ValueError) as wrong:
                self._add_problem(_name_in(piece), line + 1, f"it is no YAML: {_cause(wrong)}")
            else:
                if isinstance(root, yaml.SequenceNode):
                    self.take(root.value[-1], lines_before=line - before.count("\n"))
                holders.update((name, number) for name in _ANCHOR.findall(piece))
            line += piece.count("\n")
        if not self.entries:
            raise UnreadableIndexError(f"it is no YAML: {_cause(error)}") from error

    def _add_problem(self, entry: str, line: int, message: str) -> None:
        self.problem_count += 1
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(IndexProblem(entry, line, message))

    def _name(self, fields: Mapping[str, yaml.Node]) -> str:
        name = self._text(fields, "name").strip()
        if not name:
            raise WrongNodeError("it has no name")
        if len(name.encode()) > LONGEST_NAME or _CONTROL.search(name):
            raise WrongNodeError("its name is too long or has control characters")
        return name

    def _entry(self, name: str, fields: Mapping[str, yaml.Node]) -> GalleryEntry:
        reader = self._reader
        overrides = self._values(fields, "overrides") or {}
        config_file = self._values(fields, "config_file")
        backend = self._text(fields, "backend")
        for values in (overrides, config_file or {}):
            backend = backend or str(values.get("backend") or "")
        files = reader.items(fields["files"]) if "files" in fields else ()
        variants = reader.items(fields["variants"]) if "variants" in fields else ()
        return GalleryEntry(
            name=name,
            gallery=self._gallery,
            gallery_url=self._url,
            url=self._text(fields, "url").strip(),
            description=self._text(fields, "description"),
            license=self._text(fields, "license"),
            icon=self._text(fields, "icon"),
            urls=self._texts(fields, "urls"),
            tags=self._texts(fields, "tags"),
            files=tuple(self._file(item) for item in files),
            config_file=config_file,
            overrides=overrides,
            variants=tuple(self._variant(item) for item in variants),
            size=self._text(fields, "size"),
            backend=backend,
            last_checked=self._text(fields, "last_checked"),
        )

    def _file(self, node: yaml.Node) -> GalleryFile:
        fields = self._reader.mapping(node)
        filename, uri = self._text(fields, "filename"), self._text(fields, "uri").strip()
        if not filename or not uri:
            raise WrongNodeError("a file of it has no filename or no uri", node)
        file = GalleryFile(
            filename=filename, uri=uri, sha256=self._text(fields, "sha256").strip().lower()
        )
        if not self._is_builtin:
            return file
        sources = self._reader.items(fields["sources"]) if "sources" in fields else ()
        return GalleryFile(
            filename=filename,
            uri=uri,
            sha256=file.sha256,
            size_bytes=int(self._text(fields, "size_bytes") or 0) or None,
            convert=self._text(fields, "convert"),
            title=self._text(fields, "title"),
            sources=tuple(self._file(source) for source in sources),
        )

    def _variant(self, node: yaml.Node) -> str:
        if isinstance(node, yaml.ScalarNode):
            return self._reader.text(node)
        return self._text(self._reader.mapping(node), "model")

    def _text(self, fields: Mapping[str, yaml.Node], key: str) -> str:
        return self._reader.text(fields[key]) if key in fields else ""

    def _texts(self, fields: Mapping[str, yaml.Node], key: str) -> tuple[str, ...]:
        if key not in fields:
            return ()
        node = fields[key]
        if isinstance(node, yaml.ScalarNode):
            text = self._reader.text(node)
            return (text,) if text else ()
        return tuple(self._reader.text(item) for item in self._reader.items(node))

    def _values(self, fields: Mapping[str, yaml.Node], key: str) -> dict[str, Any] | None:
        if key not in fields:
            return None
        node = fields[key]
        value = self._reader.value(node)
        if isinstance(value, str) and key == "config_file":
            # The text of YAML in place of it, as in the files that an entry's url points to.
            value = self._embedded(value, node)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise WrongNodeError(f"its {key} is no mapping", node)
        return cast("dict[str, Any]", value)

    def _embedded(self, text: str, node: yaml.Node) -> Any:
        try:
            root = yaml.compose(text, yaml.CSafeLoader)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            message = f"its config_file is no YAML: {_cause(error)}"
            raise WrongNodeError(message, node) from error
        return None if root is None else self._reader.value(root)


def _cause(error: Exception) -> str:
    """Say in one line what the parser of YAML does not like."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        place = f" in line {mark.line + 1}" if mark is not None else ""
        return f"{error.problem or error.context or 'it cannot be read'}{place}"
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _name_in(piece: str) -> str:
    """Guess the name of an entry that cannot be read."""
    found = _NAME.search(piece)
    return found[1].strip() if found else ""
