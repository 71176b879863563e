"""The watch over the process that started a backend, so that no backend outlives it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping

logger = logging.getLogger(__name__)

WATCH = "LOCALAI_BACKEND_PARENT_WATCH"
INTERVAL = "LOCALAI_BACKEND_PARENT_WATCH_INTERVAL"
DEFAULT_INTERVAL_SECONDS = 2.0


def watch_interval_seconds(environment: Mapping[str, str]) -> float | None:
    """Return how often to look at the parent, or None when LocalAI's variables switch that off.

    The interval is a number of seconds or a text such as `500ms` or `2s`. One that cannot be read
    is logged, and the default holds.
    """
    if environment.get(WATCH, "").strip().lower() in {"false", "0", "no", "off"}:
        return None
    text = environment.get(INTERVAL, "").strip().lower()
    if not text:
        return DEFAULT_INTERVAL_SECONDS
    number, unit_seconds = text.removesuffix("s"), 1.0
    if text.endswith("ms"):
        number, unit_seconds = text.removesuffix("ms"), 0.001
    try:
        seconds = float(number) * unit_seconds
    except ValueError:
        seconds = 0.0
    # The comparison is false for "nan" too.
    if not 0 < seconds < float("inf"):
        logger.warning(
            "%s=%r is not an interval, using %ss", INTERVAL, text, DEFAULT_INTERVAL_SECONDS
        )
        return DEFAULT_INTERVAL_SECONDS
    return seconds


async def parent_gone(parent: int, interval_seconds: float) -> None:
    """Return once ``parent`` is no longer the parent of this process.

    Args:
        parent: What `os.getppid` returned when the program began.
        interval_seconds: How often to look.
    """
    # Nothing announces the death of a parent to a program with threads.
    while os.getppid() == parent:  # noqa: ASYNC110
        await asyncio.sleep(interval_seconds)
