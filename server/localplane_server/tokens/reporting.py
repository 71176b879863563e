"""Telling what models' tokens come to, without loading a model or waiting for one."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime

from localplane_server.errors import LocalplaneError, ModelNotFoundError, ModelNotLoadedError
from localplane_server.models.catalog import ModelCatalog
from localplane_server.scheduling.scheduler import Scheduler
from localplane_server.scheduling.snapshots import BackendState
from localplane_server.supervision.calls import SlotMetrics
from localplane_server.tokens.accounting import SlotAccount, TokenAccounting
from localplane_server.tokens.counts import TokenCounts
from localplane_server.tokens.windows import TokenWindow

log = logging.getLogger(__name__)

METRICS_SECONDS = 1.0
"""How long a backend is given to report its own figures."""
_LOADED = (BackendState.READY, BackendState.BUSY)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReport:
    """Tokens of one model."""

    model: str
    """Name of the model."""
    is_loaded: bool
    """Whether it is loaded."""
    latest: SlotAccount
    """The slot that was active most recently; with nothing in it when the model was never asked."""
    slots: list[SlotAccount]
    """All slots that were ever used, by number."""
    total: TokenCounts
    """Everything since the epoch."""
    epoch: datetime
    """Since when the totals count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTokens:
    """Tokens of one model, as the list shows them."""

    model: str
    """Name of the model."""
    is_loaded: bool
    """Whether it is loaded."""
    windows: list[TokenWindow]
    """The last minute, five minutes and hour."""
    total: TokenCounts
    """Everything since the epoch."""


class TokenReporter:
    """Reports tokens from the accounts, and what a loaded backend says of itself."""

    def __init__(
        self, catalog: ModelCatalog, scheduler: Scheduler, accounting: TokenAccounting
    ) -> None:
        self._catalog = catalog
        self._scheduler = scheduler
        self._accounting = accounting

    @property
    def epoch(self) -> datetime:
        """Since when the totals count."""
        return self._accounting.epoch

    async def report(self, name: str) -> TokenReport:
        """Return the tokens of a model.

        Raises:
            InvalidModelNameError: If the name cannot be one.
            ModelNotFoundError: If there is no such model.
        """
        model = self._known_name(name)
        own = await self._ask(model)
        slots = {account.slot: account for account in self._accounting.slots(model)}
        if own is not None:
            last = slots.get(own.slot_id, SlotAccount(slot=own.slot_id))
            slots[own.slot_id] = latest = replace(
                last,
                tokens_per_second=own.tokens_per_second,
                tokens_generated=own.tokens_generated,
                prompt_tokens_processed=own.prompt_tokens_processed,
                estimated=False,
            )
        else:
            latest = max(slots.values(), key=_ended, default=SlotAccount(slot=0))
        return TokenReport(
            model=model,
            is_loaded=self._is_loaded(model),
            latest=latest,
            slots=[account for _, account in sorted(slots.items())],
            total=self._accounting.total(model),
            epoch=self.epoch,
        )

    def models(self) -> list[ModelTokens]:
        """Return the tokens of all models that were ever asked, by name. No backend is asked."""
        return [self.tokens(model) for model in self._accounting.models()]

    def tokens(self, model: str) -> ModelTokens:
        """Return the tokens of the model with exactly this name. No backend is asked."""
        return ModelTokens(
            model=model,
            is_loaded=self._is_loaded(model),
            windows=self._accounting.windows(model),
            total=self._accounting.total(model),
        )

    def _known_name(self, name: str) -> str:
        try:
            return self._catalog.get(name).name
        except ModelNotFoundError:
            # Its configuration may be gone while it is still loaded.
            if self._is_loaded(name):
                return name
            raise

    def _is_loaded(self, model: str) -> bool:
        return self._scheduler.state(model) in _LOADED

    async def _ask(self, model: str) -> SlotMetrics | None:
        """Return what the backend says of its latest prediction, or None when it says nothing."""
        if not self._is_loaded(model):
            return None
        try:
            backend = self._scheduler.actor(model).backend
        except ModelNotLoadedError:
            return None
        if backend is None:
            return None
        try:
            own = await backend.client.metrics(METRICS_SECONDS)
        except LocalplaneError as error:
            log.debug("no token metrics", extra={"model": model, "cause": error.message})
            return None
        # All zero: it was not asked since it was loaded, or does not count.
        return own if own.tokens_generated or own.prompt_tokens_processed else None


def _ended(account: SlotAccount) -> float:
    return account.last_at.timestamp() if account.last_at else 0.0
