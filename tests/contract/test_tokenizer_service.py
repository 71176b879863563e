"""Tokens over every transport."""

from __future__ import annotations

import grpc
import pytest

from contract.transports import CallError, Transport
from localplane.v1 import tokenizer_service_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXTS = ["", "hello world", "  spaces\n\tand tabs ", "日本語 ñ 🙂", '{"json": [1, 2]}', "x" * 5000]


async def tokenize(transport: Transport, model: str, content: str) -> pb.TokenizeResponse:
    answer: pb.TokenizeResponse = await transport.call(
        "TokenizerService.Tokenize", pb.TokenizeRequest(model=model, content=content)
    )
    return answer


@pytest.mark.parametrize("text", TEXTS)
async def test_there_and_back(transport: Transport, text: str) -> None:
    """What was split joins to what it was, whatever the characters."""
    split = await tokenize(transport, "tiny", text)
    assert (len(split.tokens), "tiny") == (split.count, split.tokenizer)

    joined = await transport.call(
        "TokenizerService.Detokenize", pb.DetokenizeRequest(model="tiny", tokens=split.tokens)
    )
    assert text == joined.content


async def test_first_model_by_default(transport: Transport) -> None:
    """Without a model, the first one configured for text is meant."""
    assert "tiny" == (await tokenize(transport, "", "a")).tokenizer


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("nobody", "MODEL_NOT_FOUND"),
        ("untold", "NOT_SUPPORTED_BY_BACKEND"),
        ("\1", "INVALID_MODEL_NAME"),
    ],
)
async def test_failures(transport: Transport, model: str, reason: str) -> None:
    """An unknown model, a backend that does not tokenize, a name that is none."""
    with pytest.raises(CallError) as caught:
        await tokenize(transport, model, "a")

    assert reason == caught.value.reason


@pytest.mark.parametrize("token", [-1, 2**31 - 1, 770])
async def test_tokens_that_are_none(transport: Transport, token: int) -> None:
    """A number outside the vocabulary is an error of the caller's."""
    request = pb.DetokenizeRequest(model="tiny", tokens=[1, token])
    with pytest.raises(CallError) as caught:
        await transport.call("TokenizerService.Detokenize", request)

    assert "INVALID_ARGUMENT" == caught.value.reason
    assert caught.value.code in (400, grpc.StatusCode.INVALID_ARGUMENT)


async def test_too_many_tokens(transport: Transport) -> None:
    """Their text would not fit the message that it goes back in."""
    request = pb.DetokenizeRequest(model="tiny", tokens=[1] * (2**18 + 1))
    with pytest.raises(CallError) as caught:
        await transport.call("TokenizerService.Detokenize", request)

    assert ("INVALID_ARGUMENT", "tokens") == (
        caught.value.reason,
        caught.value.metadata["field"],
    )
