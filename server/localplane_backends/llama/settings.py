"""What a model is loaded with, read from the protocol's `ModelOptions`."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from localplane.localai import backend_pb2

DEFAULT_CONTEXT_TOKENS = 4096
"""LocalAI's default. Models' own contexts run to hundreds of thousands of tokens and as many
gigabytes.
"""
DEFAULT_EMBEDDING_TOKENS = 512
"""The same for embeddings, where the whole text is one batch and a batch costs memory."""
DEFAULT_BATCH_TOKENS = 128
"""A prompt can be cancelled only between batches; this many take well under a second on one slow
core.
"""
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
FLASH_ATTENTION = {
    "": "auto",
    "auto": "auto",
    "on": "enabled",
    "true": "enabled",
    "enabled": "enabled",
    "off": "disabled",
    "false": "disabled",
    "disabled": "disabled",
}
ROPE_SCALINGS = ("", "none", "linear", "yarn")
POOLINGS = ("mean", "cls", "last")
NOT_SUPPORTED = (
    "DraftModel",
    "EngineArgs",
    "GrammarTriggers",
    "LoraAdapter",
    "LoraAdapters",
    "LoraBase",
    "LowVRAM",
    "MMProj",
    "MainGPU",
    "NGQA",
    "NUMA",
    "NoMulMatQ",
    "Overrides",
    "RMSNormEps",
    "Reranking",
    "TensorSplit",
    "VocabOnly",
)
"""Fields that would change what the model does and that this backend does not act on."""


class SettingsError(Exception):
    """The model cannot be loaded as asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to load one model."""

    file: Path
    """The GGUF file."""
    context_tokens: int
    """Size of the context, all slots together."""
    slots: int
    """Calls that run at the same time. Each has an equal part of the context."""
    batch_tokens: int
    """Prompt tokens computed in one go."""
    generation_threads: int
    """Threads that compute one new token."""
    prompt_threads: int
    """Threads that compute a batch of the prompt."""
    gpu_layers: int
    """Layers to put on devices. Without a device it has no effect."""
    embeddings: bool
    """Whether the model embeds instead of generating."""
    pooling: str
    """How the vectors of tokens become one vector."""
    cache_type_key: str
    """Number format of the keys in the cache."""
    cache_type_value: str
    """Number format of the values in the cache."""
    prompt_cache_mib: int
    """Memory for prompts that no slot holds any more."""
    flash_attention: str
    """`auto`, `enabled` or `disabled`."""
    load_mode: str
    """`NONE` reads the file, `MMAP` maps it, `MLOCK` pins the memory, `MMAP_MLOCK` does both."""
    kv_on_device: bool
    """Whether the key-value cache may be on devices."""
    seed: int | None
    """Seed of predictions that bring none. None draws one for each."""
    rope_frequency_base: float
    """0 is the model's own, here and below."""
    rope_frequency_scale: float
    rope_scaling: str
    yarn: tuple[float, float, float, float]
    """Extrapolation factor, attention factor, fast beta, slow beta."""


def read(options: backend_pb2.ModelOptions, cores: int | None = None) -> Settings:
    """Return how to load the model.

    Args:
        options: As the caller sent them.
        cores: Processor cores to use. Default: those this process may use.

    Raises:
        SettingsError: If something is wrong, unknown or not supported. The message names it.
    """
    for field, _ in options.ListFields():
        if field.name in NOT_SUPPORTED:
            raise SettingsError(f"{field.name} is not supported")
    own = _own_options(options.Options)
    slots = own.get("parallel", 1)
    default = DEFAULT_EMBEDDING_TOKENS * slots if options.Embeddings else DEFAULT_CONTEXT_TOKENS
    context_tokens = options.ContextSize or default
    if context_tokens < 0:
        raise SettingsError(f"ContextSize must be positive, not {context_tokens}")
    batch_tokens = min(options.NBatch or DEFAULT_BATCH_TOKENS, context_tokens)
    if batch_tokens < 1:
        raise SettingsError(f"NBatch must be positive, not {options.NBatch}")
    if options.Threads < 0:
        raise SettingsError(f"Threads must be positive, not {options.Threads}")
    if options.Embeddings:
        # An embedding is computed in one batch; a longer text is refused.
        batch_tokens = context_tokens // slots
    prompt_threads = options.Threads or cores or usable_cores()
    return Settings(
        file=_file(options),
        context_tokens=context_tokens,
        slots=slots,
        batch_tokens=batch_tokens,
        generation_threads=own.get("generation_threads", options.Threads or 1),
        prompt_threads=prompt_threads,
        gpu_layers=options.NGPULayers,
        embeddings=options.Embeddings,
        pooling=POOLINGS[own.get("pooling", 0)],
        cache_type_key=_one_of("CacheTypeKey", options.CacheTypeKey.lower() or "f16", CACHE_TYPES),
        cache_type_value=_one_of(
            "CacheTypeValue", options.CacheTypeValue.lower() or "f16", CACHE_TYPES
        ),
        prompt_cache_mib=own.get("cache_ram", 0),
        flash_attention=FLASH_ATTENTION[
            _one_of("FlashAttention", options.FlashAttention.lower(), FLASH_ATTENTION)
        ],
        load_mode="_".join(["MMAP"] * options.MMap + ["MLOCK"] * options.MLock) or "NONE",
        kv_on_device=not options.NoKVOffload,
        seed=options.Seed if options.Seed > 0 else None,
        rope_frequency_base=options.RopeFreqBase,
        rope_frequency_scale=options.RopeFreqScale,
        rope_scaling=_one_of("RopeScaling", options.RopeScaling.lower(), ROPE_SCALINGS),
        yarn=(
            options.YarnExtFactor,
            options.YarnAttnFactor,
            options.YarnBetaFast,
            options.YarnBetaSlow,
        ),
    )


def usable_cores() -> int:
    """Return how many cores the affinity and the control group of this process allow."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        # No such group, or "max": no limit.
        pass
    return cores


def _file(options: backend_pb2.ModelOptions) -> Path:
    name = options.ModelFile or options.Model
    if not name:
        raise SettingsError("no model file given")
    file = Path(options.ModelPath, name)
    if not file.is_file():
        raise SettingsError(f"no such model file: {file}")
    return file


def _own_options(texts: Iterable[str]) -> dict[str, int]:
    values: dict[str, int] = {}
    for text in texts:
        key, _, value = text.partition(":")
        key, value = key.strip(), value.strip()
        if key not in OWN_OPTIONS:
            known = ", ".join(sorted(OWN_OPTIONS))
            raise SettingsError(f'unknown option "{key}"; known are {known}')
        try:
            values[key] = OWN_OPTIONS[key](value)
        except ValueError as error:
            raise SettingsError(f'option "{key}" cannot be "{value}"') from error
    return values


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _count_or_none(text: str) -> int:
    return 0 if int(text) == 0 else _count(text)


OWN_OPTIONS: Mapping[str, Callable[[str], int]] = {
    "cache_ram": _count_or_none,
    "generation_threads": _count,
    "parallel": _count,
    "pooling": POOLINGS.index,
}
"""The `key:value` options of this backend, and how each value is read."""


def _one_of(field: str, value: str, known: Collection[str]) -> str:
    if value not in known:
        choices = ", ".join(name for name in known if name)
        raise SettingsError(f'{field} cannot be "{value}"; known are {choices}')
    return value
