"""What a prediction asks the engine for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localplane.localai import backend_pb2
from localplane_backends.bodies import BodyError
from localplane_backends.llama.body import read


def request(**fields: Any) -> backend_pb2.PredictOptions:
    return backend_pb2.PredictOptions(**fields)


def chat(**fields: Any) -> backend_pb2.PredictOptions:
    messages = [backend_pb2.Message(role="user", content="hi")]
    return request(UseTokenizerTemplate=True, Messages=messages, **fields)


class TestRead:
    def test_least(self) -> None:
        """Zero values are left to the engine, but for the temperature, whose zero is greedy."""
        assert (
            "completion",
            {"prompt": "x", "temperature": 0.0, "return_progress": True, "timings_per_token": True},
        ) == read(request(Prompt="x"))

    def test_sampling(self) -> None:
        """What steers sampling has the engine's names."""
        _, body = read(
            request(
                Prompt="x",
                Tokens=5,
                Seed=3,
                TopK=4,
                Penalty=1.5,
                StopPrompts=["a", "b"],
                LogitBias='{"7": -100}',
                Grammar="root ::= x",
                IgnoreEOS=True,
            )
        )

        assert {
            "prompt": "x",
            "temperature": 0.0,
            "return_progress": True,
            "timings_per_token": True,
            "max_tokens": 5,
            "seed": 3,
            "top_k": 4,
            "repeat_penalty": 1.5,
            "stop": ["a", "b"],
            "logit_bias": {"7": -100},
            "grammar": "root ::= x",
            "ignore_eos": True,
        } == body

    def test_chat(self) -> None:
        """Messages go to the model's template, with tools and form as they are."""
        kind, body = read(
            chat(
                Tools="[]",
                ToolChoice='"auto"',
                Metadata={"response_format": '{"type": "json_object"}'},
            )
        )

        assert "chat" == kind
        assert [{"role": "user", "content": "hi"}] == body["messages"]
        assert ([], "auto", {"type": "json_object"}) == (
            body["tools"],
            body["tool_choice"],
            body["response_format"],
        )

    def test_bare_tool_choice(self) -> None:
        """LocalAI sends the words of a tool choice without quotes."""
        assert "required" == read(chat(ToolChoice="required"))[1]["tool_choice"]

    def test_named_tool_choice(self) -> None:
        """The engine cannot be told which function to call: it must call one, and sees only that one."""
        tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
        choice = {"type": "function", "function": {"name": "g"}}
        _, body = read(chat(Tools=json.dumps(tools), ToolChoice=json.dumps(choice)))

        assert ([tools[1]], "required") == (body["tools"], body["tool_choice"])

    def test_calls_in_history(self) -> None:
        """A message that only calls tools has no text; its answer names the call."""
        calls = '[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]'
        _, body = read(
            request(
                UseTokenizerTemplate=True,
                Messages=[
                    backend_pb2.Message(role="assistant", tool_calls=calls),
                    backend_pb2.Message(role="tool", content="r", tool_call_id="1", name="f"),
                ],
            )
        )

        assert body["messages"][0]["content"] is None
        assert "1" == body["messages"][0]["tool_calls"][0]["id"]
        assert {"role": "tool", "content": "r", "tool_call_id": "1", "name": "f"} == (
            body["messages"][1]
        )

    def test_prompt_wins_without_template(self) -> None:
        """Messages are for the template; a caller with templates of its own sends a prompt."""
        messages = [backend_pb2.Message(role="user", content="hi")]

        kind, body = read(request(Prompt="p", Messages=messages))

        assert ("completion", "p") == (kind, body["prompt"])

    @pytest.mark.parametrize(
        ("form", "schema"),
        [
            ('{"type": "json_object"}', {"type": "object"}),
            ('{"type": "json_schema", "json_schema": {"schema": {"a": 1}}}', {"a": 1}),
            ('{"type": "text"}', None),
        ],
    )
    def test_form_of_a_completion(self, form: str, schema: dict[str, Any] | None) -> None:
        """A completion takes a form as a schema."""
        _, body = read(request(Prompt="x", Metadata={"response_format": form}))

        assert schema == body.get("json_schema")

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (request(Images=["x"]), "Images are not supported"),
            (request(NegativePrompt="x"), "NegativePrompt is not supported"),
            (request(LogitBias="{"), "LogitBias is not JSON: "),
            (request(LogitBias="[]"), "LogitBias is not a JSON object"),
            (chat(Tools="{}"), "Tools is not a JSON array"),
            (chat(ToolChoice="{"), "ToolChoice is not JSON: "),
            (chat(ToolChoice="[]"), "ToolChoice is neither"),
            (chat(ToolChoice='"sometimes"'), "ToolChoice is neither"),
            (chat(ToolChoice="{}"), "ToolChoice names no function of Tools"),
            (
                chat(ToolChoice='{"function": 5}', Tools="[5]"),
                "ToolChoice names no function of Tools",
            ),
            (
                chat(
                    ToolChoice='{"function": {"name": "f"}}', Tools='[{"function": {"name": "g"}}]'
                ),
                "ToolChoice names no function of Tools",
            ),
            (request(Metadata={"response_format": "7"}), "response_format is not a JSON object"),
            (
                request(Metadata={"response_format": '{"type": "xml"}'}),
                'response_format cannot be "xml"',
            ),
            (
                request(Metadata={"response_format": '{"type": "json_schema"}'}),
                "response_format has no schema",
            ),
        ],
    )
    def test_wrong(self, wrong: backend_pb2.PredictOptions, message: str) -> None:
        """What cannot be understood or done is refused by name."""
        with pytest.raises(BodyError) as caught:
            read(wrong)

        assert str(caught.value).startswith(message)
