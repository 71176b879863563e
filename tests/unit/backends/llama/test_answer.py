"""The replies that are made from the engine's chunks."""

from __future__ import annotations

from typing import Any

from localplane.localai import backend_pb2
from localplane_backends.llama.answer import Answer

TIMINGS = {
    "cache_n": 4,
    "prompt_n": 3,
    "prompt_ms": 5.5,
    "predicted_n": 2,
    "predicted_ms": 7.5,
    "predicted_per_second": 266.0,
}


def text(piece: str, **rest: Any) -> dict[str, Any]:
    return {"choices": [{"text": piece, "finish_reason": None}], **rest}


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": fields, "finish_reason": None}]}


def last(reason: str) -> dict[str, Any]:
    return {"choices": [{"delta": {}, "finish_reason": reason}], "timings": TIMINGS}


class TestReply:
    def test_progress_says_nothing(self) -> None:
        """The progress of a prompt is counted and not passed on."""
        answer = Answer("completion")
        progress = {"total": 9, "cache": 2, "processed": 6, "time_ms": 1}

        assert answer.took_progress(text("", prompt_progress=progress))
        assert not answer.took_progress(text("a"))
        assert (9, 4) == (answer.prompt_tokens, answer.processed_tokens)

    def test_together(self) -> None:
        """Chunks that came together make one reply."""
        reply = Answer("completion").reply([text("a"), text("é")])

        assert backend_pb2.Reply(message="aé".encode(), tokens=2) == reply

    def test_last(self) -> None:
        """The last chunk brings exact counts, timings and the reason."""
        answer = Answer("chat")
        answer.reply([delta(content="a")])

        reply = answer.reply([last("length")])

        assert (
            backend_pb2.Reply(
                tokens=2,
                prompt_tokens=7,
                timing_prompt_processing=5.5,
                timing_token_generation=7.5,
            )
            == reply
        )
        assert ("length", 266.0) == (answer.finish_reason, answer.tokens_per_second)

    def test_chat(self) -> None:
        """A chat is taken apart: reasoning and content stay apart, neighbours of content join."""
        reply = Answer("chat").reply(
            [
                delta(role="assistant", content=None),
                delta(reasoning_content="hm"),
                delta(content="a"),
                delta(content="b"),
            ]
        )

        assert reply is not None
        assert (b"ab", 3) == (reply.message, reply.tokens)
        assert [
            backend_pb2.ChatDelta(reasoning_content="hm"),
            backend_pb2.ChatDelta(content="ab"),
        ] == list(reply.chat_deltas)

    def test_tool_calls(self) -> None:
        """A call's identifier and name come with its first piece."""
        reply = Answer("chat").reply(
            [
                delta(
                    tool_calls=[
                        {"index": 0, "id": "i", "function": {"name": "f", "arguments": "{"}}
                    ]
                ),
                delta(tool_calls=[{"index": 0, "function": {"arguments": "}"}}]),
            ]
        )

        assert reply is not None
        calls = [call for part in reply.chat_deltas for call in part.tool_calls]
        assert [
            backend_pb2.ToolCallDelta(index=0, id="i", name="f", arguments="{"),
            backend_pb2.ToolCallDelta(index=0, arguments="}"),
        ] == calls

    def test_logprobs(self) -> None:
        """Log probabilities are passed on in OpenAI's shape."""
        chunk = {"choices": [{"text": "a", "logprobs": {"content": [{"token": "a"}]}}]}

        reply = Answer("completion").reply([chunk])

        assert reply is not None
        assert b'{"content": [{"token": "a"}]}' == reply.logprobs
