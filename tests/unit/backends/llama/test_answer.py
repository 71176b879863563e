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

        assert not answer.took(text("", prompt_progress=progress))
        assert (9, 4) == (answer.prompt_tokens, answer.processed_tokens)
        assert answer.took(text("a"))

    def test_counts_ahead_of_the_replies(self) -> None:
        """What the engine has done is counted at once; a reply counts what it carries."""
        answer = Answer("completion")
        first = text("a", timings={**TIMINGS, "predicted_n": 1})
        second = text("b", timings={**TIMINGS, "predicted_n": 3})
        answer.took(first)
        answer.took(second)

        reply = answer.reply([first])

        assert reply is not None
        assert (3, 1) == (answer.tokens, reply.tokens)
        assert (7, 3) == (answer.prompt_tokens, answer.processed_tokens)

    def test_slot(self) -> None:
        """The last piece tells the slot; the others say that they do not know."""
        answer = Answer("completion")
        answer.took(text("a", __verbose={"id_slot": -1}))
        unknown = answer.slot
        answer.took(text("", __verbose={"id_slot": 1}))

        assert (None, 1) == (unknown, answer.slot)

    def test_together(self) -> None:
        """Chunks that came together make one reply, with the count of the last."""
        chunks = [
            text("a", timings={**TIMINGS, "predicted_n": 1}),
            text("é", timings={**TIMINGS, "predicted_n": 3}),
        ]

        reply = Answer("completion").reply(chunks)

        assert reply is not None
        assert ("aé".encode(), 3) == (reply.message, reply.tokens)

    def test_last(self) -> None:
        """The last chunk brings exact counts, timings and the reason."""
        answer = Answer("chat")
        answer.reply([delta(content="a")])

        answer.took(last("length"))
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
        assert b"ab" == reply.message
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
