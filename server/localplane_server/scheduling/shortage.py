"""Loads that fail for want of memory, which only their own words tell."""

from __future__ import annotations

WORDS = (
    "out of memory",
    "outofmemory",
    "not enough memory",
    "insufficient memory",
    "no available memory",
    "free memory on device",
    "cannot allocate",
    "could not allocate",
    "failed to allocate",
    "unable to allocate",
    "allocation failed",
    "alloc failed",
    "alloc_failed",
)
"""What backends and the libraries below them say, in lower case."""


def tells_of_shortage(message: str) -> bool:
    """Whether the cause of a failed load, or the last lines of its log, tell that there was too little memory."""
    said = message.lower()
    return any(words in said for words in WORDS)
