"""A prediction as OpenAI's API has it, read from the protocol's `PredictOptions`."""

from __future__ import annotations

import json
from typing import Any, Literal

from localplane.localai import backend_pb2

Kind = Literal["completion", "chat"]
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
"""Fields whose zero is the default, under OpenAI's names or, where it has none, llama.cpp's."""
MEDIA = ("Images", "Videos", "Audios")
TOOL_CHOICES = ("none", "auto", "required")


class BodyError(Exception):
    """The call cannot be understood, or asks for what the backend does not do."""


def read(request: backend_pb2.PredictOptions) -> tuple[Kind, dict[str, Any]]:
    """Return what is asked for.

    It is a chat when there are messages for the model's template, else a completion.

    Raises:
        BodyError: If a field holds no valid JSON, or something that a text model does not take.
    """
    for field in MEDIA:
        if getattr(request, field):
            raise BodyError(f"{field} are not supported")
    if request.NegativePrompt:
        raise BodyError("NegativePrompt is not supported")
    # Zero is greedy, not the default: a caller always says what it wants.
    body: dict[str, Any] = {"temperature": request.Temperature}
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
        body["logit_bias"] = parsed("LogitBias", request.LogitBias, dict)
    if request.Grammar:
        body["grammar"] = request.Grammar
    if form := request.Metadata.get("response_format"):
        body["response_format"] = parsed("response_format", form, dict)
    if request.UseTokenizerTemplate and request.Messages:
        _add_chat(body, request)
        return "chat", body
    body["prompt"] = request.Prompt
    if request.Logprobs:
        body["logprobs"] = max(1, request.TopLogprobs)
    return "completion", body


def use_schema(body: dict[str, Any]) -> None:
    """Say the form of a completion as a schema: llama.cpp takes a response format for chats only.

    Raises:
        BodyError: If there is a form and it has no schema.
    """
    form = body.pop("response_format", {})
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


def function_name(tool: Any) -> Any:
    """Return the name of the function that a tool, or a choice of one, is about."""
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def parsed(field: str, text: str, kind: type) -> Any:
    """Return what the JSON text of a field says.

    Raises:
        BodyError: If it is no JSON, or of another kind.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BodyError(f"{field} is not JSON: {error}") from error
    if not isinstance(value, kind):
        raise BodyError(f"{field} is not a JSON {'object' if kind is dict else 'array'}")
    return value


def _add_chat(body: dict[str, Any], request: backend_pb2.PredictOptions) -> None:
    body["messages"] = [_message(message) for message in request.Messages]
    if request.Tools:
        body["tools"] = parsed("Tools", request.Tools, list)
    if request.ToolChoice:
        bare = request.ToolChoice in TOOL_CHOICES
        choice = request.ToolChoice if bare else parsed("ToolChoice", request.ToolChoice, object)
        body["tool_choice"] = _checked_choice(choice, body.get("tools", ()))
    if request.Logprobs:
        body["logprobs"] = True
        body["top_logprobs"] = request.TopLogprobs


def _checked_choice(choice: Any, tools: Any) -> Any:
    if isinstance(choice, dict):
        name = function_name(choice)
        if not name or name not in [function_name(tool) for tool in tools]:
            raise BodyError("ToolChoice names no function of Tools")
    elif not isinstance(choice, str) or choice not in TOOL_CHOICES:
        raise BodyError(f"ToolChoice is neither one of {', '.join(TOOL_CHOICES)} nor a function")
    return choice


def _message(message: backend_pb2.Message) -> dict[str, Any]:
    answer: dict[str, Any] = {"role": message.role, "content": message.content}
    for name in ("name", "tool_call_id", "reasoning_content"):
        value = getattr(message, name)
        if value:
            answer[name] = value
    if message.tool_calls:
        answer["tool_calls"] = parsed("tool_calls", message.tool_calls, list)
        # OpenAI's way to say that there is no text; templates look for it.
        answer["content"] = message.content or None
    return answer
