"""The schema of the state file, as the steps that lead to it.

A step that was released is never changed: append another.
"""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE spawns (
        spawn_id TEXT PRIMARY KEY,
        model TEXT NOT NULL,
        program TEXT NOT NULL,
        boot_id TEXT NOT NULL,
        pid INTEGER,
        start_ticks INTEGER
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE token_epoch (began_at REAL NOT NULL) STRICT;
    INSERT INTO token_epoch VALUES (unixepoch('subsec'));
    CREATE TABLE token_slots (
        model TEXT NOT NULL,
        slot INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        completions INTEGER NOT NULL,
        chats INTEGER NOT NULL,
        embeddings INTEGER NOT NULL,
        errors INTEGER NOT NULL,
        aborts INTEGER NOT NULL,
        estimated INTEGER NOT NULL,
        last_tokens_per_second REAL NOT NULL,
        last_tokens_generated INTEGER NOT NULL,
        last_prompt_tokens_processed INTEGER NOT NULL,
        last_estimated INTEGER NOT NULL,
        last_at REAL NOT NULL,
        PRIMARY KEY (model, slot)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        number INTEGER NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        target TEXT NOT NULL,
        request TEXT NOT NULL,
        state TEXT NOT NULL,
        created_at REAL NOT NULL,
        started_at REAL,
        finished_at REAL,
        runs INTEGER NOT NULL,
        phase TEXT NOT NULL,
        done_bytes INTEGER NOT NULL,
        total_bytes INTEGER,
        files TEXT NOT NULL,
        result TEXT,
        error TEXT
    ) STRICT;
    CREATE TABLE job_keys (
        request_id TEXT PRIMARY KEY,
        fingerprint TEXT NOT NULL,
        job_id TEXT NOT NULL,
        at REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE galleries (
        name TEXT PRIMARY KEY COLLATE NOCASE,
        position INTEGER NOT NULL,
        url TEXT,
        mirrors TEXT
    ) STRICT;
    """,
)
"""SQL by step. The version of a file is the number of steps it went through."""
