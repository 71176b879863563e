"""What backends are asked for, in the messages of their protocol."""

from __future__ import annotations

import json

from localplane.localai import backend_pb2
from localplane_server.supervision.calls import (
    DEFAULT_TEMPERATURE,
    ChatTurn,
    LoadOptions,
    Prediction,
)

INT32_MAX = 2**31 - 1
SMALLEST = 1e-9
"""Stands for a zero that is meant, where the protocol's zero is the backend's default."""


def model_options(options: LoadOptions) -> backend_pb2.ModelOptions:
    """Return what is to be loaded, and how, as the protocol has it."""
    request = backend_pb2.ModelOptions(
        Model=options.model,
        ModelFile=options.model_file,
        ModelPath=options.models_path,
        ContextSize=options.context_size,
        NBatch=options.batch,
        Threads=options.threads,
        NGPULayers=options.gpu_layers,
        F16Memory=options.f16,
        MMap=options.mmap,
        Embeddings=options.embeddings,
        FlashAttention=options.flash_attention,
        Type=options.type,
        Options=options.options,
    )
    request.MergeFrom(backend_pb2.ModelOptions(**dict(options.further)))
    return request


def predict_options(prediction: Prediction, identity: str) -> backend_pb2.PredictOptions:
    """Return a prediction as the protocol has it.

    Args:
        prediction: What is asked for.
        identity: The model as it was named at the load, so that the backend can tell that it is meant.
    """
    request = backend_pb2.PredictOptions(
        Prompt=prediction.prompt,
        Messages=[_message(turn) for turn in prediction.messages],
        UseTokenizerTemplate=bool(prediction.messages),
        Tokens=prediction.max_tokens or 0,
        Temperature=_or(prediction.temperature, DEFAULT_TEMPERATURE),
        TopP=_meant(prediction.top_p),
        TopK=_meant_count(prediction.top_k),
        MinP=_meant(prediction.min_p),
        Seed=_seed(prediction.seed),
        StopPrompts=prediction.stop,
        FrequencyPenalty=prediction.frequency_penalty,
        PresencePenalty=prediction.presence_penalty,
        Penalty=prediction.repeat_penalty or 0,
        CorrelationId=prediction.correlation_id,
        ModelIdentity=identity,
    )
    if prediction.tools:
        request.Tools = json.dumps(list(prediction.tools), default=dict)
    if prediction.tool_choice is not None:
        request.ToolChoice = json.dumps(prediction.tool_choice, default=dict)
    if prediction.response_format is not None:
        request.Metadata["response_format"] = json.dumps(prediction.response_format, default=dict)
    return request


def _message(turn: ChatTurn) -> backend_pb2.Message:
    return backend_pb2.Message(
        role=turn.role,
        content=turn.content,
        name=turn.name,
        tool_call_id=turn.tool_call_id,
        reasoning_content=turn.reasoning,
        tool_calls=json.dumps(list(turn.tool_calls), default=dict) if turn.tool_calls else "",
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _meant(value: float | None) -> float:
    return 0.0 if value is None else max(value, SMALLEST)


def _meant_count(value: int | None) -> int:
    if value is None:
        return 0
    return value if value > 0 else INT32_MAX


def _seed(seed: int | None) -> int:
    if seed is None or seed < 0:
        return 0
    # The protocol's zero draws a seed. The greatest number stands in, so that 0 is repeatable too.
    return seed or INT32_MAX
