"""`google.protobuf.Timestamp` from JSON and to JSON: the usual forms fast, the rest by protobuf."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

SECOND = timedelta(seconds=1)
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - both sides of every difference are UTC
LONGEST_FRACTION = 9

_USUAL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z")


def fill_timestamp(message: Any, value: Any) -> None:
    """Set an empty timestamp.

    Raises:
        ValueError: If it is no time.
    """
    if type(value) is not str or not _USUAL.fullmatch(value):
        message.FromJsonString(value)
        return
    moment = datetime.fromisoformat(value[:19])
    message.seconds = (moment - EPOCH) // SECOND
    message.nanos = int(value[20:-1].ljust(LONGEST_FRACTION, "0"))


def timestamp_object(message: Any) -> str:
    """Turn a timestamp into what orjson writes.

    Raises:
        ValueError: If it is out of range.
    """
    if message.nanos:
        return message.ToJsonString()  # type: ignore[no-any-return]
    try:
        return f"{(EPOCH + timedelta(seconds=message.seconds)).isoformat()}Z"
    except OverflowError as error:
        msg = "the time is out of range"
        raise ValueError(msg) from error
