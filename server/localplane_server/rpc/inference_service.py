"""The gRPC face of inference."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import numpy as np

from localplane.v1 import inference_pb2, inference_service_pb2, inference_service_pb2_grpc
from localplane_server.errors import InvalidArgumentError
from localplane_server.inference.embedding import Embedder
from localplane_server.inference.generation import (
    MOST_MESSAGES,
    MOST_TOOLS,
    Generated,
    GenerationRequest,
    TextGenerator,
)
from localplane_server.rpc.convert import (
    plain,
    sampling_from_proto,
    tool_calls_to_proto,
    turn_from_proto,
)

LARGEST_LOOSE_BYTES = 1024 * 1024
"""Of tools, or of a schema, as messages."""
MOST_PARTS = 16 * 1024
"""Parts of text that the messages of a chat may have together."""
FORMATS = ("", "float", "base64")


class InferenceServicer(inference_service_pb2_grpc.InferenceServiceServicer):
    """Unpacks the request, calls the domain, packs the answer."""

    def __init__(self, generator: TextGenerator, embedder: Embedder) -> None:
        self._generator = generator
        self._embedder = embedder

    async def Complete(
        self, request: inference_service_pb2.CompleteRequest, context: Any
    ) -> inference_service_pb2.Completion:
        wanted = _completion_request(request)
        model = self._generator.model_for(wanted)
        generated = await self._generator.generate(model, wanted)
        completion = _completion(model.name)
        completion.choices.extend(
            inference_service_pb2.CompletionChoice(
                text=_echoed(request, one.index, wanted.answers) + one.answer.text,
                index=one.index,
                finish_reason=one.answer.finish_reason or "stop",
            )
            for one in generated
        )
        completion.usage.CopyFrom(_usage(generated, wanted.answers))
        return completion

    async def CompleteStream(
        self, request: inference_service_pb2.CompleteRequest, context: Any
    ) -> AsyncGenerator[inference_service_pb2.Completion]:
        wanted = _completion_request(request)
        model = self._generator.model_for(wanted)
        head = _completion(model.name)
        counts = _Counts(wanted.answers)
        begun: set[int] = set()
        async with aclosing(self._generator.stream(model, wanted)) as pieces:
            async for one in pieces:
                counts.saw(one.index, one.piece.prompt_tokens, one.piece.tokens)
                text = one.piece.text
                if one.index not in begun:
                    begun.add(one.index)
                    text = _echoed(request, one.index, wanted.answers) + text
                if not text and one.piece.finish_reason is None:
                    continue
                choice = inference_service_pb2.CompletionChoice(
                    text=text, index=one.index, finish_reason=one.piece.finish_reason
                )
                yield inference_service_pb2.Completion(
                    id=head.id,
                    object=head.object,
                    created=head.created,
                    model=head.model,
                    choices=[choice],
                )
        if request.stream_options.include_usage:
            head.usage.CopyFrom(counts.usage())
            yield head

    async def Chat(
        self, request: inference_service_pb2.ChatRequest, context: Any
    ) -> inference_service_pb2.ChatCompletion:
        wanted = _chat_request(request)
        model = self._generator.model_for(wanted)
        generated = await self._generator.generate(model, wanted)
        return inference_service_pb2.ChatCompletion(
            id=_identifier("chatcmpl"),
            object="chat.completion",
            created=int(time.time()),
            model=model.name,
            choices=[_chat_choice(one) for one in generated],
            usage=_usage(generated, wanted.answers),
        )

    async def ChatStream(
        self, request: inference_service_pb2.ChatRequest, context: Any
    ) -> AsyncGenerator[inference_service_pb2.ChatCompletionChunk]:
        wanted = _chat_request(request)
        model = self._generator.model_for(wanted)
        head = inference_service_pb2.ChatCompletionChunk(
            id=_identifier("chatcmpl"),
            object="chat.completion.chunk",
            created=int(time.time()),
            model=model.name,
        )
        counts = _Counts(wanted.answers)
        begun: set[int] = set()
        async with aclosing(self._generator.stream(model, wanted)) as pieces:
            async for one in pieces:
                piece = one.piece
                counts.saw(one.index, piece.prompt_tokens, piece.tokens)
                delta = inference_pb2.ChatDelta(
                    role=None if one.index in begun else "assistant",
                    content=piece.content or None,
                    reasoning_content=piece.reasoning or None,
                    tool_calls=tool_calls_to_proto(piece.tool_calls, is_stream=True),
                )
                if not delta.ByteSize() and piece.finish_reason is None:
                    continue
                begun.add(one.index)
                choice = inference_service_pb2.ChatChunkChoice(
                    index=one.index, delta=delta, finish_reason=piece.finish_reason
                )
                yield inference_service_pb2.ChatCompletionChunk(
                    id=head.id,
                    object=head.object,
                    created=head.created,
                    model=head.model,
                    choices=[choice],
                )
        if request.stream_options.include_usage:
            head.usage.CopyFrom(counts.usage())
            yield head

    async def Embed(
        self, request: inference_service_pb2.EmbedRequest, context: Any
    ) -> inference_service_pb2.EmbedResponse:
        if request.encoding_format not in FORMATS:
            message = "encoding_format must be float or base64"
            raise InvalidArgumentError(message, field="encoding_format")
        embedded = await self._embedder.embed(request.model, tuple(request.input))
        response = inference_service_pb2.EmbedResponse(
            object="list",
            model=embedded.model,
            usage=inference_pb2.Usage(
                prompt_tokens=embedded.prompt_tokens, total_tokens=embedded.prompt_tokens
            ),
        )
        for index, vector in enumerate(embedded.vectors):
            entry = response.data.add(index=index, object="embedding")
            if request.encoding_format == "base64":
                raw = np.asarray(vector.values, dtype="<f4").tobytes()
                entry.embedding_base64 = base64.b64encode(raw).decode()
            else:
                entry.embedding.extend(vector.values)
        return response


def _completion_request(request: inference_service_pb2.CompleteRequest) -> GenerationRequest:
    return GenerationRequest(
        model=request.model,
        prompts=tuple(request.prompt),
        sampling=sampling_from_proto(request),
        stop=tuple(request.stop),
        answers=request.n if request.HasField("n") else 1,
    )


def _chat_request(request: inference_service_pb2.ChatRequest) -> GenerationRequest:
    if not request.messages:
        raise InvalidArgumentError("cannot answer a chat without messages", field="messages")
    _check_size(request)
    return GenerationRequest(
        model=request.model,
        messages=tuple(
            turn_from_proto(message, f"messages[{number}]")
            # No more than it takes to see that they are too many: each costs the event loop a while.
            for number, message in enumerate(request.messages[: MOST_MESSAGES + 1])
        ),
        sampling=sampling_from_proto(request),
        stop=tuple(request.stop),
        answers=request.n if request.HasField("n") else 1,
        tools=tuple(plain(tool) for tool in request.tools[: MOST_TOOLS + 1]),
        tool_choice=_tool_choice(request),
        response_format=_response_format(request),
    )


def _check_size(request: inference_service_pb2.ChatRequest) -> None:
    """Refuse what would take the event loop long to convert, during which nobody else is served."""
    sizes = {
        "tools": sum(tool.ByteSize() for tool in request.tools),
        "tool_choice": request.tool_choice.ByteSize(),
        "response_format": request.response_format.ByteSize(),
    }
    for field, size in sizes.items():
        if size > LARGEST_LOOSE_BYTES:
            message = f"{field} must not be larger than {LARGEST_LOOSE_BYTES} bytes"
            raise InvalidArgumentError(message, field=field)
    parts = sum(len(message.content.list_value.values) for message in request.messages)
    if parts > MOST_PARTS:
        message = f"cannot answer a chat whose messages have more than {MOST_PARTS} parts"
        raise InvalidArgumentError(message, field="messages")


def _tool_choice(request: inference_service_pb2.ChatRequest) -> str | dict[str, Any] | None:
    choice = plain(request.tool_choice) if request.HasField("tool_choice") else None
    if choice is None or isinstance(choice, str | dict):
        return choice
    message = "tool_choice must be none, auto, required, or the function to call"
    raise InvalidArgumentError(message, field="tool_choice")


def _response_format(request: inference_service_pb2.ChatRequest) -> dict[str, Any] | None:
    wanted = request.response_format
    if wanted.type in ("", "text"):
        return None
    if wanted.type == "json_object":
        return {"type": "json_object"}
    if wanted.type == "json_schema" and "schema" in wanted.json_schema.fields:
        return {"type": "json_schema", "json_schema": plain(wanted.json_schema)}
    message = "response_format must be of type text, json_object, or json_schema with a schema"
    raise InvalidArgumentError(message, field="response_format")


def _chat_choice(generated: Generated) -> inference_service_pb2.ChatChoice:
    answer = generated.answer
    message = inference_pb2.ChatAnswer(
        role="assistant",
        content=None if answer.tool_calls and not answer.content else answer.content,
        reasoning_content=answer.reasoning or None,
        tool_calls=tool_calls_to_proto(answer.tool_calls, is_stream=False),
    )
    return inference_service_pb2.ChatChoice(
        index=generated.index, message=message, finish_reason=answer.finish_reason or "stop"
    )


def _completion(model: str) -> inference_service_pb2.Completion:
    return inference_service_pb2.Completion(
        id=_identifier("cmpl"), object="text_completion", created=int(time.time()), model=model
    )


def _identifier(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(12)}"


def _echoed(request: inference_service_pb2.CompleteRequest, index: int, answers: int) -> str:
    return request.prompt[index // answers] if request.echo else ""


def _usage(generated: list[Generated], answers: int) -> inference_pb2.Usage:
    counts = _Counts(answers)
    for one in generated:
        counts.saw(one.index, one.answer.prompt_tokens, one.answer.tokens)
    return counts.usage()


class _Counts:
    """Tokens of a call. A prompt that is answered several times is counted once, as OpenAI does."""

    def __init__(self, answers: int) -> None:
        self._answers = answers
        self._prompts: dict[int, int] = {}
        self._completions: dict[int, int] = {}

    def saw(self, index: int, prompt_tokens: int, tokens: int) -> None:
        if prompt_tokens:
            self._prompts[index // self._answers] = prompt_tokens
        if tokens:
            self._completions[index] = tokens

    def usage(self) -> inference_pb2.Usage:
        prompt, completion = sum(self._prompts.values()), sum(self._completions.values())
        return inference_pb2.Usage(
            prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
        )
