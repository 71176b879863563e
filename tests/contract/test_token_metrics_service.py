"""Token metrics over every transport."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf import json_format

from contract.transports import CallError, Transport
from localplane.v1 import backend_service_pb2, inference_service_pb2
from localplane.v1 import token_metrics_pb2 as t
from localplane.v1 import token_metrics_service_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def metrics(transport: Transport, model: str) -> t.TokenMetrics:
    request = pb.GetTokenMetricsRequest(model=model)
    answer: t.TokenMetrics = await transport.call("TokenMetricsService.GetTokenMetrics", request)
    return answer


async def listed(transport: Transport, **options: Any) -> pb.ListTokenMetricsResponse:
    request = pb.ListTokenMetricsRequest(**options)
    answer: pb.ListTokenMetricsResponse = await transport.call(
        "TokenMetricsService.ListTokenMetrics", request
    )
    return answer


async def fails(call: object) -> CallError:
    with pytest.raises(CallError) as caught:
        await call  # type: ignore[misc]  # a coroutine of any answer
    return caught.value


async def complete(transport: Transport, model: str, **options: Any) -> Any:
    request = inference_service_pb2.CompleteRequest(model=model, prompt=["a b c"], **options)
    return await transport.call("InferenceService.Complete", request)


def chat(model: str, text: str, **options: Any) -> inference_service_pb2.ChatRequest:
    messages = [{"role": "user", "content": text}]
    return json_format.ParseDict(
        {"model": model, "messages": messages, **options}, inference_service_pb2.ChatRequest()
    )


async def backends(transport: Transport) -> list[str]:
    request = backend_service_pb2.ListBackendsRequest()
    answer = await transport.call("BackendService.ListBackends", request)
    return [one.model for one in answer.backends]


async def stop(transport: Transport, model: str) -> None:
    if model in await backends(transport):
        request = backend_service_pb2.ShutdownBackendRequest(model=model)
        await transport.call("BackendService.ShutdownBackend", request)


async def grown(transport: Transport, before: t.TokenMetrics, field: str) -> t.TokenMetrics:
    """Return the metrics once a count has grown."""
    async with asyncio.timeout(10):
        while True:
            after = await metrics(transport, before.model)
            if getattr(after.total, field) > getattr(before.total, field):
                return after
            await asyncio.sleep(0.01)


class TestGetTokenMetrics:
    async def test_counts_are_the_engines(self, transport: Transport) -> None:
        """The figures of the slot are the engine's, the totals grow by what a call cost, by any name."""
        before = await metrics(transport, "tiny")
        answer = await complete(transport, "tiny", max_tokens=7, temperature=0)
        after = await metrics(transport, "gpt-tiny")

        assert ("tiny", True, False) == (after.model, after.loaded, after.estimated)
        assert (0, 7, "") == (after.slot_id, after.tokens_generated, after.prompt_json_for_slot)
        assert 0 < after.prompt_tokens_processed <= answer.usage.prompt_tokens
        assert after.tokens_per_second > 0
        assert 7 == after.total.completion_tokens - before.total.completion_tokens
        assert answer.usage.prompt_tokens == after.total.prompt_tokens - before.total.prompt_tokens
        assert answer.usage.total_tokens == after.total.total_tokens - before.total.total_tokens
        assert 1 == after.total.completions - before.total.completions
        assert before.total.estimated == after.total.estimated
        assert [0] == [slot.slot_id for slot in after.slots]
        assert (after.total, 7) == (after.slots[0].total, after.slots[0].tokens_generated)
        assert before.epoch == after.epoch

    async def test_stream(self, transport: Transport) -> None:
        """A stream counts like a whole answer."""
        before = await metrics(transport, "tiny")
        request = chat("tiny", "hello", max_tokens=9, temperature=0)
        async for _ in transport.stream("InferenceService.ChatStream", request):
            pass
        after = await grown(transport, before, "chats")

        assert 9 == after.total.completion_tokens - before.total.completion_tokens
        assert (9, False) == (after.tokens_generated, after.estimated)
        assert before.total.estimated == after.total.estimated

    async def test_aborted_stream(self, transport: Transport) -> None:
        """What the engine generated for a reader that went away is counted, all of it."""
        # The form keeps the model from ending by itself, and slows it.
        schema = {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 400}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        request = chat("tiny", "hello", max_tokens=450, temperature=0, response_format=form)
        # Even so it takes half a second only: on a busy machine it may have ended before.
        for _ in range(10):
            before = await metrics(transport, "tiny")
            pieces = transport.stream("InferenceService.ChatStream", request)
            await anext(pieces)
            await pieces.aclose()
            after = await grown(transport, before, "chats")
            counted = after.total.completion_tokens - before.total.completion_tokens
            if after.total.aborts > before.total.aborts and counted < 450:
                break
        else:
            pytest.fail("the model was always faster")

        # The engine is asked for the latest prediction, which is this one.
        assert after.tokens_generated == counted
        assert counted > 0
        assert after.total.prompt_tokens > before.total.prompt_tokens
        assert before.total.estimated == after.total.estimated

    async def test_not_loaded(self, transport: Transport) -> None:
        """The last figures stay when the model goes, and asking does not bring it back."""
        await complete(transport, "tiny", max_tokens=6, temperature=0)
        loaded = await metrics(transport, "tiny")
        await stop(transport, "tiny")
        gone = await metrics(transport, "tiny")

        assert (True, False) == (loaded.loaded, gone.loaded)
        assert (6, loaded.prompt_tokens_processed, loaded.total) == (
            gone.tokens_generated,
            gone.prompt_tokens_processed,
            gone.total,
        )
        assert gone.tokens_per_second == pytest.approx(loaded.tokens_per_second, rel=0.01)
        assert loaded.last_prediction_at == gone.last_prediction_at
        assert "tiny" not in await backends(transport)

    async def test_never_asked(self, transport: Transport) -> None:
        """A model that was never asked has zeros, and is not loaded for it."""
        never = await metrics(transport, "orphan")

        assert ("orphan", False, 0, 0) == (
            never.model,
            never.loaded,
            never.tokens_generated,
            never.total.total_tokens,
        )
        assert not never.slots
        assert not never.HasField("last_prediction_at")
        assert never.HasField("epoch")
        assert "orphan" not in await backends(transport)

    @pytest.mark.parametrize("model", ["untold", "stuck-metrics", "no-metrics"])
    async def test_backend_that_tells_little(self, transport: Transport, model: str) -> None:
        """Without the backend's own metrics, the service tells what it has counted, in time."""
        before = await metrics(transport, model)
        await complete(transport, model)
        async with asyncio.timeout(5):
            after = await metrics(transport, model)

        assert (3, 5, True) == (
            after.tokens_generated,
            after.prompt_tokens_processed,
            after.loaded,
        )
        assert 3 == after.total.completion_tokens - before.total.completion_tokens

    async def test_backend_that_does_not_count(self, transport: Transport) -> None:
        """The service estimates, and says so."""
        before = await metrics(transport, "plain")
        request = inference_service_pb2.CompleteRequest(model="plain", prompt=["a b c"])
        async for _ in transport.stream("InferenceService.CompleteStream", request):
            pass
        streamed = await grown(transport, before, "completions")
        await complete(transport, "plain")
        whole = await grown(transport, streamed, "completions")

        # The fake backend takes bytes for tokens when it is asked to tokenize.
        assert (3, 5) == (
            streamed.total.completion_tokens - before.total.completion_tokens,
            streamed.total.prompt_tokens - before.total.prompt_tokens,
        )
        assert len("a b c ") == (whole.total.completion_tokens - streamed.total.completion_tokens)
        assert 2 == whole.total.estimated - before.total.estimated

    async def test_error(self, transport: Transport) -> None:
        """A call whose backend dies counts as an error."""
        await transport.call(
            "BackendService.LoadModel", backend_service_pb2.LoadModelRequest(model="crashes")
        )
        before = await metrics(transport, "crashes")
        await fails(transport.call("InferenceService.Chat", chat("crashes", "a b c")))
        after = await grown(transport, before, "errors")

        assert 1 == after.total.chats - before.total.chats
        assert not after.loaded

    async def test_refused(self, transport: Transport) -> None:
        """A chat that does not fit counts as an error that cost nothing."""
        before = await metrics(transport, "tiny")
        await fails(transport.call("InferenceService.Chat", chat("tiny", "word " * 4000)))
        after = await grown(transport, before, "errors")

        assert before.total.total_tokens == after.total.total_tokens
        assert before.total.estimated == after.total.estimated

    async def test_embeddings(self, transport: Transport) -> None:
        """The tokens of all texts of a call are counted."""
        before = await metrics(transport, "vectors")
        request = inference_service_pb2.EmbedRequest(model="vectors", input=["a cat", "a dog"])
        answer = await transport.call("InferenceService.Embed", request)
        after = await metrics(transport, "vectors")

        assert 1 == after.total.embeddings - before.total.embeddings
        assert answer.usage.prompt_tokens == after.prompt_tokens_processed
        assert answer.usage.prompt_tokens == after.total.prompt_tokens - before.total.prompt_tokens
        assert 0 == after.tokens_generated

    @pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 256])
    async def test_no_name(self, transport: Transport, name: str) -> None:
        """A name that cannot be one."""
        assert "INVALID_MODEL_NAME" == (await fails(metrics(transport, name))).reason

    async def test_unknown_model(self, transport: Transport) -> None:
        """There is nothing to tell of a model that does not exist."""
        error = await fails(metrics(transport, "nobody"))

        assert "MODEL_NOT_FOUND" == error.reason


class TestListTokenMetrics:
    async def test_windows_and_totals(self, transport: Transport) -> None:
        """A model that was asked is there, with what happened of late as part of all."""
        await complete(transport, "echo")
        answer = await listed(transport)
        (echo,) = [one for one in answer.models if one.model == "echo"]
        own = await metrics(transport, "echo")

        assert echo.loaded
        assert (own.total, own.epoch) == (echo.total, answer.epoch)
        assert echo.last_hour.counts.completions >= echo.last_minute.counts.completions >= 1
        for window, longest in (
            (echo.last_minute, 60),
            (echo.last_five_minutes, 300),
            (echo.last_hour, 3600),
        ):
            assert 0 < window.seconds <= longest
            assert window.completion_tokens_per_second == pytest.approx(
                window.counts.completion_tokens / window.seconds
            )

    async def test_pages(self, transport: Transport) -> None:
        """Pages joined are the list; asking changes nothing."""
        for model in ("echo", "untold"):
            await complete(transport, model)
        whole = await listed(transport)
        first = await listed(transport, page_size=1)
        rest = await listed(transport, page_token=first.next_page_token)
        names = [one.model for one in whole.models]

        assert sorted(names) == names
        assert names == [one.model for one in (*first.models, *rest.models)]
        assert [one.total for one in whole.models] == [
            one.total for one in (*first.models, *rest.models)
        ]
        assert "" == rest.next_page_token

    async def test_bad_page(self, transport: Transport) -> None:
        """A token that is none, and a negative size."""
        assert "INVALID_ARGUMENT" == (await fails(listed(transport, page_token="!"))).reason
        assert "INVALID_ARGUMENT" == (await fails(listed(transport, page_size=-1))).reason
