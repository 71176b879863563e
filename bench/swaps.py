"""Times models that take turns: two models, one place, and sixteen clients that ask for them in turn.

Usage: ``python bench/swaps.py [--json] [--rounds N]``. Each client makes N calls, every other one to the
other model, so that each call of a client needs a swap unless somebody else caused it. A third model is
pinned beside them and its status asked for all the while. With the llama backend the models are tiny ones;
without it, they are the backend of the tests.
"""

from __future__ import annotations

import runpy
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
from model_files import has_engine
from programs import FOLDER, service
from rounds import Reading, arguments, report

from localplane.v1 import backend_service_pb2 as pb
from localplane.v1 import (
    backend_service_pb2_grpc,
    inference_service_pb2_grpc,
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from localplane.v1 import inference_service_pb2 as inference

CLIENTS = 16
MODELS = ("one", "two")
PINNED = "pinned"
CALL_SECONDS = 120.0
LOOK_SECONDS = 0.02


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, rounds=12)
    with (
        _folder() as folder,
        service(
            # One of the places is the pinned model's.
            *("--max-active-backends", "2", "--backends-path", str(folder / "backends")),
            models=folder,
        ) as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        backend_service_pb2_grpc.BackendServiceStub(channel).LoadModel(
            pb.LoadModelRequest(model=PINNED)
        )
        report(list(_swaps(channel, options.rounds)), as_json=options.json)


@contextmanager
def _folder() -> Generator[Path]:
    """Make a folder of models, with the backend that they need."""
    with TemporaryDirectory(prefix="localplane-bench-") as name:
        folder = Path(name)
        lines = ["backend: fake", "options: ['pieces:4']"]
        if has_engine():
            tools = runpy.run_path(str(FOLDER.parent / "tools" / "make_tiny_gguf.py"))
            tools["write_tiny_gguf"](folder / "tiny.gguf")
            lines = ["backend: llama", "context_size: 256", "parameters: {model: tiny.gguf}"]
        else:
            _add_fake_backend(folder / "backends" / "fake")
        for model in (*MODELS, PINNED):
            text = "\n".join([f"name: {model}", f"pinned: {str(model == PINNED).lower()}", *lines])
            (folder / f"{model}.yaml").write_text(text + "\n")
        yield folder


def _add_fake_backend(folder: Path) -> None:
    program = FOLDER.parent / "tests" / "backends" / "fake_backend.py"
    folder.mkdir(parents=True)
    run = folder / "run.sh"
    run.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{program}' \"$@\"\n")
    run.chmod(0o755)


def _swaps(channel: grpc.Channel, calls: int) -> Iterator[Reading]:
    waits: list[float] = []
    done: Counter[str] = Counter()
    looks: list[float] = []
    ended = threading.Event()
    lock = threading.Lock()
    stub = inference_service_pb2_grpc.InferenceServiceStub(channel)

    def client(number: int) -> None:
        for turn in range(calls):
            model = MODELS[(number + turn) % len(MODELS)]
            request = inference.CompleteRequest(model=model, prompt=["a"], max_tokens=4)
            began = time.perf_counter()
            stub.Complete(request, timeout=CALL_SECONDS)
            with lock:
                waits.append(time.perf_counter() - began)
                done[model] += 1

    before = _loads(channel)
    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        looking = pool.submit(_look, channel, ended, looks)
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        for one in clients:
            one.result()
        ended.set()
        looking.result()
    seconds = time.perf_counter() - began
    swaps = _loads(channel) - before
    yield Reading(name="swaps", unit="/s", value=swaps / seconds)
    yield Reading(name="calls", unit="/s", value=len(waits) / seconds)
    yield Reading(name="calls for each swap", unit="", value=len(waits) / swaps)
    yield Reading(name="wait of a call, median", unit="s", value=statistics.median(waits))
    yield Reading(name="wait of a call, longest", unit="s", value=max(waits))
    for model in MODELS:
        yield Reading(name=f"calls of model {model} that were answered", unit="", value=done[model])
    percentile = statistics.quantiles(looks, n=100)[98]
    yield Reading(name="monitor meanwhile, 99th percentile", unit="ms", value=1000 * percentile)


def _look(channel: grpc.Channel, ended: threading.Event, looks: list[float]) -> None:
    stub = backend_service_pb2_grpc.BackendServiceStub(channel)
    while not ended.wait(LOOK_SECONDS):
        began = time.perf_counter()
        stub.GetBackendStatus(pb.GetBackendStatusRequest(model=PINNED))
        looks.append(time.perf_counter() - began)


def _loads(channel: grpc.Channel) -> float:
    """Return how many loads there have been."""
    stub = metrics_service_pb2_grpc.MetricsServiceStub(channel)
    text = stub.GetMetrics(metrics_service_pb2.GetMetricsRequest()).data.decode()
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("localplane_backend_loads_total{") and 'outcome="ok"' in line
    )


if __name__ == "__main__":
    main()
