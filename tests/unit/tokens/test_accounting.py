"""The accounts of tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from localplane_server.events import PredictionFinished
from localplane_server.state.database import Database
from localplane_server.state.token_records import SqliteTokenRecords, TokenRow
from localplane_server.tokens import accounting as module
from localplane_server.tokens.accounting import TokenAccounting
from localplane_server.tokens.counts import TokenCounts

BEGAN = datetime(2030, 1, 2, tzinfo=UTC)


def finished(**fields: Any) -> PredictionFinished:
    base = {"model": "m", "operation": "chat", "outcome": "ok"}
    return PredictionFinished(**{**base, "prompt_tokens": 7, "completion_tokens": 3, **fields})


class Records:
    """Accounts in memory, written down as asked."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], TokenRow] = {}
        self.writes = asyncio.Queue[bool]()
        self.error: Exception | None = None

    async def epoch(self) -> datetime:
        return BEGAN

    async def all(self) -> list[TokenRow]:
        return list(self.rows.values())

    async def put(self, rows: Iterable[TokenRow], *, is_durable: bool) -> None:
        if self.error is not None:
            raise self.error
        self.rows.update({(row.model, row.slot): row for row in rows})
        self.writes.put_nowait(is_durable)


class TestCount:
    async def test_by_model_and_slot(self) -> None:
        """Each slot has its totals and its last prediction; a model's totals are those of its slots."""
        accounts = TokenAccounting(Records(), now=lambda: BEGAN)
        accounts.count(finished(slot=1, generation_ms=1000.0, completion_tokens=5))
        accounts.count(finished(slot=1, outcome="aborted", estimated=True))
        accounts.count(finished(operation="completion", outcome="error", completion_tokens=0))
        accounts.count(finished(model="other", operation="embedding", completion_tokens=0))
        first, second = accounts.slots("m")

        assert ["m", "other"] == accounts.models()
        assert (0, 1) == (first.slot, second.slot)
        assert TokenCounts(
            prompt_tokens=14, completion_tokens=8, chats=2, aborts=1, estimated=1
        ) == (second.total)
        assert (3, 7, True, BEGAN) == (
            second.tokens_generated,
            second.prompt_tokens_processed,
            second.estimated,
            second.last_at,
        )
        assert TokenCounts(
            prompt_tokens=21,
            completion_tokens=8,
            completions=1,
            chats=2,
            errors=1,
            aborts=1,
            estimated=1,
        ) == accounts.total("m")
        assert TokenCounts(prompt_tokens=7, embeddings=1) == accounts.total("other")

    @pytest.mark.parametrize(
        ("tokens", "milliseconds", "speed"), [(5, 2000.0, 2.0), (1, 2000.0, 0.0), (5, 0.0, 0.0)]
    )
    async def test_speed(self, tokens: int, milliseconds: float, speed: float) -> None:
        """The time runs from the first token on: five tokens in two seconds are four more in that time."""
        accounts = TokenAccounting(Records())
        accounts.count(finished(completion_tokens=tokens, generation_ms=milliseconds))

        assert speed == accounts.slots("m")[0].tokens_per_second

    async def test_processed(self) -> None:
        """Where the backend tells what it found in its cache, that was not processed."""
        accounts = TokenAccounting(Records())
        accounts.count(finished(prompt_tokens_processed=2))
        (account,) = accounts.slots("m")

        assert (2, 7) == (account.prompt_tokens_processed, account.total.prompt_tokens)

    async def test_windows(self) -> None:
        """A window covers no more time than the service has run."""
        seconds = 100.0
        accounts = TokenAccounting(Records(), clock=lambda: seconds)
        accounts.count(finished())
        seconds += 90
        minute, five, hour = accounts.windows("m")
        never = accounts.windows("never")

        assert [(60.0, 0), (90.0, 1), (90.0, 1)] == [
            (window.seconds, window.counts.chats) for window in (minute, five, hour)
        ]
        assert [0, 0, 0] == [window.counts.chats for window in never]


class TestKeeping:
    async def test_written_soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """While it runs, counts are written without being asked for, and only then."""
        monkeypatch.setattr(module, "WRITE_SECONDS", 0.0)
        records = Records()
        async with TokenAccounting(records) as accounts, asyncio.timeout(10):
            writing = asyncio.create_task(accounts.run())
            accounts.count(finished())
            first = await records.writes.get()
            accounts.count(finished())
            second = await records.writes.get()
            writing.cancel()

        assert [False, False] == [first, second]
        assert 2 == records.rows["m", 0].chats
        assert records.writes.empty()

    async def test_written_at_the_end(self) -> None:
        """What was not written yet is written when the context is left, for good."""
        records = Records()
        async with TokenAccounting(records) as accounts:
            accounts.count(finished())

        assert [True] == [records.writes.get_nowait() for _ in range(records.writes.qsize())]
        assert 1 == records.rows["m", 0].chats

    async def test_failed_write(self) -> None:
        """What could not be written is written the next time."""
        records = Records()
        accounts = TokenAccounting(records)
        accounts.count(finished())
        records.error = OSError("full")
        with pytest.raises(OSError, match="full"):
            await accounts.__aexit__(None, None, None)
        records.error = None
        await accounts.__aexit__(None, None, None)

        assert 1 == records.rows["m", 0].chats

    async def test_comes_back(self, tmp_path: Path) -> None:
        """Another service on the same state goes on counting where the first one stopped."""
        moment = BEGAN + timedelta(microseconds=250)
        async with Database(tmp_path / "state.db") as database:
            records = SqliteTokenRecords(database)
            async with TokenAccounting(records, now=lambda: moment) as first:
                first.count(finished(slot=2, generation_ms=4.0, estimated=True))
            async with TokenAccounting(records) as second:
                before, came_back = first.slots("m"), second.slots("m")
                second.count(finished(slot=2))

            assert before == came_back
            assert moment == came_back[0].last_at
            assert first.epoch == second.epoch
            assert 2 == second.total("m").chats
