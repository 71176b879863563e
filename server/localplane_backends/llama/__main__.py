"""``python -m localplane_backends.llama --addr HOST:PORT``."""

from __future__ import annotations

import os

from localplane_backends import serving
from localplane_backends.llama.servicer import LlamaBackend

if __name__ == "__main__":
    # OpenMP reads this when the engine is imported. Its default, threads that spin while they wait,
    # makes generation collapse as soon as another process wants the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    serving.run(LlamaBackend())
