"""The accounts: what every prediction cost, by model and slot, since the epoch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

from localplane_server import events
from localplane_server.state.token_records import TokenRow
from localplane_server.tokens.counts import NOTHING, TokenCounts, counts_of
from localplane_server.tokens.windows import WINDOWS, BucketRing, TokenWindow

log = logging.getLogger(__name__)

WRITE_SECONDS = 0.5
"""How long counts may wait to be written. With the write itself that is well below a second."""


class TokenRecords(Protocol):
    """Where accounts are kept."""

    async def epoch(self) -> datetime:
        """Return when they began."""

    async def all(self) -> list[TokenRow]:
        """Return all of them."""

    async def put(self, rows: Iterable[TokenRow], *, is_durable: bool) -> None:
        """Keep them, in place of earlier ones of the same slots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotAccount:
    """What went through one slot of a model: the last prediction, and all of them."""

    slot: int
    """Number of the slot."""
    tokens_per_second: float = 0.0
    """Speed of the last prediction's generation. 0 if it is not known."""
    tokens_generated: int = 0
    """By the last prediction."""
    prompt_tokens_processed: int = 0
    """By the last prediction."""
    estimated: bool = False
    """Whether tokens of the last prediction were estimated."""
    last_at: datetime | None = None
    """When the last prediction ended. None when there was none."""
    total: TokenCounts = NOTHING
    """All of them since the epoch."""


class TokenAccounting:
    """Counts predictions as they end and keeps the counts in the state file.

    An async context manager: entering reads the file, leaving writes the rest to it. While the context is open, `run`
    must run; it writes what came since, so that a sudden end loses less than a second.
    """

    def __init__(
        self,
        records: TokenRecords,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Count nothing yet.

        Args:
            records: Where the accounts are kept.
            clock: Seconds that only go forward, for the windows.
            now: The time of day.
        """
        self._records = records
        self._clock = clock
        self._now = now
        self._began = clock()
        self._accounts: dict[str, dict[int, SlotAccount]] = {}
        self._rings: dict[str, BucketRing] = {}
        self._unwritten: set[tuple[str, int]] = set()
        self._changed = asyncio.Event()
        self.epoch = now()
        """Since when the totals count."""

    async def __aenter__(self) -> Self:
        """Read the accounts."""
        self.epoch = await self._records.epoch()
        for row in await self._records.all():
            self._accounts.setdefault(row.model, {})[row.slot] = _account(row)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write what was not written yet."""
        await self._write(is_durable=True)

    def count(self, event: events.PredictionFinished) -> None:
        """Count a prediction that ended."""
        added = counts_of(event)
        slots = self._accounts.setdefault(event.model, {})
        account = slots.get(event.slot, SlotAccount(slot=event.slot))
        processed = event.prompt_tokens_processed
        slots[event.slot] = replace(
            account,
            tokens_per_second=_speed(event),
            tokens_generated=event.completion_tokens,
            prompt_tokens_processed=event.prompt_tokens if processed is None else processed,
            estimated=event.estimated,
            last_at=self._now(),
            total=account.total + added,
        )
        ring = self._rings.get(event.model)
        if ring is None:
            ring = self._rings[event.model] = BucketRing(self._clock)
        ring.add(added)
        self._unwritten.add((event.model, event.slot))
        self._changed.set()

    async def run(self) -> None:
        """Write for ever what was counted."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(WRITE_SECONDS)
            await self._write(is_durable=False)

    def models(self) -> list[str]:
        """Return the names of the models that were ever asked, sorted."""
        return sorted(self._accounts)

    def slots(self, model: str) -> list[SlotAccount]:
        """Return the slots of a model that were ever used, by number."""
        return [account for _, account in sorted(self._accounts.get(model, {}).items())]

    def total(self, model: str) -> TokenCounts:
        """Return what went through a model since the epoch."""
        return sum((account.total for account in self.slots(model)), NOTHING)

    def windows(self, model: str) -> list[TokenWindow]:
        """Return what went through a model of late, one window for each of `WINDOWS`."""
        ring = self._rings.get(model)
        uptime = self._clock() - self._began
        return [
            TokenWindow(min(float(seconds), uptime), ring.last(seconds) if ring else NOTHING)
            for seconds in WINDOWS
        ]

    async def _write(self, *, is_durable: bool) -> None:
        keys, self._unwritten = self._unwritten, set()
        self._changed.clear()
        if not keys:
            return
        rows = [_row(model, self._accounts[model][slot]) for model, slot in sorted(keys)]
        try:
            await self._records.put(rows, is_durable=is_durable)
        except BaseException:
            # They are whole accounts, not differences: writing them again does no harm.
            self._unwritten |= keys
            self._changed.set()
            raise


def _speed(event: events.PredictionFinished) -> float:
    # The time runs from the first token on, so that one token alone has no speed.
    gaps = event.completion_tokens - 1
    return gaps * 1000 / event.generation_ms if gaps > 0 and event.generation_ms > 0 else 0.0


def _row(model: str, account: SlotAccount) -> TokenRow:
    return TokenRow(
        model=model,
        slot=account.slot,
        **asdict(account.total),
        last_tokens_per_second=account.tokens_per_second,
        last_tokens_generated=account.tokens_generated,
        last_prompt_tokens_processed=account.prompt_tokens_processed,
        last_estimated=int(account.estimated),
        last_at=account.last_at.timestamp() if account.last_at else 0.0,
    )


def _account(row: TokenRow) -> SlotAccount:
    return SlotAccount(
        slot=row.slot,
        tokens_per_second=row.last_tokens_per_second,
        tokens_generated=row.last_tokens_generated,
        prompt_tokens_processed=row.last_prompt_tokens_processed,
        estimated=bool(row.last_estimated),
        last_at=datetime.fromtimestamp(row.last_at, UTC),
        total=TokenCounts(
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            completions=row.completions,
            chats=row.chats,
            embeddings=row.embeddings,
            errors=row.errors,
            aborts=row.aborts,
            estimated=row.estimated,
        ),
    )
