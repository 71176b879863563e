"""A server that does nothing but hold backends: started by the tests, to be killed by them.

Arguments: data directory, and one program per backend as a JSON list. Prints one JSON line once all
run, and ends them when its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path

import uvloop

from localplane_server.state.database import Database
from localplane_server.state.lock import DataDirLock
from localplane_server.state.spawn_records import SqliteSpawnRecords
from localplane_server.supervision.backend_process import Launch
from localplane_server.supervision.keeper_handle import KeeperHandle, start_keeper
from localplane_server.supervision.leftovers import reap_leftovers
from localplane_server.supervision.processes import Processes


async def serve(keeper: KeeperHandle, data_dir: Path, programs: list[list[str]]) -> None:
    """Hold the backends until standard input ends."""
    async with Database(data_dir / "state.db") as database:
        records = SqliteSpawnRecords(database)
        leftovers = await reap_leftovers(records)
        async with Processes(keeper, records) as processes:
            spawned = [
                await processes.spawn(
                    Launch(
                        model=f"model-{number}",
                        argv=tuple(argv),
                        env={"PATH": os.environ["PATH"]},
                        cwd=None,
                        log_path=data_dir / f"{number}.log",
                    )
                )
                for number, argv in enumerate(programs)
            ]
            report = {
                "keeper": processes.keeper_pid,
                "spawn_ids": [process.spawn_id for process in spawned],
                "pids": [process.pid for process in spawned],
                "leftovers": [[left.pid, left.model, left.command] for left in leftovers],
            }
            sys.stdout.write(json.dumps(report) + "\n")
            sys.stdout.flush()
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Run the server."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    data_dir = Path(sys.argv[1])
    with DataDirLock(data_dir):
        keeper = start_keeper()
        uvloop.run(serve(keeper, data_dir, [json.loads(argument) for argument in sys.argv[2:]]))


if __name__ == "__main__":
    main()
