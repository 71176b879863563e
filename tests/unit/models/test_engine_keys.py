"""Keys that are handed on to backends which are none of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor

from localplane.localai import backend_pb2
from localplane_server.models.configuration import (
    ConfigurationError,
    ModelConfig,
    read_configuration,
)
from localplane_server.models.engine_keys import ENGINE_KEYS, IN_MODELS_FOLDER, EngineKey

F = FieldDescriptor
TYPES = {
    "flag": (F.TYPE_BOOL, False),
    "json": (F.TYPE_STRING, False),
    "number": (F.TYPE_FLOAT, False),
    "numbers": (F.TYPE_FLOAT, True),
    "path": (F.TYPE_STRING, False),
    "paths": (F.TYPE_STRING, True),
    "switch": (F.TYPE_STRING, False),
    "text": (F.TYPE_STRING, False),
    "whole": (F.TYPE_INT32, False),
}


def read(folder: Path, text: str) -> ModelConfig:
    path = folder / "m.yaml"
    path.write_text(f"name: m\n{text}\n")
    return read_configuration(path, root=folder)


@pytest.mark.parametrize("key", ENGINE_KEYS.values(), ids=list(ENGINE_KEYS))
def test_the_protocol_has_the_field(key: EngineKey) -> None:
    """Each field is one of the protocol, and of the right type."""
    field = backend_pb2.ModelOptions.DESCRIPTOR.fields_by_name[key.field]

    assert TYPES[key.kind] == (field.type, field.is_repeated)


def test_whole_paths() -> None:
    """Fields that get a whole path are paths."""
    paths = {key.field for key in ENGINE_KEYS.values() if key.kind == "path"}

    assert paths >= IN_MODELS_FOLDER


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("type: SentenceTransformer", "Type", "SentenceTransformer"),
        ("cuda: true", "CUDA", True),
        ("cuda: false\ndiffusers: {cuda: true}", "CUDA", True),
        ("diffusers: {pipeline_type: FluxPipeline}", "PipelineType", "FluxPipeline"),
        ("gpu_memory_utilization: 0.9", "GPUMemoryUtilization", 0.9),
        ("max_model_len: 4096", "MaxModelLen", 4096),
        ("mmproj: mmproj/a.gguf", "MMProj", "mmproj/a.gguf"),
        ("lora_adapters: [a, b]", "LoraAdapters", ("a", "b")),
        ("lora_scales: [1, 0.5]", "LoraScales", (1.0, 0.5)),
        ("flash_attention: on", "FlashAttention", "on"),
        ("flash_attention: auto", "FlashAttention", "auto"),
        ("engine_args: {rope: {factor: 2}}", "EngineArgs", '{"rope": {"factor": 2}}'),
        ("main_gpu: 1", "MainGPU", "1"),
        ("limit_mm_per_prompt: {image: 2}", "LimitImagePerPrompt", 2),
        ("tts: {audio_path: voices/a.wav}", "AudioPath", "voices/a.wav"),
        ("parameters: {seed: 7}", "Seed", 7),
    ],
)
def test_values(tmp_path: Path, text: str, field: str, value: object) -> None:
    """What LocalAI's files say is what the protocol has."""
    assert ((field, value),) == read(tmp_path, text).engine


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("mmproj: ../../etc/passwd", "mmproj '../../etc/passwd' leads out of the models folder"),
        ("draft_model: /etc/passwd", "draft_model '/etc/passwd' leads out"),
        ("lora_adapters: [a, ../b]", "lora_adapters '../b' leads out"),
        ("tts: {audio_path: /etc/passwd}", "tts.audio_path '/etc/passwd' leads out"),
        ("cuda: 1", "cuda is not true or false"),
        ("diffusers: 1", "diffusers is not a mapping"),
        ("swap_space: 99999999999", "swap_space is not a whole number"),
        ("engine_args: {day: 2020-01-01}", "engine_args is not a mapping that JSON can hold"),
        ("engine_args: [1]", "engine_args is not a mapping that JSON can hold"),
        ("lora_scales: 1", "lora_scales is not a list of numbers"),
    ],
)
def test_refused(tmp_path: Path, text: str, cause: str) -> None:
    """What cannot be meant names its key."""
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text)

    assert cause in str(caught.value)
