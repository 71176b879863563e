"""Values of YAML that strangers wrote, made of the nodes that the C parser gives.

Values are those of JSON: what YAML has beyond them, such as dates, stays the text that it is.
"""

from __future__ import annotations

import math
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

MOST_ENTRY = 4 << 20
"""What one value may hold once every alias is replaced by what it stands for, in characters."""
VALUE_WEIGHT = 32
"""As how many characters a value counts besides its own: it takes more memory than they do."""
MOST_MERGED = 2_000_000
"""How many fields all mappings of an index together may take from others."""
DEEPEST = 100
"""How deep values may be nested. Messages of gRPC, in which they are told, allow as much."""

_PREFIX = "tag:yaml.org,2002:"
_STR, _INT, _FLOAT = f"{_PREFIX}str", f"{_PREFIX}int", f"{_PREFIX}float"
_BOOL, _NULL, _MERGE = f"{_PREFIX}bool", f"{_PREFIX}null", f"{_PREFIX}merge"
_TEXTS = frozenset({_STR, f"{_PREFIX}timestamp", f"{_PREFIX}value"})
_LARGEST = 1 << 64
_NUMBERS = SafeConstructor()


class WrongNodeError(Exception):
    """A node is not what it has to be. The text says why."""

    def __init__(self, message: str, node: yaml.Node | None = None) -> None:
        super().__init__(message)
        self.mark = node.start_mark if node is not None else None
        """Where it is. None when the whole entry is meant."""


class NodeReader:
    """Makes values of nodes, and counts what it makes.

    A node that several aliases name is made once; its value is shared then.
    """

    def __init__(self) -> None:
        self.weight = 0
        """Characters of all that was read, counted as often as it is there."""
        # The node is kept with its value, so that no other one gets its identity.
        self._known: dict[int, tuple[yaml.Node, Any, int]] = {}
        self._known_fields: dict[int, tuple[yaml.Node, dict[str, yaml.Node]]] = {}
        self._open: set[int] = set()
        self._merging: set[int] = set()
        self._merged = 0
        self._depth = 0

    def text(self, node: yaml.Node) -> str:
        """Return the text of a scalar, whatever type it seems to be of; null is an empty one."""
        if not isinstance(node, yaml.ScalarNode):
            raise WrongNodeError("there is a list or a mapping where a text belongs", node)
        text: str = "" if node.tag == _NULL else node.value
        self.weight += len(text) + VALUE_WEIGHT
        return text

    def items(self, node: yaml.Node) -> list[yaml.Node]:
        """Return the nodes of a list; null is an empty one."""
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        if isinstance(node, yaml.ScalarNode) and node.tag == _NULL:
            return []
        raise WrongNodeError("there is no list where one belongs", node)

    def mapping(self, node: yaml.Node) -> dict[str, yaml.Node]:
        """Return the nodes of a mapping by key, merges done: what is written there wins.

        Not to be changed: whoever asks again gets the same.
        """
        if not isinstance(node, yaml.MappingNode):
            raise WrongNodeError("there is no mapping where one belongs", node)
        known = self._known_fields.get(id(node))
        if known is not None:
            return known[1]
        fields: dict[str, yaml.Node] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if key.tag == _MERGE:
                merged.append(value)
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise WrongNodeError("a key is a list or a mapping", key)
            if key.value in fields:
                raise WrongNodeError(f"the key {key.value[:100]!r} is there twice", key)
            fields[key.value] = value
        if merged:
            self._merge(node, merged, fields)
            self._known_fields[id(node)] = (node, fields)
        return fields

    def _merge(
        self, node: yaml.Node, merged: list[yaml.Node], fields: dict[str, yaml.Node]
    ) -> None:
        """Add to a mapping what it merges and does not say itself."""
        if id(node) in self._merging:
            raise WrongNodeError("it merges itself", node)
        if len(self._merging) >= DEEPEST:
            raise WrongNodeError(f"it merges more than {DEEPEST} deep", node)
        self._merging.add(id(node))
        try:
            for value in merged:
                many = isinstance(value, yaml.SequenceNode)
                for one in value.value if many else (value,):
                    inherited = self.mapping(one)
                    self._merged += len(inherited)
                    if self._merged > MOST_MERGED:
                        raise _too_large(node)
                    for name, inherited_value in inherited.items():
                        fields.setdefault(name, inherited_value)
        finally:
            self._merging.discard(id(node))

    def value(self, node: yaml.Node) -> Any:
        """Return what a node stands for."""
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        known = self._known.get(id(node))
        if known is not None:
            self._add_weight(known[2], node)
            return known[1]
        if id(node) in self._open:
            raise WrongNodeError("it contains itself", node)
        if self._depth >= DEEPEST:
            raise WrongNodeError(f"it is nested more than {DEEPEST} deep", node)
        before = self.weight
        self._add_weight(VALUE_WEIGHT, node)
        self._open.add(id(node))
        self._depth += 1
        try:
            value: Any
            if isinstance(node, yaml.MappingNode):
                _check_tag(node, "map")
                value = {name: self.value(one) for name, one in self.mapping(node).items()}
                self._add_weight(sum(map(len, value)), node)
            else:
                _check_tag(node, "seq")
                value = [self.value(one) for one in node.value]
        finally:
            self._depth -= 1
            self._open.discard(id(node))
        if self.weight - before > MOST_ENTRY:
            raise _too_large(node)
        self._known[id(node)] = (node, value, self.weight - before)
        return value

    def _add_weight(self, weight: int, node: yaml.Node) -> None:
        if weight > MOST_ENTRY:
            raise _too_large(node)
        self.weight += weight

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        self.weight += len(text) + VALUE_WEIGHT
        tag = node.tag
        if tag in _TEXTS:
            return text
        if tag == _NULL:
            return None
        try:
            if tag == _BOOL:
                return _NUMBERS.construct_yaml_bool(node)
            if tag in (_INT, _FLOAT):
                return _number(node, text)
        except (ValueError, KeyError, OverflowError):
            raise WrongNodeError(
                f"{text[:100]!r} is no {tag.removeprefix(_PREFIX)}", node
            ) from None
        raise WrongNodeError(f"it has the tag {tag[:100]!r}, which is not known here", node)


def _number(node: yaml.ScalarNode, text: str) -> Any:
    # To the base of 60 numbers are in YAML 1.1 alone, and whoever writes 1:30 does not mean 90.
    if ":" in text:
        return text
    if node.tag == _INT:
        # Long numbers take long to be read.
        number = _NUMBERS.construct_yaml_int(node) if len(text) < 100 else _LARGEST  # noqa: PLR2004
        if not -_LARGEST < number < _LARGEST:
            raise WrongNodeError("a number is too large", node)
        return number
    real = _NUMBERS.construct_yaml_float(node)
    if not math.isfinite(real):
        raise WrongNodeError("a number is not finite", node)
    return real


def _check_tag(node: yaml.Node, kind: str) -> None:
    if node.tag != _PREFIX + kind:
        raise WrongNodeError(f"it has the tag {node.tag[:100]!r}, which is not known here", node)


def _too_large(node: yaml.Node) -> WrongNodeError:
    message = "it is many times as large as it looks, by references to references"
    return WrongNodeError(message, node)
