"""Identifiers that callers give their requests, so that a repeated one is not done twice."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import orjson

from localplane_server.errors import InvalidArgumentError, RequestIdReusedError

REMEMBERED = timedelta(days=1)
"""How long an identifier means its first request."""


@dataclass(frozen=True, slots=True)
class RequestKey:
    """An identifier and what it was given to."""

    request_id: str
    """The identifier, a UUID in small letters."""
    fingerprint: str
    """Stands for the request."""

    @classmethod
    def of(cls, request_id: str, request: Any) -> Self:
        """Return the key of a request.

        Raises:
            InvalidArgumentError: If the identifier is no UUID.
        """
        try:
            name = str(uuid.UUID(request_id))
        except ValueError as error:
            message = "request_id is not a UUID such as 123e4567-e89b-12d3-a456-426614174000"
            raise InvalidArgumentError(message, field="request_id") from error
        written = orjson.dumps(request, option=orjson.OPT_SORT_KEYS)
        return cls(name, hashlib.sha256(written).hexdigest())


@dataclass(frozen=True, slots=True)
class RememberedKey:
    """A key and the job that came of it."""

    key: RequestKey
    """The key."""
    job_id: str
    """The job."""
    at: datetime
    """When it was first given."""


class RequestIds:
    """The keys of the last day."""

    def __init__(self) -> None:
        self._remembered: dict[str, RememberedKey] = {}

    def restore(self, remembered: Iterable[RememberedKey]) -> None:
        """Know the keys that an earlier service was given."""
        self._remembered.update((one.key.request_id, one) for one in remembered)

    def job_of(self, key: RequestKey, now: datetime) -> str:
        """Return the job that a key led to, or an empty text when it is new.

        Raises:
            RequestIdReusedError: If its identifier was given to another request.
        """
        found = self._remembered.get(key.request_id)
        if found is None or now - found.at >= REMEMBERED:
            return ""
        if found.key != key:
            raise RequestIdReusedError(key.request_id)
        return found.job_id

    def add(self, key: RequestKey, job_id: str, at: datetime) -> None:
        """Remember a key."""
        self._remembered[key.request_id] = RememberedKey(key, job_id, at)

    def forget(self, key: RequestKey) -> None:
        """Forget a key: its request was not taken."""
        self._remembered.pop(key.request_id, None)

    def forget_job(self, job_id: str) -> None:
        """Forget the keys of a job that was not taken."""
        self._remembered = {
            name: one for name, one in self._remembered.items() if one.job_id != job_id
        }

    def forget_old(self, now: datetime) -> datetime:
        """Forget the keys that are too old, and return from when on they are not."""
        oldest = now - REMEMBERED
        self._remembered = {name: one for name, one in self._remembered.items() if one.at > oldest}
        return oldest
