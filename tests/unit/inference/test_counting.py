"""Counting predictions, however they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from localplane_server.errors import BackendGoneError, InvalidArgumentError, LocalplaneError
from localplane_server.events import Events, PredictionFinished
from localplane_server.inference.counting import PredictionCounter, estimate
from localplane_server.scheduling.tasks import DetachedTasks
from localplane_server.supervision.calls import Answer, CallTokens, ChatTurn, Piece, Prediction

GONE = BackendGoneError("gone")
PREDICTION = Prediction(prompt="eight by", correlation_id="id")


class Backend:
    """Says what it is told to, of one prediction and of texts."""

    def __init__(
        self,
        tokens: CallTokens | LocalplaneError | None = GONE,
        words: LocalplaneError | None = None,
    ) -> None:
        self.tokens = tokens
        self.words = words
        self.hangs = False

    async def call_tokens(self, correlation_id: str, _seconds: float) -> CallTokens | None:
        assert "id" == correlation_id
        if self.hangs:
            await asyncio.Event().wait()
        if isinstance(self.tokens, LocalplaneError):
            raise self.tokens
        return self.tokens

    async def tokenize(self, text: str) -> list[int]:
        if self.words is not None:
            raise self.words
        return [0] * len(text.split())


class Counting:
    """A counter, and what it tells."""

    def __init__(self) -> None:
        bus = Events()
        self.told = asyncio.Queue[PredictionFinished]()
        bus.listen(PredictionFinished, self.told.put_nowait)
        self.tasks = DetachedTasks()
        self.counter = PredictionCounter(bus, self.tasks)

    def counted(self, backend: Backend, prediction: Prediction = PREDICTION) -> Any:
        return self.counter.counted("m", prediction, backend)  # type: ignore[arg-type]  # a fake

    async def event(self) -> PredictionFinished:
        async with asyncio.timeout(10):
            return await self.told.get()


@pytest_asyncio.fixture
async def counting() -> AsyncGenerator[Counting]:
    counting = Counting()
    yield counting
    await counting.tasks.close()
    assert counting.told.empty()


class TestCountedByTheBackend:
    async def test_whole_answer(self, counting: Counting) -> None:
        """What the backend counts is told at once and is no estimate."""
        with counting.counted(Backend()) as count:
            count.saw_answer(
                Answer(
                    text="a b",
                    tokens=9,
                    prompt_tokens=5,
                    prompt_ms=1.0,
                    generation_ms=2.0,
                    slot=3,
                    prompt_tokens_processed=4,
                )
            )
        event = counting.told.get_nowait()

        assert ("completion", "ok", 5, 9, False) == (
            event.operation,
            event.outcome,
            event.prompt_tokens,
            event.completion_tokens,
            event.estimated,
        )
        assert (3, 4, 1.0, 2.0, None) == (
            event.slot,
            event.prompt_tokens_processed,
            event.prompt_ms,
            event.generation_ms,
            event.seconds_to_first_token,
        )

    async def test_stream(self, counting: Counting) -> None:
        """The last piece counts; the first one tells when it came."""
        chat = Prediction(messages=(ChatTurn(role="user", content="x"),))
        with counting.counted(Backend(), chat) as count:
            count.saw_piece(Piece(text="a", tokens=1, prompt_tokens=5))
            count.saw_piece(Piece(tokens=3, prompt_tokens=5, generation_ms=7.0))
        event = counting.told.get_nowait()

        assert ("chat", 3, 7.0, False) == (
            event.operation,
            event.completion_tokens,
            event.generation_ms,
            event.estimated,
        )
        assert event.seconds_to_first_token is not None
        assert 0 <= event.seconds_to_first_token <= event.seconds

    @pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit(), GONE])
    async def test_cut_short(self, counting: Counting, error: BaseException) -> None:
        """The engine was ahead of what arrived, and says by how much."""
        backend = Backend(CallTokens(2, 40, 8, 6))
        with pytest.raises(type(error)), counting.counted(backend) as count:  # noqa: PT012
            count.saw_piece(Piece(text="a", tokens=30, prompt_tokens=8))
            raise error
        event = await counting.event()

        assert ("error" if error is GONE else "aborted", 8, 40, 2, 6, False) == (
            event.outcome,
            event.prompt_tokens,
            event.completion_tokens,
            event.slot,
            event.prompt_tokens_processed,
            event.estimated,
        )

    async def test_refused(self, counting: Counting) -> None:
        """What the backend refuses costs nothing, and that is known."""
        with pytest.raises(InvalidArgumentError), counting.counted(Backend()):
            raise InvalidArgumentError("too long")
        event = counting.told.get_nowait()

        assert ("error", 0, 0, False) == (
            event.outcome,
            event.prompt_tokens,
            event.completion_tokens,
            event.estimated,
        )


class TestEstimated:
    @pytest.mark.parametrize("told", [None, GONE])
    async def test_cut_short(self, counting: Counting, told: LocalplaneError | None) -> None:
        """Without a word of the backend, what was seen is the least that there was."""
        with pytest.raises(asyncio.CancelledError), counting.counted(Backend(told)) as count:  # noqa: PT012
            count.saw_piece(Piece(text="a", tokens=4, prompt_tokens=8))
            raise asyncio.CancelledError
        event = await counting.event()

        assert (8, 4, True) == (event.prompt_tokens, event.completion_tokens, event.estimated)

    async def test_stream_without_counts(self, counting: Counting) -> None:
        """A piece is a token, and the prompt is tokenized by the backend that is there."""
        with counting.counted(Backend()) as count:
            for text in ("a", "b", ""):
                count.saw_piece(Piece(text=text))
        event = await counting.event()

        assert (2, 2, True) == (event.prompt_tokens, event.completion_tokens, event.estimated)

    @pytest.mark.parametrize(("words", "expected"), [(None, (2, 3)), (GONE, (2, 5))])
    async def test_answer_without_counts(
        self, counting: Counting, words: LocalplaneError | None, expected: tuple[int, int]
    ) -> None:
        """Tokenized where the backend can, else estimated by its length."""
        with counting.counted(Backend(words=words)) as count:
            count.saw_answer(Answer(text="three words, longish"))
        event = await counting.event()

        assert expected == (event.prompt_tokens, event.completion_tokens)
        assert event.estimated

    async def test_told_when_the_service_stops(self, counting: Counting) -> None:
        """What is known is told even if nobody waits for the backend any more."""
        backend = Backend()
        backend.hangs = True
        with pytest.raises(GeneratorExit), counting.counted(backend) as count:  # noqa: PT012
            count.saw_piece(Piece(text="a", tokens=4, prompt_tokens=8))
            raise GeneratorExit
        # Before the task that would ask has even begun.
        await counting.tasks.close()
        event = counting.told.get_nowait()

        assert (4, True) == (event.completion_tokens, event.estimated)


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("ääbc", 2)])
def test_estimate(text: str, tokens: int) -> None:
    """Four bytes are a token, and whatever is not empty is at least one."""
    assert tokens == estimate(text)
