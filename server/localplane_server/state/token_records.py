"""The accounts of tokens, in the state file."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

import apsw

from localplane_server.state.database import Database


class TokenRow(NamedTuple):
    """The account of one slot of a model. The fields are the table's columns, in order."""

    model: str
    slot: int
    prompt_tokens: int
    completion_tokens: int
    completions: int
    chats: int
    embeddings: int
    errors: int
    aborts: int
    estimated: int
    last_tokens_per_second: float
    last_tokens_generated: int
    last_prompt_tokens_processed: int
    last_estimated: int
    last_at: float
    """Seconds since 1970."""


_PUT = f"INSERT OR REPLACE INTO token_slots VALUES ({', '.join('?' * len(TokenRow._fields))})"  # noqa: S608 - marks


class SqliteTokenRecords:
    """Accounts of tokens, by model and slot."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def epoch(self) -> datetime:
        """Return when the accounts began: when the state file got its table for them."""

        def work(connection: apsw.Connection) -> float:
            return float(next(connection.execute("SELECT began_at FROM token_epoch"))[0])

        return datetime.fromtimestamp(await self._database.read(work), UTC)

    async def all(self) -> list[TokenRow]:
        """Return all accounts."""

        def work(connection: apsw.Connection) -> list[TokenRow]:
            columns = ", ".join(TokenRow._fields)
            rows = connection.execute(f"SELECT {columns} FROM token_slots")  # noqa: S608 - our columns
            return [TokenRow(*row) for row in rows]

        return await self._database.read(work)

    async def put(self, rows: Iterable[TokenRow], *, is_durable: bool) -> None:
        """Write accounts down, in place of what was there of the same slots.

        Args:
            rows: The accounts.
            is_durable: Whether to wait for the disk; without, they survive the end of the process only.
        """

        def work(connection: apsw.Connection) -> None:
            connection.executemany(_PUT, rows)

        await self._database.write(work, is_durable=is_durable)
