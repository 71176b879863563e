"""What is said to a backend and what it answers, without the wire format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

DEFAULT_TEMPERATURE = 0.8
"""Sent where a prediction has none: the protocol cannot say "your default", its zero is greedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What a backend is to load, and how. Zero and empty values leave it to the backend."""

    model: str
    """The model as its configuration names it: a file, or whatever its backend understands."""
    model_file: str = ""
    """Absolute path of the model's file."""
    models_path: str = ""
    """Folder of the models."""
    context_size: int = 0
    """Tokens."""
    batch: int = 0
    """Prompt tokens computed in one go."""
    threads: int = 0
    """Threads to compute with."""
    gpu_layers: int = 0
    """Layers to put on devices."""
    f16: bool = False
    """Whether the key-value cache is to hold 16-bit numbers."""
    mmap: bool = True
    """Whether to map the file instead of reading it."""
    embeddings: bool = False
    """Whether the model is to embed instead of generating."""
    flash_attention: str = ""
    """`on`, `off` or `auto`."""
    type: str = ""
    """Kind of model, of backends that serve several."""
    options: tuple[str, ...] = ()
    """The backend's own options, each `key:value`."""
    further: tuple[tuple[str, Any], ...] = ()
    """Further fields, by the protocol's names. They win over those above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTurn:
    """One message of a chat."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str = ""
    """Text."""
    name: str = ""
    """Name of the participant."""
    tool_call_id: str = ""
    """The call that this message answers."""
    reasoning: str = ""
    """Text of the model's reasoning."""
    tool_calls: Sequence[Mapping[str, Any]] = ()
    """Calls to tools, in OpenAI's shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What to continue, and how. None leaves a value to the backend."""

    prompt: str = ""
    """Text to continue. Unused when there are messages."""
    messages: tuple[ChatTurn, ...] = ()
    """A chat, which goes through the model's own template."""
    max_tokens: int | None = None
    """Most tokens to generate. None: until the model ends or its context is full."""
    temperature: float | None = None
    """0 is greedy. None is `DEFAULT_TEMPERATURE`."""
    top_p: float | None = None
    """Samples from the most likely tokens that make up this probability."""
    top_k: int | None = None
    """Samples from this many most likely tokens; 0 or less is all."""
    min_p: float | None = None
    """Drops tokens less likely than this share of the most likely one."""
    seed: int | None = None
    """None or less than zero draws one."""
    stop: tuple[str, ...] = ()
    """Texts at which generation stops; they are not part of the answer."""
    frequency_penalty: float = 0.0
    """As OpenAI defines it."""
    presence_penalty: float = 0.0
    """As OpenAI defines it."""
    repeat_penalty: float | None = None
    """1 is none."""
    tools: Sequence[Mapping[str, Any]] = ()
    """Tools that may be called, in OpenAI's shape."""
    tool_choice: str | Mapping[str, Any] | None = None
    """`none`, `auto`, `required`, or OpenAI's object that names a function."""
    response_format: Mapping[str, Any] | None = None
    """Form of the answer, in OpenAI's shape."""
    correlation_id: str = ""
    """Identifier for logs, and to ask later what the prediction cost."""


FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallPiece:
    """A call to a tool, or a piece of one."""

    index: int
    """Position among the answer's calls, from 0."""
    id: str = ""
    """Only with the first piece."""
    name: str = ""
    """Only with the first piece."""
    arguments: str = ""
    """Next piece of the arguments' JSON text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The next piece of an answer. The last one of a stream has a finish reason."""

    text: str = ""
    """All text, whatever it is, in whole characters."""
    content: str = ""
    """Text of the answer. Equal to `text` where the backend does not take chats apart."""
    reasoning: str = ""
    """Text of the model's reasoning."""
    tool_calls: tuple[ToolCallPiece, ...] = ()
    """Pieces of calls to tools."""
    tokens: int = 0
    """Generated so far, as far as the backend counts them."""
    prompt_tokens: int = 0
    """Of the prompt."""
    prompt_ms: float = 0.0
    """Milliseconds spent on the prompt. 0 until it is known."""
    generation_ms: float = 0.0
    """Milliseconds spent on generation. 0 until it is known."""
    finish_reason: FinishReason | None = None
    """None while the stream goes on."""
    slot: int | None = None
    """Slot that it ran in; only at the end. None where the backend does not say."""
    prompt_tokens_processed: int | None = None
    """Of the prompt, those not found in the cache; only at the end. None where the backend does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Piece):
    """A whole answer. Its calls to tools are whole, and its finish reason is never None."""


@dataclass(frozen=True, slots=True)
class Vector:
    """An embedding."""

    values: Sequence[float]
    """The vector."""
    prompt_tokens: int
    """Tokens of the text. 0 where the backend does not count them."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory that a backend reports."""

    total: int
    """Bytes. At least the sum of the parts."""
    breakdown: Mapping[str, int] = field(default_factory=dict)
    """Bytes by what they are for."""


ReportedState = Literal["uninitialized", "busy", "ready", "error"]


@dataclass(frozen=True, slots=True)
class Report:
    """What a backend says of itself."""

    reported_state: ReportedState | None
    """None for a number that the protocol does not have."""
    memory: Memory | None
    """None when it reports none."""


@dataclass(frozen=True, slots=True)
class SlotMetrics:
    """Tokens of the slot that was active most recently."""

    slot_id: int
    """From 0."""
    prompt_json: str
    """The prompt. Empty where the backend does not disclose it."""
    tokens_per_second: float
    """Of the last prediction."""
    tokens_generated: int
    """By the last prediction."""
    prompt_tokens_processed: int
    """By the last prediction."""


@dataclass(frozen=True, slots=True)
class CallTokens:
    """Tokens of one prediction, by the engine's own count."""

    slot: int
    """Slot that it ran in."""
    tokens: int
    """Generated."""
    prompt_tokens: int
    """Of the prompt."""
    prompt_tokens_processed: int
    """Of the prompt, those that were computed."""
