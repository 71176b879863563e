"""What happened, told to whoever listens: logs, metrics and watches. The domain emits and never listens."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A call of one of the service's own methods began. It is told of again when it ends."""


class CallFinished(NamedTuple):
    """A call of one of the service's own methods ended, over whichever interface it came.

    A tuple, like the end of a request, since there are thousands in a second: a frozen dataclass
    takes three times as long to make.
    """

    method: str
    """Full name, `/localplane.v1.ModelService/GetModel`. Empty when there is no such method: no start was told then."""
    code: str
    """Name of the gRPC status code, `OK` or another."""
    reason: str
    """Reason of the error. Empty when the call succeeded or the library itself refused it."""
    seconds: float
    """From the first byte of the request to the last of the answer."""
    request_id: str
    """Identifier of the call: the caller's `x-request-id`, else one of ours."""
    peer: str
    """Who called, as gRPC names it; `inprocess` for the service's own gateway."""


@dataclass(frozen=True, slots=True)
class RequestStarted:
    """A request over HTTP began. It is told of again when it ends."""


class RequestFinished(NamedTuple):
    """A request over HTTP ended, whether or not it became a call."""

    method: str
    """The verb."""
    route: str
    """Path of the operation, such as `/api/models/{name}`. Empty when there is none."""
    status: int
    """HTTP status; of a stream that failed after it began, the status of its error."""
    seconds: float
    """How long it took."""
    request_id: str
    """Identifier of the request, and of the call that it became."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendChanged:
    """Something that is known of a backend is different now."""

    model: str
    calls_only: bool = False
    """Whether only a call began or ended. There are thousands of these in a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendsSampled:
    """The process trees of all backends were sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendReady:
    """A model was loaded."""

    model: str
    backend: str
    pid: int | None
    seconds: float
    """From the start of the process to the end of the load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFailed:
    """A model could not be loaded, or its process ended by itself."""

    model: str
    backend: str
    message: str
    was_loading: bool = False
    """Whether the model could not be loaded. Otherwise it was, and its process ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStopped:
    """A backend was stopped on purpose and no process of it is left."""

    model: str
    backend: str
    seconds: float
    cut_calls: int
    was_loading: bool = False
    """Whether the model was still being loaded."""
    cause: str = "request"
    """Why: `request`, `capacity`, `memory`, `idle`, `busy` or `shutdown`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendCooling:
    """A model failed again, and calls do not load it for a while."""

    model: str
    backend: str
    seconds: float
    """How long."""
    failures: int
    """How often it failed in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitEnded:
    """A call, or a load that somebody waits for, no longer waits for its model to be ready."""

    model: str
    outcome: str
    """`admitted`, `refused`, or `left` when the caller went away."""
    seconds: float
    """How long it waited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionFinished:
    """A completion, a chat or an embedding ended, also by an error or because the caller went away."""

    model: str
    operation: str
    """`completion`, `chat` or `embedding`."""
    prompt_tokens: int
    completion_tokens: int
    outcome: str
    """`ok`, `error` or `aborted`."""
    estimated: bool = False
    """Whether tokens were estimated, wholly or in part, because the backend did not count them all."""
    slot: int = 0
    """Slot of the backend that it ran in. 0 where the backend does not say."""
    prompt_tokens_processed: int | None = None
    """Of the prompt, the tokens that were not found in a cache. None where the backend does not say."""
    prompt_ms: float = 0.0
    """Milliseconds spent on the prompt. 0 where the backend does not say."""
    generation_ms: float = 0.0
    """Milliseconds from the first token to the last: the backend's, else as seen from here; 0 if unknown."""
    seconds: float = 0.0
    """From the request to the backend to the end."""
    seconds_to_first_token: float | None = None
    """From the request to the backend to the first piece of a streamed answer. None of what is not streamed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMoved:
    """A job was asked for, or is in another state."""

    job: str
    kind: str
    """Which work it is, such as `install`."""
    target: str
    """What it works on."""
    before: str
    """The state before. Empty when it was asked for."""
    state: str
    """The state that it is in."""
    reason: str = ""
    """Reason of the error that it failed with, or that keeps it from going on. Empty if there is none."""
    message: str = ""
    """The error in words. Empty if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFetched:
    """Bytes of a job came in and were verified to be on the disk."""

    kind: str
    bytes_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChanged:
    """Something that is known of a job is different now, or the job is forgotten."""

    job: str
    progress_only: bool = False
    """Whether it only came a little further."""


E = TypeVar("E")


class Events:
    """Hands each event to the listeners of its class, at once and in the order they came.

    Listeners are plain functions and must be quick. One that raises is logged; the others still hear the event.
    """

    def __init__(self) -> None:
        self._listeners: defaultdict[type, list[Callable[[Any], None]]] = defaultdict(list)

    def listen(self, event_class: type[E], listener: Callable[[E], None]) -> None:
        """Call `listener` with every event of exactly this class from now on."""
        self._listeners[event_class].append(listener)

    def emit(self, event: object) -> None:
        """Hand an event to its listeners."""
        for listener in self._listeners[type(event)]:
            try:
                listener(event)
            except Exception:
                log.exception("a listener failed", extra={"event": type(event).__name__})
