"""What is read from the engine's log."""

from __future__ import annotations

from localplane_backends.llama.engine_log import cause_of_failure, memory_of

LOADED = """\
0.00.412.626 I load_tensors:   CPU_Mapped model buffer size =    92.00 MiB
0.00.412.627 I load_tensors:        CUDA0 model buffer size =     8.00 MiB
0.00.415.691 I llama_context:        CPU  output buffer size =     0.25 MiB
0.00.415.816 I llama_kv_cache:        CPU KV buffer size =    45.00 MiB
0.00.577.770 I llama_kv_cache: size =   45.00 MiB (  2048 cells,  30 layers,  1/1 seqs)
0.00.589.316 I sched_reserve:        CPU compute buffer size =     4.00 MiB
"""
FAILED = """\
0.00.024.778 I srv    load_model: local path 'x.gguf'
0.00.057.842 E llama_model_load: error loading model: tensor 'a' data is not within the file
0.00.057.887 E llama_model_load_from_file_impl: failed to load model
0.00.057.907 E cmn  common_init_: failed to load model 'x.gguf'
0.00.058.291 E srv          init: exiting due to model loading error
"""


def test_memory() -> None:
    """Buffers of all devices are summed by what they are for."""
    mib = 1024 * 1024

    assert {"weights": 100 * mib, "kv_cache": 45 * mib, "compute": 4.25 * mib} == memory_of(LOADED)


def test_no_memory() -> None:
    """A log without buffers tells nothing."""
    assert {} == memory_of("")


def test_cause() -> None:
    """The cause is told without the lines that only repeat that it failed."""
    assert "tensor 'a' data is not within the file" == cause_of_failure(FAILED)


def test_no_cause() -> None:
    """A log without errors has no cause."""
    assert not cause_of_failure(LOADED)
