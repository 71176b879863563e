"""What those who are sent away are told."""

from __future__ import annotations

from localplane_server.errors import (
    AutoloadDisabledError,
    CapacityExhaustedError,
    DrainingError,
    LoadCooldownError,
    LoadFailedError,
    LocalplaneError,
    ModelTooLargeError,
    OverdueError,
)
from localplane_server.scheduling.decisions import Refusal, Refuse
from localplane_server.scheduling.limits import Limits


def error_of(
    refused: Refuse,
    last_error: str | None,
    needed: float,
    limits: Limits,
    load_error: LocalplaneError | None,
) -> LocalplaneError:
    """Return the error of a refusal.

    Args:
        refused: The refusal.
        last_error: Why the model last failed.
        needed: Memory that it is thought to take.
        limits: The limits of the scheduler.
        load_error: Why the load ended that was waited for.
    """
    model = refused.ticket.model
    retry = refused.retry_seconds
    match refused.why:
        case Refusal.AUTOLOAD_DISABLED:
            return AutoloadDisabledError(model)
        case Refusal.CAPACITY:
            message = (
                f"cannot load model {model}: there was no place for it in time ({refused.detail})"
            )
            return CapacityExhaustedError(message, retry_after_seconds=retry, model=model)
        case Refusal.CLOSED:
            return DrainingError("the service is being stopped")
        case Refusal.COOLDOWN:
            return LoadCooldownError(model, retry, last_error or "it ended by itself")
        case Refusal.DRAINING:
            message = f"cannot use model {model}: it is being stopped"
            return DrainingError(message, retry_after_seconds=retry, model=model)
        case Refusal.LOAD_ENDED:
            message = f"cannot load model {model}: its load ended"
            return load_error or LoadFailedError(message, model=model)
        case Refusal.OVERDUE:
            return OverdueError("the deadline of the call has passed")
        case Refusal.TOO_LARGE:
            return ModelTooLargeError(model, int(needed), int(limits.memory_bytes))
