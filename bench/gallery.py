"""Times reading an index of 1,032 entries, and listing what can be installed from it.

Usage: ``python bench/gallery.py [--json] [--rounds N]``. The index is LocalAI's where
`LOCALPLANE_TEST_DATA` names the folder that it is in, else one of that size. Reading it is compared
with the loader of the YAML library alone; the list with a constant body of the same size on the same
server; and an answer that nothing changed, on one connection, with a small constant on the same server.
"""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from load_clients import has_fast_http_client, load_http
from programs import bare, service
from rounds import Result, arguments, compare, comparison, report, take_turns

from localplane_server.gallery.index import parse_index

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from gallery_indexes import large_index

PARSE_TARGET = 1 / 1.3
LIST_TARGET = 0.8
MOST_UNCHANGED_MICROSECONDS = 2000.0
SECONDS = 1.0
PATH = "/models/available"
CALLS = 200


def main() -> None:
    """Compare and print."""
    options = arguments(__doc__, rounds=8)
    data = large_index()
    results: list[Result] = [
        compare(
            "reading an index",
            lambda: _milliseconds(lambda: parse_index(data, gallery="g")),
            lambda: _milliseconds(lambda: yaml.load(data, yaml.CSafeLoader)),
            unit="ms",
            rounds=options.rounds,
            target=PARSE_TARGET,
        )
    ]
    with tempfile.TemporaryDirectory(prefix="localplane-bench-") as folder:
        models = Path(folder, "models")
        models.mkdir()
        # No name of a model's configuration: it is no model.
        index = models / "index.txt"
        index.write_bytes(data)
        galleries = json.dumps([{"name": "bench", "url": f"file://{index}"}])
        with service("--galleries", galleries, models=models) as ours:
            body = Path(folder, "body.json")
            body.write_bytes(_ask(ours.http)[1])
            with bare("serve_document", DOCUMENT=str(body)) as base:
                pairs = take_turns(
                    lambda: load_http(ours, PATH, seconds=SECONDS),
                    lambda: load_http(base, PATH, seconds=SECONDS),
                    rounds=options.rounds,
                )
            with bare("serve_http") as base:
                tag = _ask(ours.http)[2]
                unchanged = take_turns(
                    lambda: _unchanged(ours.http, tag),
                    lambda: _unchanged(base.http, tag),
                    rounds=options.rounds,
                )
    results += [
        comparison(
            f"GET {PATH}, requests",
            [(mine.per_second, other.per_second) for mine, other in pairs],
            unit="/s",
            is_more_better=True,
            # A slow client hides how fast the servers are.
            target=LIST_TARGET if has_fast_http_client() else None,
        ),
        comparison(
            f"GET {PATH}, processor time of the server",
            [(mine.cpu_microseconds, other.cpu_microseconds) for mine, other in pairs],
            unit="us",
            target=LIST_TARGET,
        ),
        comparison(
            f"GET {PATH}, unchanged, until the answer",
            unchanged,
            unit="us",
            limit=MOST_UNCHANGED_MICROSECONDS,
        ),
    ]
    report(results, as_json=options.json)


def _milliseconds(work: Callable[[], object]) -> float:
    # Processor time of this thread: other programs take nothing of it.
    began = time.thread_time()
    work()
    return (time.thread_time() - began) * 1e3


def _ask(address: str, tag: str = "") -> tuple[int, bytes, str]:
    connection = http.client.HTTPConnection(address)
    connection.request("GET", PATH, headers={"If-None-Match": tag} if tag else {})
    answer = connection.getresponse()
    found = (answer.status, answer.read(), answer.headers.get("ETag", ""))
    connection.close()
    return found


def _unchanged(address: str, tag: str) -> float:
    """Return the median time until an answer, in microseconds, to one who has the list."""
    connection = http.client.HTTPConnection(address)
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        connection.request("GET", PATH, headers={"If-None-Match": tag})
        connection.getresponse().read()
        times.append(time.perf_counter() - began)
    connection.close()
    return sorted(times)[CALLS // 2] * 1e6


if __name__ == "__main__":
    main()
