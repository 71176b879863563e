"""Times a small REST call through `serve` against a bare ASGI application.

Usage: ``python bench/rest_serve.py [--json] [--rounds N]``. Both are served by the same uvicorn with
the same settings; what differs is all that `serve` does for a call: routing, the rules for hosts and
pages, keys, JSON to messages and back, the interceptor, and a line in the access log.
"""

from __future__ import annotations

from load_clients import has_fast_http_client, load_http
from programs import bare, service
from rounds import arguments, comparison, report, take_turns

TARGET = 0.4
SECONDS = 1.0
PATH = "/version"


def main() -> None:
    """Compare and print."""
    options = arguments(__doc__, rounds=14)
    with service() as ours, bare("serve_http") as base:
        pairs = take_turns(
            lambda: load_http(ours, PATH, seconds=SECONDS),
            lambda: load_http(base, PATH, seconds=SECONDS),
            rounds=options.rounds,
        )
    results = [
        comparison(
            "GET /version, requests",
            [(mine.per_second, other.per_second) for mine, other in pairs],
            unit="/s",
            is_more_better=True,
            # A slow client hides how fast the servers are.
            target=TARGET if has_fast_http_client() else None,
        ),
        comparison(
            "GET /version, processor time of the server",
            [(mine.cpu_microseconds, other.cpu_microseconds) for mine, other in pairs],
            unit="us",
            target=TARGET,
        ),
    ]
    report(results, as_json=options.json)


if __name__ == "__main__":
    main()
