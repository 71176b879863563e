"""Methods of the InferenceService."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from google.protobuf import json_format

from localplane.v1 import inference_service_pb2
from localplane_client.methods import streaming, unary

Messages = str | Iterable[Mapping[str, Any]]
"""A chat: what the user says, or messages as OpenAI has them, each `{"role": ..., "content": ...}`."""


class Sampling(TypedDict, total=False):
    """How tokens are chosen. The meaning of each is that of the request's field."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int
    stop: Sequence[str]
    frequency_penalty: float
    presence_penalty: float
    repeat_penalty: float
    n: int
    stream_options: Mapping[str, bool]


class CompleteOptions(Sampling, total=False):
    """What a completion may be told besides its texts."""

    echo: bool


class ChatOptions(Sampling, total=False):
    """What a chat may be told besides its messages."""

    tools: Sequence[Mapping[str, Any]]
    tool_choice: str | Mapping[str, Any]
    response_format: Mapping[str, Any]


def _chat_request(
    messages: Messages, model: str, options: ChatOptions
) -> inference_service_pb2.ChatRequest:
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else [*messages]
    request = inference_service_pb2.ChatRequest()
    return json_format.ParseDict({"model": model, "messages": said, **options}, request)


def _complete_request(
    prompt: str | Sequence[str], model: str, options: CompleteOptions
) -> inference_service_pb2.CompleteRequest:
    texts = [prompt] if isinstance(prompt, str) else [*prompt]
    request = inference_service_pb2.CompleteRequest()
    return json_format.ParseDict({"model": model, "prompt": texts, **options}, request)


class InferenceMethods:
    """Asking models. A model that is not loaded is loaded first; without a name, the service chooses one."""

    @unary("InferenceService/Chat", inference_service_pb2.ChatCompletion, is_quick=False)
    def chat(
        self, messages: Messages, *, model: str = "", **options: Unpack[ChatOptions]
    ) -> inference_service_pb2.ChatRequest:
        """Have a chat answered."""
        return _chat_request(messages, model, options)

    @streaming("InferenceService/ChatStream", inference_service_pb2.ChatCompletionChunk)
    def chat_stream(
        self, messages: Messages, *, model: str = "", **options: Unpack[ChatOptions]
    ) -> inference_service_pb2.ChatRequest:
        """Have a chat answered, piece by piece."""
        return _chat_request(messages, model, options)

    @unary("InferenceService/Complete", inference_service_pb2.Completion, is_quick=False)
    def complete(
        self,
        prompt: str | Sequence[str],
        *,
        model: str = "",
        **options: Unpack[CompleteOptions],
    ) -> inference_service_pb2.CompleteRequest:
        """Have texts completed."""
        return _complete_request(prompt, model, options)

    @streaming("InferenceService/CompleteStream", inference_service_pb2.Completion)
    def complete_stream(
        self,
        prompt: str | Sequence[str],
        *,
        model: str = "",
        **options: Unpack[CompleteOptions],
    ) -> inference_service_pb2.CompleteRequest:
        """Have texts completed, piece by piece."""
        return _complete_request(prompt, model, options)

    @unary("InferenceService/Embed", inference_service_pb2.EmbedResponse, is_quick=False)
    def embed(
        self,
        input: str | Sequence[str],  # noqa: A002 - the field's name
        *,
        model: str = "",
    ) -> inference_service_pb2.EmbedRequest:
        """Compute the embeddings of texts."""
        texts = [input] if isinstance(input, str) else [*input]
        return inference_service_pb2.EmbedRequest(model=model, input=texts)


def text_of(piece: inference_service_pb2.ChatCompletionChunk) -> str:
    """Return the text that a piece adds to the first answer of a chat; empty when it adds none."""
    return "".join(choice.delta.content for choice in piece.choices if choice.index == 0)
