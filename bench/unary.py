"""Times a unary call of gRPC through `serve` against a bare server of grpc.aio.

Usage: ``python bench/unary.py [--json] [--rounds N]``. Both answer `SystemService.GetVersion` with
the same message, with the same options and event loop; what differs is all that `serve` does around
a call: the interceptor, keys, errors, and a line in the access log.
"""

from __future__ import annotations

from typing import Any

import grpc
from load_clients import has_fast_grpc_client, load_grpc
from programs import Server, bare, service
from rounds import arguments, comparison, report, take_turns

from localplane.v1 import system_service_pb2
from localplane_server.cli.serve import EXPERIMENTS

METHOD = "/localplane.v1.SystemService/GetVersion"
REQUEST = system_service_pb2.GetVersionRequest().SerializeToString()
TARGET = 0.75
CALLS = 4000


def main() -> None:
    """Compare and print."""
    options = arguments(__doc__, rounds=14)
    with service() as ours, bare("serve_grpc", GRPC_EXPERIMENTS=EXPERIMENTS) as base:
        assert _answer(ours) == _answer(base)
        pairs = take_turns(
            lambda: load_grpc(ours, METHOD, REQUEST, calls=CALLS),
            lambda: load_grpc(base, METHOD, REQUEST, calls=CALLS),
            rounds=options.rounds,
        )
    results = [
        comparison(
            "unary gRPC, processor time of the server",
            [(mine.cpu_microseconds, other.cpu_microseconds) for mine, other in pairs],
            unit="us",
            target=TARGET,
        ),
        comparison(
            "unary gRPC, calls",
            [(mine.per_second, other.per_second) for mine, other in pairs],
            unit="/s",
            is_more_better=True,
            # A slow client hides how fast the servers are.
            target=TARGET if has_fast_grpc_client() else None,
        ),
    ]
    report(results, as_json=options.json)


def _answer(server: Server) -> bytes:
    with grpc.insecure_channel(server.grpc) as channel:
        call: Any = channel.unary_unary(METHOD)  # without serializers it takes bytes
        answer: bytes = call(REQUEST)
        return answer


if __name__ == "__main__":
    main()
