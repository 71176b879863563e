"""The client, against the fake backend in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from backends.processes import FAKE, Running, running
from localplane_server import errors
from localplane_server.supervision.backend_client import BackendClient
from localplane_server.supervision.calls import (
    ChatTurn,
    LoadOptions,
    Memory,
    Piece,
    Prediction,
    Report,
)

TOKEN = "of the test"
HEALTH_SECONDS = 20.0

Load = Callable[..., "asyncio.Future[None]"]


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Running]:
    with running(FAKE, tmp_path, LOCALAI_GRPC_AUTH_TOKEN=TOKEN) as started:
        yield started


@pytest.fixture
async def client(backend: Running) -> AsyncIterator[BackendClient]:
    client = BackendClient(backend.address, token=TOKEN, model="m")
    assert await client.health(HEALTH_SECONDS)
    yield client
    await client.close()


async def load(client: BackendClient, *options: str) -> None:
    await client.load(LoadOptions(model="m.gguf", options=options))


async def pieces_of(client: BackendClient, prediction: Prediction) -> list[Piece]:
    return [piece async for piece in client.predict_stream(prediction)]


async def wait_for_state(client: BackendClient, state: str) -> None:
    async with asyncio.timeout(20):
        # The backend has no way to tell of a change by itself.
        while (await client.status(5)).reported_state != state:
            await asyncio.sleep(0.005)


class TestHealth:
    async def test_nobody_listens(self, tmp_path: Path) -> None:
        """A backend that does not listen yet is not healthy, and the time is kept."""
        client = BackendClient(f"unix:{tmp_path}/none.sock", token="", model="m")
        began = time.monotonic()

        assert not await client.health(0.1)
        assert time.monotonic() - began < 2
        await client.close()

    async def test_waits_for_a_late_one(self, tmp_path: Path) -> None:
        """A backend that takes its time to listen is found healthy once it does."""
        with running(FAKE, tmp_path, FAKE_BACKEND_START="seconds:0.3") as started:
            client = BackendClient(started.address, token="", model="m")

            assert await client.health(HEALTH_SECONDS)
            await client.close()

    async def test_unix_socket(self, tmp_path: Path) -> None:
        """A backend may listen on a unix socket."""
        with running(FAKE, tmp_path, address=f"unix:{tmp_path}/b.sock") as started:
            client = BackendClient(started.address, token="", model="m")

            assert await client.health(HEALTH_SECONDS)
            await client.close()

    async def test_other_answer(self, tmp_path: Path) -> None:
        """Only the answer OK is health."""
        with running(FAKE, tmp_path, FAKE_BACKEND_START="unwell") as started:
            client = BackendClient(started.address, token="", model="m")

            assert not await client.health(2)
            await client.close()

    async def test_wrong_token(self, backend: Running, client: BackendClient) -> None:
        """A backend that does not know its owner is not ours, however well it is."""
        stranger = BackendClient(backend.address, token="another", model="m")

        assert not await stranger.health(HEALTH_SECONDS)
        await stranger.close()


class TestLoad:
    async def test_loads(self, client: BackendClient) -> None:
        """A loaded backend reports that it is ready, and its memory."""
        before = await client.status(5)
        await load(client, "memory:2")

        assert Report("uninitialized", None) == before
        assert Report("ready", Memory(2 << 20, {"weights": 2 << 20})) == await client.status(5)

    async def test_failure_has_the_reason(self, client: BackendClient) -> None:
        """What the backend says of a failed load reaches the caller."""
        with pytest.raises(errors.LoadFailedError) as caught:
            await load(client, "load_error:no such tensor")

        assert "no such tensor" == caught.value.message
        assert {"model": "m"} == caught.value.metadata

    async def test_failure_by_status(self, client: BackendClient) -> None:
        """A backend may also fail a load by a status; its text is kept."""
        await load(client, "fail:LoadModel=INTERNAL")

        with pytest.raises(errors.LoadFailedError, match="fake: internal"):
            await load(client)

    async def test_death(self, client: BackendClient, backend: Running) -> None:
        """A backend that dies while it loads is gone, and the call does not hang."""
        with pytest.raises(errors.BackendGoneError):
            await load(client, "die_while_loading:3")

        assert 3 == backend.process.wait(HEALTH_SECONDS)

    async def test_cancelled(self, client: BackendClient) -> None:
        """A load can be given up."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await load(client, "load_seconds:600")


class TestPredict:
    async def test_answer(self, client: BackendClient) -> None:
        """An answer has its text, its counts and its timings."""
        await load(client)

        answer = await client.predict(Prediction(prompt="one two three", max_tokens=10))

        assert "one two three " == answer.text
        assert ("one two three ", 3, 13) == (answer.content, answer.tokens, answer.prompt_tokens)
        assert (1.0, 2.0) == (answer.prompt_ms, answer.generation_ms)
        assert "stop" == answer.finish_reason

    async def test_chat(self, client: BackendClient) -> None:
        """Messages are sent as such."""
        await load(client)

        answer = await client.predict(
            Prediction(messages=(ChatTurn(role="user", content="hello there"),))
        )

        assert "hello there " == answer.text

    async def test_length(self, client: BackendClient) -> None:
        """A backend that does not say why it ended is taken at the number of its tokens."""
        await load(client)

        answer = await client.predict(Prediction(prompt="a b c", max_tokens=2))

        assert "length" == answer.finish_reason

    async def test_not_loaded(self, client: BackendClient) -> None:
        """The backend's own words for a failure reach the caller."""
        with pytest.raises(errors.BackendFailedError, match="fake: model not loaded"):
            await client.predict(Prediction(prompt="x"))

    async def test_other_model(self, backend: Running, client: BackendClient) -> None:
        """A backend that another owner has loaded with something else refuses the call."""
        await load(client)
        other = BackendClient(backend.address, token=TOKEN, model="m")
        await other.load(LoadOptions(model="other.gguf"))

        with pytest.raises(errors.BackendFailedError, match="model identity mismatch"):
            await client.predict(Prediction(prompt="x"))
        await other.close()

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            ("UNAVAILABLE", errors.BackendGoneError),
            ("DEADLINE_EXCEEDED", errors.OverdueError),
            ("INVALID_ARGUMENT", errors.InvalidArgumentError),
            ("UNIMPLEMENTED", errors.NotSupportedByBackendError),
            ("INTERNAL", errors.BackendFailedError),
            ("RESOURCE_EXHAUSTED", errors.BackendFailedError),
        ],
    )
    async def test_codes(
        self, client: BackendClient, code: str, expected: type[errors.LocalplaneError]
    ) -> None:
        """Each status of a backend becomes an error of the domain."""
        await load(client, f"fail:Predict={code}")

        with pytest.raises(expected):
            await client.predict(Prediction(prompt="x"))

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            ("UNAVAILABLE", errors.BackendUnavailableError),
            ("RESOURCE_EXHAUSTED", errors.TooManyRequestsError),
        ],
    )
    async def test_later(
        self, client: BackendClient, code: str, expected: type[errors.UnavailableError]
    ) -> None:
        """A backend that says when to come again is not gone; the caller hears when."""
        await load(client, f"fail:Predict={code}", "retry_after:2.5")

        with pytest.raises(expected, match=f"fake: {code.lower()}") as caught:
            await client.predict(Prediction(prompt="x"))

        assert 2.5 == caught.value.retry_after_seconds

    @pytest.mark.parametrize("when", ["soon", "nan", "-1", ""])
    async def test_later_without_a_number(self, client: BackendClient, when: str) -> None:
        """What is no number of seconds says nothing."""
        await load(client, "fail:Predict=UNAVAILABLE", f"retry_after:{when}")

        with pytest.raises(errors.BackendGoneError):
            await client.predict(Prediction(prompt="x"))

    async def test_long_message(self, client: BackendClient) -> None:
        """A backend may say more of what is wrong than gRPC takes by default; the code must not be lost over it."""
        await load(client, "fail:Predict=INVALID_ARGUMENT", "error_padding:100000")

        with pytest.raises(errors.InvalidArgumentError, match="fake: invalid_argument"):
            await client.predict(Prediction(prompt="x"))


class TestPredictStream:
    async def test_pieces(self, client: BackendClient) -> None:
        """Pieces come one by one; the last has the counts and the finish reason."""
        await load(client, "pieces:3")

        pieces = await pieces_of(client, Prediction(prompt="x"))

        assert ["0 ", "1 ", "2 ", ""] == [piece.text for piece in pieces]
        assert [None, None, None, "stop"] == [piece.finish_reason for piece in pieces]
        assert (3, 1, 1.0, 2.0) == (
            pieces[-1].tokens,
            pieces[-1].prompt_tokens,
            pieces[-1].prompt_ms,
            pieces[-1].generation_ms,
        )

    async def test_characters_are_whole(self, client: BackendClient) -> None:
        """Bytes that end inside a character wait for the rest of it."""
        await load(client, "split_bytes")

        pieces = await pieces_of(client, Prediction(prompt="aé😀"))

        assert ["a", "é", "😀", ""] == [piece.text for piece in pieces]

    async def test_plain_backend(self, client: BackendClient) -> None:
        """A backend that fills only the text is served too."""
        await load(client, "plain", "pieces:2")

        pieces = await pieces_of(client, Prediction(prompt="x"))

        assert ["0 ", "1 ", ""] == [piece.text for piece in pieces]
        assert (0, 0, "stop") == (
            pieces[-1].tokens,
            pieces[-1].prompt_tokens,
            pieces[-1].finish_reason,
        )

    async def test_death(self, client: BackendClient) -> None:
        """A backend that dies in the middle is gone; what it said before is kept."""
        await load(client, "pieces:10", "piece_seconds:0.01", "die_on_predict")
        texts = []

        async def read() -> None:
            async for piece in client.predict_stream(Prediction(prompt="x")):
                texts.append(piece.text)  # noqa: PERF401 (what came before the death counts)

        with pytest.raises(errors.BackendGoneError):
            await read()

        assert [f"{number} " for number in range(5)] == texts

    async def test_killed_while_silent(self, client: BackendClient, backend: Running) -> None:
        """A death between two pieces ends the stream at once."""
        await load(client, "pieces:2", "piece_seconds:600")
        reading = asyncio.ensure_future(pieces_of(client, Prediction(prompt="x")))
        await wait_for_state(client, "busy")

        os.kill(backend.process.pid, signal.SIGKILL)

        with pytest.raises(errors.BackendGoneError):
            await reading

    async def test_closing_cancels(self, client: BackendClient) -> None:
        """A stream that is no longer read stops the work in the backend."""
        await load(client, "pieces:100000", "piece_seconds:0.01")

        async with aclosing(client.predict_stream(Prediction(prompt="x"))) as stream:
            await anext(stream)
            assert "busy" == (await client.status(5)).reported_state

        await wait_for_state(client, "ready")


class TestOthers:
    async def test_tokens(self, client: BackendClient) -> None:
        """Text comes back from its tokens."""
        await load(client)

        tokens = await client.tokenize("né")

        assert [110, 195, 169] == tokens
        assert "né" == await client.detokenize(tokens)

    async def test_wrong_token(self, client: BackendClient) -> None:
        """A token that does not exist is the caller's mistake."""
        await load(client)

        with pytest.raises(errors.InvalidArgumentError, match="no such token"):
            await client.detokenize([256])

    async def test_embedding(self, client: BackendClient) -> None:
        """An embedding has its values and the tokens that it cost."""
        await load(client)

        vector = await client.embed("abba")

        assert [2.0, 2.0, 0, 0, 0, 0, 0, 0] == list(vector.values)
        assert 4 == vector.prompt_tokens

    async def test_metrics(self, client: BackendClient) -> None:
        """The metrics tell of the last prediction."""
        await load(client)
        await client.predict(Prediction(prompt="a b"))

        metrics = await client.metrics(5)

        assert (0, 2, 3) == (
            metrics.slot_id,
            metrics.tokens_generated,
            metrics.prompt_tokens_processed,
        )

    async def test_status_hangs(self, client: BackendClient) -> None:
        """A backend that does not answer is overdue when the time is over."""
        await load(client, "hang:Status")

        with pytest.raises(errors.OverdueError):
            await client.status(0.1)

    async def test_status_missing(self, client: BackendClient) -> None:
        """A backend without the method does not support it; the message says what."""
        await load(client, "unimplemented:Status")

        with pytest.raises(errors.NotSupportedByBackendError, match="report the status with model"):
            await client.status(5)

    async def test_free(self, client: BackendClient) -> None:
        """A freed backend has no model."""
        await load(client)

        await client.free(5)

        assert "uninitialized" == (await client.status(5)).reported_state
