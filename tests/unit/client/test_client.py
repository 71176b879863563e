"""Both clients, against a server over a socket file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from localplane_client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InvalidTargetError,
    NotFoundError,
    NotReachableError,
    UnavailableError,
    text_of,
)
from localplane_client.calling import TIMEOUT_SECONDS
from unit.client.fake_service import Inference, Models, service

Served = tuple[str, Models, Inference]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with service(tmp_path) as parts:
        yield parts


class TestUnary:
    def test_blocking(self, served: Served) -> None:
        """A call returns the message."""
        with Client(served[0]) as client:
            assert "x" == client.get_model("x").name

    async def test_async(self, served: Served) -> None:
        """The same method of the other client is awaited."""
        async with AsyncClient(served[0]) as client:
            assert "x" == (await client.get_model("x")).name

    def test_error(self, served: Served) -> None:
        """An error is an exception that says all that the service said."""
        with Client(served[0]) as client, pytest.raises(NotFoundError) as caught:
            client.get_model("missing")

        error = caught.value
        assert (
            "MODEL_NOT_FOUND",
            grpc.StatusCode.NOT_FOUND,
            {"model": "missing"},
            None,
            "/localplane.v1.ModelService/GetModel",
            "r1",
        ) == (
            error.reason,
            error.code,
            error.metadata,
            error.retry_after,
            error.method,
            error.request_id,
        )
        assert error.message.startswith('model "missing" not found')

    async def test_async_error(self, served: Served) -> None:
        """The other client raises the same, with the time after which to try again."""
        async with AsyncClient(served[0]) as client:
            with pytest.raises(UnavailableError) as caught:
                await client.get_model("draining")

        assert ("DRAINING", 2.5, "on its way out") == (
            caught.value.reason,
            caught.value.retry_after,
            caught.value.message,
        )
        assert not isinstance(caught.value, NotReachableError)


class TestDeadlines:
    def test_own(self, served: Served) -> None:
        """A call that answers at once has a deadline although nobody gave one."""
        with Client(served[0]) as client:
            client.get_model("x")

        assert served[1].remaining is not None
        # gRPC writes a timeout in few digits and rounds it up, so that a little more may arrive.
        assert 0 < served[1].remaining < 1.05 * TIMEOUT_SECONDS

    def test_given(self, served: Served) -> None:
        """A deadline that passes is an error of its own, and the client works on without it."""
        with Client(served[0]) as client:
            with pytest.raises(DeadlineExceededError) as caught:
                client.with_timeout(0.05).get_model("slow")
            after = client.get_model("x").name

        assert "DEADLINE_EXCEEDED" == caught.value.reason
        assert "x" == after

    async def test_given_async(self, served: Served) -> None:
        """The same."""
        async with AsyncClient(served[0], timeout=0.05) as client:
            with pytest.raises(DeadlineExceededError):
                await client.get_model("slow")


class TestStream:
    def test_blocking(self, served: Served) -> None:
        """Pieces come in order, and the iteration ends."""
        with Client(served[0]) as client, client.chat_stream("one two") as pieces:
            assert ["one", "two"] == [text_of(piece) for piece in pieces]

    async def test_async(self, served: Served) -> None:
        """The same."""
        async with AsyncClient(served[0]) as client, client.chat_stream("one two") as pieces:
            assert ["one", "two"] == [text_of(piece) async for piece in pieces]

    def test_leaving_cancels(self, served: Served) -> None:
        """Who leaves the context ends the call at the server too."""
        with (
            Client(served[0]) as client,
            client.chat_stream("one", model="endless") as pieces,
        ):
            next(pieces)
            assert not served[2].has_ended.is_set()

            pieces.cancel()

            assert [] == list(pieces)
            assert served[2].has_ended.wait(10)

    async def test_leaving_cancels_async(self, served: Served) -> None:
        """The same, and the task that reads is not taken for cancelled."""
        async with (
            AsyncClient(served[0]) as client,
            client.chat_stream("one", model="endless") as pieces,
        ):
            await anext(pieces)

            pieces.cancel()

            assert [] == [piece async for piece in pieces]
            assert await asyncio.to_thread(served[2].has_ended.wait, 10)

    async def test_cancelled_reader(self, served: Served) -> None:
        """A task that is cancelled while it reads is cancelled, and so is the call."""
        async with AsyncClient(served[0]) as client:
            pieces = client.chat_stream("one", model="endless")
            await anext(pieces)
            reading = asyncio.ensure_future(anext(pieces))
            await asyncio.sleep(0)

            reading.cancel()

            with pytest.raises(asyncio.CancelledError):
                await reading
            assert await asyncio.to_thread(served[2].has_ended.wait, 10)

    def test_error_in_the_middle(self, served: Served) -> None:
        """What came before an error is there, then the error is raised."""
        with Client(served[0]) as client, client.chat_stream("one", model="breaks") as pieces:
            first = text_of(next(pieces))
            with pytest.raises(UnavailableError) as caught:
                next(pieces)

        assert ("one", "DRAINING") == (first, caught.value.reason)

    async def test_error_in_the_middle_async(self, served: Served) -> None:
        """The same."""
        async with AsyncClient(served[0]) as client:
            pieces = client.chat_stream("one", model="breaks")
            await anext(pieces)
            with pytest.raises(UnavailableError):
                await anext(pieces)

    def test_request(self, served: Served) -> None:
        """Messages and options are the request's, tools and all."""
        messages = [{"role": "system", "content": "short"}, {"role": "user", "content": "one"}]
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        with Client(served[0]) as client:
            list(
                client.chat_stream(
                    messages, model="m", temperature=0.5, stop=["x"], tools=[tool], max_tokens=3
                )
            )

        sent = served[2].request
        assert sent is not None
        assert ("m", 0.5, ["x"], 3) == (
            sent.model,
            sent.temperature,
            list(sent.stop),
            sent.max_tokens,
        )
        assert ["short", "one"] == [one.content.string_value for one in sent.messages]
        assert "f" == sent.tools[0].fields["function"].struct_value.fields["name"].string_value
        assert not sent.HasField("seed")


class TestKey:
    def test_is_presented(self, served: Served) -> None:
        """A key goes with every call."""
        with Client(served[0], api_key="k") as client:
            client.get_model("x")

        assert "Bearer k" == served[1].authorization

    def test_from_environment(self, served: Served) -> None:
        """The service and the key are those that the environment names."""
        told = {"LOCALPLANE_GRPC": served[0], "LOCALPLANE_API_KEY": "first, second"}
        with Client.from_environment(told) as client:
            client.get_model("x")

        assert "Bearer first" == served[1].authorization


class TestNobodyThere:
    def test_blocking(self, tmp_path: Path) -> None:
        """Where nobody listens the error says so, and where."""
        target = f"unix:{tmp_path / 'nobody'}"
        with Client(target) as client, pytest.raises(NotReachableError) as caught:
            client.get_version()

        assert "NOT_REACHABLE" == caught.value.reason
        assert caught.value.message.startswith(f"cannot reach {target}: ")

    async def test_async(self, tmp_path: Path) -> None:
        """The same."""
        async with AsyncClient(f"unix:{tmp_path / 'nobody'}") as client:
            with pytest.raises(NotReachableError):
                await client.get_version()


def test_wrong_target() -> None:
    """A target that cannot be one is refused before anything is called."""
    with pytest.raises(InvalidTargetError):
        Client("somewhere")


def test_async_client_outside_of_a_loop() -> None:
    """A client that would belong to no event loop is refused."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        AsyncClient()
