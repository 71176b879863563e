"""``python -m localplane_backends.llama --addr HOST:PORT``."""

from __future__ import annotations

import gc
import os

# Until the program answers it only makes what it keeps; `serving` turns the collector on.
gc.disable()
# OpenMP reads this when the engine is imported. Its default, threads that spin while they wait,
# makes generation collapse as soon as another process wants the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from localplane_backends import serving  # noqa: E402
from localplane_backends.llama.servicer import LlamaBackend  # noqa: E402

if __name__ == "__main__":
    serving.run(LlamaBackend())
