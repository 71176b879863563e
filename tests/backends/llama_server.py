"""A real server with OpenAI's API: llama.cpp's own, out of the engine that the package uses.

``python tests/backends/llama_server.py --port PORT --model FILE [--embeddings] [--child] [--no-metrics]``. It wants
the key in ``LLAMA_API_KEY`` if there is one, as llama-server does. ``--child`` starts a process that sleeps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading

import xllamacpp


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--context-size", type=int, default=512)
    parser.add_argument("--embeddings", action="store_true")
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--no-metrics", action="store_true")
    options = parser.parse_args()
    if options.child:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    parameters = xllamacpp.CommonParams()
    parameters.model.path = options.model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = options.port
    parameters.ui = False
    parameters.n_ctx = 2 * options.context_size
    parameters.n_parallel = 2
    parameters.n_batch = parameters.n_ubatch = options.context_size
    parameters.kv_unified = False
    parameters.cache_ram_mib = 0
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.embedding = options.embeddings
    parameters.endpoint_metrics = not options.no_metrics
    if options.embeddings:
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    if key := os.environ.get("LLAMA_API_KEY"):
        parameters.api_keys = [key]
    # It lives as long as it is held.
    server = xllamacpp.Server(parameters)
    sys.stdout.write(f"listening on {server.listening_address}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
