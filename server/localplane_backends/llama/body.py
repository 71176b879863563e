"""What the engine is asked for, read from the protocol's `PredictOptions`."""

from __future__ import annotations

import json
from typing import Any

from localplane.localai import backend_pb2
from localplane_backends.llama.engine import Kind

SAMPLING = {
    "TopK": "top_k",
    "TopP": "top_p",
    "MinP": "min_p",
    "TypicalP": "typical_p",
    "Penalty": "repeat_penalty",
    "Repeat": "repeat_last_n",
    "FrequencyPenalty": "frequency_penalty",
    "PresencePenalty": "presence_penalty",
    "Mirostat": "mirostat",
    "MirostatETA": "mirostat_eta",
    "MirostatTAU": "mirostat_tau",
    "NKeep": "n_keep",
    "IgnoreEOS": "ignore_eos",
}
"""Fields that the engine knows under another name. Zero is its default."""
MEDIA = ("Images", "Videos", "Audios")
TOOL_CHOICES = ("none", "auto", "required")


class BodyError(Exception):
    """The call cannot be understood, or asks for what this backend does not do."""


def read(request: backend_pb2.PredictOptions) -> tuple[Kind, dict[str, Any]]:
    """Return what to ask the engine for.

    It is a chat when there are messages for the model's template, else a completion.

    Raises:
        BodyError: If a field holds no valid JSON, or something that a text model does not take.
    """
    for field in MEDIA:
        if getattr(request, field):
            raise BodyError(f"{field} are not supported")
    if request.NegativePrompt:
        raise BodyError("NegativePrompt is not supported")
    body: dict[str, Any] = {
        # Zero is greedy, not the default: a caller always says what it wants.
        "temperature": request.Temperature,
        # Makes the engine report between the batches of a prompt, which is where it can be
        # cancelled.
        "return_progress": True,
        # Every piece then says how many tokens there are so far: more than there are pieces, as a
        # token may end inside a character.
        "timings_per_token": True,
    }
    for field, name in SAMPLING.items():
        value = getattr(request, field)
        if value:
            body[name] = value
    if request.Tokens > 0:
        body["max_tokens"] = request.Tokens
    if request.Seed > 0:
        body["seed"] = request.Seed
    # An empty text would stop at once.
    if stop := [text for text in request.StopPrompts if text]:
        body["stop"] = stop
    if request.LogitBias:
        body["logit_bias"] = _parsed("LogitBias", request.LogitBias, dict)
    if request.Grammar:
        body["grammar"] = request.Grammar
    response_format = request.Metadata.get("response_format")
    form = _parsed("response_format", response_format, dict) if response_format else {}
    if request.UseTokenizerTemplate and request.Messages:
        _add_chat(body, request, form)
        return "chat", body
    _add_prompt(body, request, form)
    return "completion", body


def _add_chat(
    body: dict[str, Any], request: backend_pb2.PredictOptions, form: dict[str, Any]
) -> None:
    body["messages"] = [_message(message) for message in request.Messages]
    if form:
        body["response_format"] = form
    if request.Tools:
        body["tools"] = _parsed("Tools", request.Tools, list)
    if request.ToolChoice:
        bare = request.ToolChoice in TOOL_CHOICES
        choice = request.ToolChoice if bare else _parsed("ToolChoice", request.ToolChoice, object)
        _add_choice(body, choice)
    if request.Logprobs:
        body["logprobs"] = True
        body["top_logprobs"] = request.TopLogprobs


def _add_choice(body: dict[str, Any], choice: Any) -> None:
    if isinstance(choice, dict):
        # The engine cannot be told which function to call, and would call any or none. So it must
        # call one, and sees no other.
        name = _function_name(choice)
        body["tools"] = [tool for tool in body.get("tools", ()) if _function_name(tool) == name]
        if not (name and body["tools"]):
            raise BodyError("ToolChoice names no function of Tools")
        choice = "required"
    if not isinstance(choice, str) or choice not in TOOL_CHOICES:
        raise BodyError(f"ToolChoice is neither one of {', '.join(TOOL_CHOICES)} nor a function")
    body["tool_choice"] = choice


def _function_name(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _add_prompt(
    body: dict[str, Any], request: backend_pb2.PredictOptions, form: dict[str, Any]
) -> None:
    body["prompt"] = request.Prompt
    # The engine takes a response format for chats only.
    kind = form.get("type", "text")
    if kind == "json_object":
        body["json_schema"] = form.get("schema") or {"type": "object"}
    elif kind == "json_schema":
        schema = form.get("json_schema")
        if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
            raise BodyError("response_format has no schema")
        body["json_schema"] = schema["schema"]
    elif kind != "text":
        raise BodyError(f'response_format cannot be "{kind}"')
    if request.Logprobs:
        body["logprobs"] = max(1, request.TopLogprobs)


def _message(message: backend_pb2.Message) -> dict[str, Any]:
    answer: dict[str, Any] = {"role": message.role, "content": message.content}
    for name in ("name", "tool_call_id", "reasoning_content"):
        value = getattr(message, name)
        if value:
            answer[name] = value
    if message.tool_calls:
        answer["tool_calls"] = _parsed("tool_calls", message.tool_calls, list)
        # OpenAI's way to say that there is no text; templates look for it.
        answer["content"] = message.content or None
    return answer


def _parsed(field: str, text: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BodyError(f"{field} is not JSON: {error}") from error
    if not isinstance(value, kind):
        raise BodyError(f"{field} is not a JSON {'object' if kind is dict else 'array'}")
    return value
