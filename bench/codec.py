"""Times the gateway's codec against `google.protobuf.json_format`.

Usage: ``python bench/codec.py [--json] [--rounds N]``. `json_format` is asked for what comes nearest
to the codec's JSON: the fields' own names, zero values written, no line breaks.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message
from rounds import Comparison, arguments, compare, microseconds, report

from localplane.v1 import (
    backend_pb2,
    inference_service_pb2,
    options_pb2,
    tokenizer_service_pb2,
)
from localplane_gateway.codec import codec_for

SMALL_TARGET = 4.0
VECTORS_TARGET = 40.0

CHAT: dict[str, Any] = {
    "model": "smollm2-135m-instruct",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France? Answer in one word."},
    ],
    "temperature": 0.7,
    "top_p": 0.9,
    "max_tokens": 64,
    "stream": False,
}

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city for the next days.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
            },
            "required": ["city"],
        },
    },
}

COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-0197a4bf5e2b7c3f",
    "object": "chat.completion",
    "created": 1767225600,
    "model": "smollm2-135m-instruct",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Paris."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 38, "completion_tokens": 3, "total_tokens": 41},
}

STATUS: dict[str, Any] = {
    "state": 2,
    "memory": {"total": 432013312, "breakdown": {"weights": 270000128, "kv_cache": 94371840}},
    "model": "smollm2-135m-instruct",
    "backend": "llama",
    "reported_state": "REPORTED_STATE_READY",
    "memory_info": {"rss": 398458880, "vms": 2147483648},
    "memory_percent": 1.6,
    "cpu_percent": 87.5,
    "sampled_at": "2026-01-01T00:00:00.250Z",
    "pid": 4711,
    "in_flight": 0,
    "last_used": "2026-01-01T00:00:00Z",
    "restarts": 0,
    "unknown": {},
}


def small_messages() -> list[tuple[str, type[Message], dict[str, Any], float | None]]:
    """List the messages, each with its name, its JSON and the ratio wanted."""
    chat = inference_service_pb2.ChatRequest
    text = "The quick brown fox jumps over the lazy dog."
    tokenize = {"model": "smollm2-135m-instruct", "content": text}
    return [
        ("ChatRequest", chat, CHAT, SMALL_TARGET),
        ("ChatRequest, 2 tools", chat, CHAT | {"tools": [TOOL, TOOL]}, None),
        ("TokenizeRequest", tokenizer_service_pb2.TokenizeRequest, tokenize, SMALL_TARGET),
        ("BackendStatus", backend_pb2.BackendStatus, STATUS, SMALL_TARGET),
        ("ChatCompletion", inference_service_pb2.ChatCompletion, COMPLETION, SMALL_TARGET),
    ]


def compare_message(
    name: str, message: Message, *, rounds: int, target: float | None
) -> Iterator[Comparison]:
    """Compare one message both ways, once both ways have read the same from it."""
    message_class = type(message)
    codec = codec_for(message_class)
    encode = functools.partial(
        json_format.MessageToJson,
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=None,
    )
    text = encode().encode()
    assert codec.decode(text) == message
    yield compare(
        f"{name}, {len(text)} B, decode",
        microseconds(lambda: codec.decode(text)),
        microseconds(lambda: json_format.Parse(text, message_class())),
        unit="us",
        rounds=rounds,
        target=target,
    )
    yield compare(
        f"{name}, {len(text)} B, encode",
        microseconds(lambda: codec.encode(message)),
        microseconds(encode),
        unit="us",
        rounds=rounds,
        target=target,
    )


def vectors_class() -> Any:
    """Make a message class whose JSON has a list of vectors."""
    repeated = FieldDescriptorProto.LABEL_REPEATED
    file = FileDescriptorProto(
        name="bench/vectors.proto", package="localplane.bench", syntax="proto3"
    )
    row = file.message_type.add(name="Row")
    numbers = row.field.add(
        name="numbers", number=1, label=repeated, type=FieldDescriptorProto.TYPE_FLOAT
    )
    numbers.options.Extensions[options_pb2.unwrap] = True
    file.message_type.add(name="Batch").field.add(
        name="rows",
        number=1,
        label=repeated,
        type=FieldDescriptorProto.TYPE_MESSAGE,
        type_name=".localplane.bench.Row",
    )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("localplane.bench.Batch"))


def compare_vectors(*, rounds: int) -> Iterator[Comparison]:
    """Compare a batch of 1000 vectors of 768 numbers, as lists of lists and inside objects.

    json_format has no lists of lists: it reads and writes the same message as objects.
    """
    numbers = np.random.default_rng(0).standard_normal((1000, 768))
    floats = numbers.astype(np.float32).astype(float).tolist()
    batch_class = vectors_class()
    rows = batch_class(rows=[{"numbers": row} for row in floats])
    answer = inference_service_pb2.EmbedResponse(
        data=[
            inference_service_pb2.Embedding(index=index, embedding=row)
            for index, row in enumerate(floats)
        ]
    )
    yield from _compare_batch("1000 x 768 lists of lists", rows, rounds, VECTORS_TARGET)
    yield from _compare_batch("1000 x 768 EmbedResponse", answer, rounds, None)
    # As clients send them that compute with doubles.
    doubles = numbers.tolist()
    ours = json.dumps({"rows": doubles}).encode()
    theirs = json.dumps({"rows": [{"numbers": row} for row in doubles]})
    codec = codec_for(batch_class)
    assert codec.decode(ours) == json_format.Parse(theirs, batch_class())
    yield compare(
        "1000 x 768 lists of lists, 17 digits, decode",
        microseconds(lambda: codec.decode(ours)),
        microseconds(lambda: json_format.Parse(theirs, batch_class())),
        unit="us",
        rounds=rounds,
    )


def _compare_batch(
    name: str, message: Message, rounds: int, target: float | None
) -> Iterator[Comparison]:
    message_class = type(message)
    codec = codec_for(message_class)
    encode = functools.partial(
        json_format.MessageToJson, message, preserving_proto_field_name=True, indent=None
    )
    ours, theirs = codec.encode(message), encode()
    assert codec.decode(ours) == message == json_format.Parse(theirs, message_class())
    yield compare(
        f"{name}, decode",
        microseconds(lambda: codec.decode(ours)),
        microseconds(lambda: json_format.Parse(theirs, message_class())),
        unit="us",
        rounds=rounds,
        target=target,
    )
    yield compare(
        f"{name}, encode",
        microseconds(lambda: codec.encode(message)),
        microseconds(encode),
        unit="us",
        rounds=rounds,
        target=target,
    )


def main() -> None:
    """Compare and print."""
    options = arguments(__doc__, rounds=15)
    results: list[Comparison] = []
    for name, message_class, value, target in small_messages():
        message = json_format.ParseDict(value, message_class())
        results += compare_message(name, message, rounds=options.rounds, target=target)
    # json_format needs seconds for one batch.
    results += compare_vectors(rounds=max(5, options.rounds // 5))
    report(results, as_json=options.json)


if __name__ == "__main__":
    main()
