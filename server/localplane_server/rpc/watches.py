"""What the methods that watch have in common: where a watch goes on, and what it tells of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from localplane.v1 import watch_pb2
from localplane_server.errors import InvalidArgumentError, ModelNotFoundError
from localplane_server.models.catalog import ModelCatalog
from localplane_server.rpc.http_facts import LAST_EVENT_ID, http_fact
from localplane_server.watching.feed import BatchKind
from localplane_server.watching.revision import Revision

MOST_NAMES = 256
"""Names that one watch can be limited to."""

KINDS = {
    BatchKind.SNAPSHOT: watch_pb2.WATCH_KIND_SNAPSHOT,
    BatchKind.RESYNC: watch_pb2.WATCH_KIND_RESYNC,
    BatchKind.CHANGES: watch_pb2.WATCH_KIND_CHANGES,
}


def place_of(request: Any, context: Any) -> Revision | None:
    """Return where a watch is to go on, or None where it begins.

    A browser that connects again sends the last event beside the query of the first time, so it wins. It may come from
    another service at the same address, and a browser that is refused never tries again: then the watch begins.

    Raises:
        InvalidArgumentError: If `after_revision` cannot be one.
    """
    if last := http_fact(context, LAST_EVENT_ID):
        return Revision.parse(last)
    if not request.after_revision:
        return None
    place = Revision.parse(request.after_revision)
    if place is None:
        message = "after_revision is not the revision of a message of this watch"
        raise InvalidArgumentError(message, field="after_revision")
    return place


def selection(names: Sequence[str], catalog: ModelCatalog) -> Callable[[str], bool] | None:
    """Return which models to tell of, or None for all.

    Raises:
        InvalidArgumentError: If there are too many names.
        InvalidModelNameError: If one of them cannot be one.
    """
    if len(names) > MOST_NAMES:
        message = f"cannot watch more than {MOST_NAMES} models by name"
        raise InvalidArgumentError(message, field="models", limit=str(MOST_NAMES))
    # By its own name too: its configuration may be gone while it is still loaded.
    wanted = {name for given in names for name in (given, _meant(given, catalog))}
    return wanted.__contains__ if wanted else None


def _meant(name: str, catalog: ModelCatalog) -> str:
    try:
        return catalog.get(name).name
    except ModelNotFoundError:
        return name
