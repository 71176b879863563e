"""Keys of a configuration that the service hands on, under the names that the backend protocol has for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

EngineValue = str | int | float | bool | tuple[str, ...] | tuple[float, ...]

Kind = Literal["flag", "json", "number", "numbers", "path", "paths", "switch", "text", "whole"]


class EngineKey(NamedTuple):
    """What becomes of one key."""

    field: str
    """Field of the protocol's `ModelOptions`."""
    kind: Kind
    """What its value must be. A path must stay in the models folder."""


ENGINE_KEYS: Mapping[str, EngineKey] = {
    "cache_type_k": EngineKey("CacheTypeKey", "text"),
    "cache_type_v": EngineKey("CacheTypeValue", "text"),
    "cfg_scale": EngineKey("CFGScale", "number"),
    "cuda": EngineKey("CUDA", "flag"),
    "diffusers.clip_model": EngineKey("CLIPModel", "text"),
    "diffusers.clip_skip": EngineKey("CLIPSkip", "whole"),
    "diffusers.clip_subfolder": EngineKey("CLIPSubfolder", "text"),
    "diffusers.control_net": EngineKey("ControlNet", "text"),
    "diffusers.cuda": EngineKey("CUDA", "flag"),
    "diffusers.img2img": EngineKey("IMG2IMG", "flag"),
    "diffusers.pipeline_type": EngineKey("PipelineType", "text"),
    "diffusers.scheduler_type": EngineKey("SchedulerType", "text"),
    "disable_log_stats": EngineKey("DisableLogStatus", "flag"),
    "draft_model": EngineKey("DraftModel", "path"),
    "dtype": EngineKey("DType", "text"),
    "enforce_eager": EngineKey("EnforceEager", "flag"),
    "engine_args": EngineKey("EngineArgs", "json"),
    "flash_attention": EngineKey("FlashAttention", "switch"),
    "gpu_memory_utilization": EngineKey("GPUMemoryUtilization", "number"),
    "limit_mm_per_prompt.audio": EngineKey("LimitAudioPerPrompt", "whole"),
    "limit_mm_per_prompt.image": EngineKey("LimitImagePerPrompt", "whole"),
    "limit_mm_per_prompt.video": EngineKey("LimitVideoPerPrompt", "whole"),
    "load_format": EngineKey("LoadFormat", "text"),
    "lora_adapter": EngineKey("LoraAdapter", "path"),
    "lora_adapters": EngineKey("LoraAdapters", "paths"),
    "lora_base": EngineKey("LoraBase", "path"),
    "lora_scale": EngineKey("LoraScale", "number"),
    "lora_scales": EngineKey("LoraScales", "numbers"),
    "low_vram": EngineKey("LowVRAM", "flag"),
    "main_gpu": EngineKey("MainGPU", "text"),
    "max_model_len": EngineKey("MaxModelLen", "whole"),
    "mmlock": EngineKey("MLock", "flag"),
    "mmproj": EngineKey("MMProj", "path"),
    "no_kv_offloading": EngineKey("NoKVOffload", "flag"),
    "no_mulmatq": EngineKey("NoMulMatQ", "flag"),
    "numa": EngineKey("NUMA", "flag"),
    "parameters.rope_freq_base": EngineKey("RopeFreqBase", "number"),
    "parameters.rope_freq_scale": EngineKey("RopeFreqScale", "number"),
    "parameters.seed": EngineKey("Seed", "whole"),
    "parameters.tokenizer": EngineKey("Tokenizer", "text"),
    "quantization": EngineKey("Quantization", "text"),
    "reranking": EngineKey("Reranking", "flag"),
    "rms_norm_eps": EngineKey("RMSNormEps", "number"),
    "rope_scaling": EngineKey("RopeScaling", "text"),
    "swap_space": EngineKey("SwapSpace", "whole"),
    "tensor_parallel_size": EngineKey("TensorParallelSize", "whole"),
    "tensor_split": EngineKey("TensorSplit", "text"),
    "trust_remote_code": EngineKey("TrustRemoteCode", "flag"),
    "tts.audio_path": EngineKey("AudioPath", "path"),
    "type": EngineKey("Type", "text"),
    "yarn_attn_factor": EngineKey("YarnAttnFactor", "number"),
    "yarn_beta_fast": EngineKey("YarnBetaFast", "number"),
    "yarn_beta_slow": EngineKey("YarnBetaSlow", "number"),
    "yarn_ext_factor": EngineKey("YarnExtFactor", "number"),
}
"""By the key, with a dot between a mapping and its key. The names are LocalAI's on both sides."""

IN_MODELS_FOLDER = frozenset({"DraftModel", "MMProj"})
"""Fields that get the whole path, as LocalAI's backends expect it. The other paths are handed on as they are."""
