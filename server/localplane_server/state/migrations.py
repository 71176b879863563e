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
)
"""SQL by step. The version of a file is the number of steps it went through."""
