"""Completions, chats and embeddings over every transport."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
from typing import Any

import pytest
from google.protobuf import json_format

from contract.transports import CallError, Transport
from localplane.v1 import backend_service_pb2
from localplane.v1 import inference_service_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="module")


def chat(model: str, *texts: Any, **options: Any) -> pb.ChatRequest:
    messages = [{"role": "user", "content": text} for text in texts]
    return json_format.ParseDict(
        {"model": model, "messages": messages, **options}, pb.ChatRequest()
    )


async def fails(transport: Transport, method: str, request: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        await transport.call(f"InferenceService.{method}", request)
    return caught.value


async def stream(transport: Transport, method: str, request: Any) -> list[Any]:
    return [chunk async for chunk in transport.stream(f"InferenceService.{method}", request)]


class TestChat:
    async def test_answer(self, transport: Transport) -> None:
        """Greedy answers are the same each time, and the tokens are counted."""
        request = chat("tiny", "hello", max_tokens=5, temperature=0)
        first, second = [await transport.call("InferenceService.Chat", request) for _ in "ab"]
        (choice,) = first.choices

        assert ("assistant", "length") == (choice.message.role, choice.finish_reason)
        assert choice.message.content
        assert choice.message.content == second.choices[0].message.content
        assert 5 == first.usage.completion_tokens
        assert first.usage.prompt_tokens + 5 == first.usage.total_tokens
        assert first.id != second.id

    async def test_stream_is_the_answer_in_pieces(self, transport: Transport) -> None:
        """The pieces joined are the whole answer; the last one tells why it ended, then the usage."""
        options = {"max_tokens": 12, "temperature": 0, "stream_options": {"include_usage": True}}
        request = chat("tiny", "hello", **options)
        whole = await transport.call("InferenceService.Chat", request)
        chunks = await stream(transport, "ChatStream", request)
        text = "".join(c.choices[0].delta.content for c in chunks if c.choices)

        assert whole.choices[0].message.content == text
        assert "assistant" == chunks[0].choices[0].delta.role
        assert ["length"] == [
            c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason
        ]
        assert whole.usage == chunks[-1].usage
        assert 1 == len({chunk.id for chunk in chunks})

    async def test_parts_of_text(self, transport: Transport) -> None:
        """A list of parts is their text."""
        parts = [{"type": "text", "text": "a b"}, {"type": "text", "text": "c"}]
        answer = await transport.call("InferenceService.Chat", chat("untold", parts))

        assert "a b c " == answer.choices[0].message.content

    async def test_several_answers(self, transport: Transport) -> None:
        """Each has its place, and the prompt is counted once."""
        one = await transport.call("InferenceService.Chat", chat("tiny", "x", max_tokens=3))
        two = await transport.call(
            "InferenceService.Chat", chat("tiny", "x", max_tokens=3, n=2, seed=7)
        )

        assert [0, 1] == [choice.index for choice in two.choices]
        assert one.usage.prompt_tokens == two.usage.prompt_tokens
        assert 6 == two.usage.completion_tokens

    async def test_json_format(self, transport: Transport) -> None:
        """An answer that was asked for as JSON is JSON, even from a model that talks noise."""
        schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        answer = await transport.call(
            "InferenceService.Chat",
            chat("tiny", "x", max_tokens=200, temperature=0, response_format=wanted),
        )

        assert isinstance(json.loads(answer.choices[0].message.content)["a"], bool)

    @pytest.mark.parametrize(
        ("options", "field"),
        [
            ({"temperature": 3}, "temperature"),
            ({"temperature": "NaN"}, "temperature"),
            ({"top_p": 1.5}, "top_p"),
            ({"max_tokens": -1}, "max_tokens"),
            ({"n": 0}, "n"),
            ({"n": 17}, "n"),
            ({"stop": ["x"] * 17}, "stop"),
            ({"response_format": {"type": "xml"}}, "response_format"),
            ({"response_format": {"type": "json_schema"}}, "response_format"),
            ({"tools": [{"type": "function"}] * 1025}, "tools"),
            ({"tools": [{"a": "x" * 2**20}]}, "tools"),
            ({"tool_choice": {"a": "x" * 2**20}}, "tool_choice"),
            ({"tool_choice": []}, "tool_choice"),
            ({"tool_choice": 5}, "tool_choice"),
            ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "ToolChoice"),
        ],
    )
    async def test_bad_options(
        self, transport: Transport, options: dict[str, Any], field: str
    ) -> None:
        """What cannot be asked is refused with the name of the field."""
        error = await fails(transport, "Chat", chat("tiny", "x", **options))

        assert "INVALID_ARGUMENT" == error.reason
        assert field in error.message or field == error.metadata.get("field")

    @pytest.mark.parametrize("content", [5, {"a": 1}, [{"type": "image_url"}], ["x"]])
    async def test_content_that_is_no_text(self, transport: Transport, content: Any) -> None:
        """A picture is not silently left out."""
        error = await fails(transport, "Chat", chat("tiny", content))

        assert "INVALID_ARGUMENT" == error.reason

    async def test_no_messages(self, transport: Transport) -> None:
        """There is nothing to answer."""
        error = await fails(transport, "Chat", pb.ChatRequest(model="tiny"))

        assert "INVALID_ARGUMENT" == error.reason

    async def test_too_many_messages(self, transport: Transport) -> None:
        """A template takes its time with each message, and cannot be interrupted."""
        error = await fails(transport, "Chat", chat("tiny", *["x"] * 4097))

        assert ("INVALID_ARGUMENT", "messages") == (error.reason, error.metadata["field"])

    async def test_too_many_parts(self, transport: Transport) -> None:
        """Nor may a message have any number of parts."""
        parts = [{"type": "text", "text": "x"}] * 16385
        error = await fails(transport, "Chat", chat("tiny", parts))

        assert ("INVALID_ARGUMENT", "messages") == (error.reason, error.metadata["field"])

    async def test_too_long(self, transport: Transport) -> None:
        """A chat that does not fit the context is the caller's error, with both sizes."""
        error = await fails(transport, "Chat", chat("tiny", "word " * 4000))

        assert "INVALID_ARGUMENT" == error.reason
        assert "512" in error.message

    async def test_unknown_model(self, transport: Transport) -> None:
        """LocalAI's words."""
        error = await fails(transport, "Chat", chat("nobody", "x"))

        assert "MODEL_NOT_FOUND" == error.reason
        assert 'model "nobody" not found' in error.message

    async def test_crash(self, transport: Transport) -> None:
        """The call that meets a crash says how the backend ended; it can be loaded again at once."""
        for _ in range(2):
            await transport.call(
                "BackendService.LoadModel", backend_service_pb2.LoadModelRequest(model="crashes")
            )
            error = await fails(transport, "Chat", chat("crashes", "a b c"))
            assert "BACKEND_GONE" == error.reason
            assert "signal SIGKILL" in error.message
            assert "last words" in error.message

    async def test_crash_in_a_stream(self, transport: Transport) -> None:
        """What came before arrives, then the error."""
        await transport.call(
            "BackendService.LoadModel", backend_service_pb2.LoadModelRequest(model="crashes")
        )
        request = chat("crashes", "a b c")
        seen = []
        with pytest.raises(CallError) as caught:  # noqa: PT012 - what was seen before counts
            async for chunk in transport.stream("InferenceService.ChatStream", request):
                seen.append(chunk)  # noqa: PERF401

        # The first piece may be lost with the connection of the process that died.
        assert len(seen) <= 1
        assert "BACKEND_GONE" == caught.value.reason

    async def test_reader_that_goes_away(self, transport: Transport) -> None:
        """A stream that nobody reads is not generated: the backend is idle again."""
        pieces = transport.stream("InferenceService.ChatStream", chat("slow", "x"))
        await anext(pieces)
        await pieces.aclose()

        async with asyncio.timeout(10):
            while await self._in_flight(transport, "slow"):
                await asyncio.sleep(0.01)

    async def _in_flight(self, transport: Transport, model: str) -> int:
        request = backend_service_pb2.ListBackendsRequest()
        listed = await transport.call("BackendService.ListBackends", request)
        return next(int(one.in_flight) for one in listed.backends if one.model == model)


class TestComplete:
    async def test_several_texts(self, transport: Transport) -> None:
        """One answer for each text, in order; echo puts the text in front."""
        request = pb.CompleteRequest(model="untold", prompt=["a b", "c"], echo=True)
        answer = await transport.call("InferenceService.Complete", request)

        assert ["a ba b ", "cc "] == [choice.text for choice in answer.choices]
        assert [0, 1] == [choice.index for choice in answer.choices]

    async def test_stream(self, transport: Transport) -> None:
        """The pieces joined are the answer."""
        request = pb.CompleteRequest(model="echo", prompt=["x"])
        whole = await transport.call("InferenceService.Complete", request)
        chunks = await stream(transport, "CompleteStream", request)

        assert "0 1 2 3 4 " == whole.choices[0].text
        assert whole.choices[0].text == "".join(chunk.choices[0].text for chunk in chunks)
        assert "stop" == chunks[-1].choices[0].finish_reason

    async def test_stop_texts(self, transport: Transport) -> None:
        """Generation ends at a stop text, which is not part of the answer."""
        request = pb.CompleteRequest(model="tiny", prompt=["hello"], max_tokens=20, temperature=0)
        text = (await transport.call("InferenceService.Complete", request)).choices[0].text
        stop = text[len(text) // 2 :][:3]
        request.stop.append(stop)
        answer = await transport.call("InferenceService.Complete", request)

        assert text[: text.index(stop)] == answer.choices[0].text
        assert "stop" == answer.choices[0].finish_reason

    async def test_nothing_to_complete(self, transport: Transport) -> None:
        """A text is needed."""
        error = await fails(transport, "Complete", pb.CompleteRequest(model="tiny"))

        assert "INVALID_ARGUMENT" == error.reason


class TestEmbed:
    async def test_vectors(self, transport: Transport) -> None:
        """A unit vector for each text, in order; the same text gives the same vector."""
        request = pb.EmbedRequest(model="vectors", input=["a cat", "a dog", "a cat"])
        answer = await transport.call("InferenceService.Embed", request)
        first, second, third = (list(one.embedding) for one in answer.data)

        assert [0, 1, 2] == [one.index for one in answer.data]
        assert first == pytest.approx(third, abs=1e-5)
        assert first != pytest.approx(second, abs=1e-3)
        assert 1 == pytest.approx(math.hypot(*first), abs=1e-4)
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0

    async def test_base64(self, transport: Transport) -> None:
        """The same vector as little-endian floats."""
        plain = pb.EmbedRequest(input=["a cat"])
        coded = pb.EmbedRequest(input=["a cat"], encoding_format="base64")
        vector = (await transport.call("InferenceService.Embed", plain)).data[0].embedding
        (entry,) = (await transport.call("InferenceService.Embed", coded)).data
        raw = base64.b64decode(entry.embedding_base64)

        assert list(vector) == pytest.approx(struct.unpack(f"<{len(raw) // 4}f", raw), abs=1e-6)
        assert not entry.embedding

    @pytest.mark.parametrize(
        "request_",
        [
            pb.EmbedRequest(model="vectors"),
            pb.EmbedRequest(model="vectors", input=["a", ""]),
            pb.EmbedRequest(model="vectors", input=["a"] * 2049),
            pb.EmbedRequest(model="vectors", input=["a"], encoding_format="hex"),
        ],
    )
    async def test_bad_requests(self, transport: Transport, request_: pb.EmbedRequest) -> None:
        """Nothing, an empty text, too many, another encoding."""
        assert "INVALID_ARGUMENT" == (await fails(transport, "Embed", request_)).reason
