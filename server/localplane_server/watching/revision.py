"""Places in a feed."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

_WRITTEN = re.compile(r"([0-9a-z]{1,32})-([0-9]{1,18})")


class Revision(NamedTuple):
    """A place in a feed. It is written `EPOCH-NUMBER`; to others than the feed it is a word without a meaning."""

    epoch: str
    """Names one life of the feed. After a restart of the service it is another."""
    number: int
    """How many changes there were before this place."""

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the place of that text, or None when it cannot be one."""
        found = _WRITTEN.fullmatch(text)
        return cls(found[1], int(found[2])) if found else None
