"""Logs of backends over every transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
import pytest_asyncio

from contract.transports import CallError, Transport
from localplane.v1 import backend_log_pb2 as log
from localplane.v1 import backend_service_pb2 as pb
from localplane_server.app import App

pytestmark = pytest.mark.asyncio(loop_scope="module")

TAIL = "BackendService.TailBackendLog"
OUTPUT = log.BACKEND_LOG_KIND_OUTPUT
STARTED = log.BACKEND_LOG_KIND_STARTED
ENDED = log.BACKEND_LOG_KIND_ENDED
LIVE = log.BACKEND_LOG_KIND_LIVE

Records = list[log.BackendLogRecord]


def tail(transport: Transport, model: str, **options: Any) -> AsyncGenerator[log.BackendLogRecord]:
    return transport.stream(TAIL, pb.TailBackendLogRequest(model=model, **options))


async def history(transport: Transport, model: str, **options: Any) -> Records:
    async with asyncio.timeout(20):
        return [record async for record in tail(transport, model, **options)]


async def load(transport: Transport, model: str) -> None:
    await transport.call("BackendService.LoadModel", pb.LoadModelRequest(model=model))


async def stop(transport: Transport, model: str) -> None:
    await transport.call("BackendService.ShutdownBackend", pb.ShutdownBackendRequest(model=model))


async def fail_to_load(transport: Transport, model: str) -> CallError:
    with pytest.raises(CallError) as caught:
        await load(transport, model)
    return caught.value


async def until(records: AsyncGenerator[log.BackendLogRecord], kind: int) -> Records:
    """Read up to the first record of a kind."""
    seen: Records = []
    async with asyncio.timeout(20):
        async for record in records:
            seen.append(record)
            if record.kind == kind:
                return seen
    raise AssertionError(seen)


class TestHistory:
    async def test_life_of_a_process(self, transport: Transport) -> None:
        """Start, words and end stand one behind the other, numbered and dated, for the process that it was."""
        await fail_to_load(transport, "dies")
        records = await history(transport, "dies")
        started = max(at for at, one in enumerate(records) if one.kind == STARTED)
        last = records[started:]

        assert [STARTED, OUTPUT, OUTPUT, ENDED] == [one.kind for one in last]
        assert "last words" == last[2].text
        assert log.BACKEND_LOG_STREAM_STDERR == last[2].stream
        assert not last[0].HasField("stream")
        assert last[3].text.endswith("ended with exit code 3")
        first = last[0].sequence
        assert list(range(first, first + 4)) == [one.sequence for one in last]
        assert 1 == len({one.pid for one in last})
        assert last[0].time.seconds <= last[3].time.seconds
        assert last[0].time.seconds > 1_600_000_000

    async def test_lines(self, transport: Transport) -> None:
        """Only so many of the last ones, and none when none are wanted."""
        await fail_to_load(transport, "dies")
        everything = await history(transport, "dies", lines=1000)

        assert everything[-2:] == await history(transport, "dies", lines=2)
        assert [] == await history(transport, "dies", lines=0)

    async def test_after_sequence(self, transport: Transport) -> None:
        """What follows a record is the same from wherever it is asked for."""
        await fail_to_load(transport, "dies")
        everything = await history(transport, "dies", after_sequence=0)
        last = everything[-1].sequence

        assert everything[-2:] == await history(transport, "dies", after_sequence=last - 2)
        assert [] == await history(transport, "dies", after_sequence=last)
        assert everything == await history(transport, "dies", after_sequence=last + 1000)

    async def test_model_that_never_ran(self, transport: Transport) -> None:
        """There is nothing to tell, which is no error; and nothing is loaded."""
        assert [] == await history(transport, "orphan")

    async def test_every_name(self, transport: Transport) -> None:
        """Every name of a model leads to its log, loaded or not."""
        await load(transport, "sub dir/deep one.gguf")
        await load(transport, "tiny")
        expected = await history(transport, "sub dir/deep one.gguf")
        assert expected == await history(transport, "sub dir__deep one.gguf")
        assert [one.sequence for one in expected]
        assert (await history(transport, "tiny", lines=3)) == (
            await history(transport, "gpt-tiny", lines=3)
        )
        await stop(transport, "tiny")
        await stop(transport, "sub dir/deep one.gguf")

        assert ENDED == (await history(transport, "gpt-tiny"))[-1].kind
        assert ENDED == (await history(transport, "sub dir/deep one.gguf"))[-1].kind

    @pytest.mark.parametrize(
        ("model", "options", "reason", "text"),
        [
            ("nobody", {}, "MODEL_NOT_FOUND", "nobody"),
            ("nobody", {"follow": True}, "MODEL_NOT_FOUND", "nobody"),
            ("../state", {}, "MODEL_NOT_FOUND", "not found"),
            (" ", {}, "INVALID_MODEL_NAME", "required"),
            ("a\nb", {}, "INVALID_MODEL_NAME", "control"),
            ("echo", {"lines": -1}, "INVALID_ARGUMENT", "lines"),
            ("echo", {"after_sequence": -1}, "INVALID_ARGUMENT", "after_sequence"),
            ("echo", {"after_sequence": 1, "lines": 1}, "INVALID_ARGUMENT", "exclude"),
        ],
    )
    async def test_refusals(
        self, transport: Transport, model: str, options: dict[str, Any], reason: str, text: str
    ) -> None:
        """What is wrong is told before anything is sent."""
        with pytest.raises(CallError, match=text) as caught:
            await history(transport, model, **options)

        assert reason == caught.value.reason

    async def test_model_whose_configuration_is_gone(
        self, transports: dict[str, Transport], app: App
    ) -> None:
        """A log outlives the configuration of its model."""
        configuration = app.scheduler._catalog.root / "short lived.yaml"
        configuration.write_text("name: short/lived\nbackend: fake\nknown_usecases: [none]\n")
        await load(transports["grpc"], "short/lived")
        await stop(transports["grpc"], "short/lived")
        configuration.unlink()

        for name in ("short/lived", "short__lived"):
            for transport in transports.values():
                assert ENDED == (await history(transport, name))[-1].kind


class TestFollow:
    async def test_over_restarts(self, transport: Transport) -> None:
        """A stream goes on when the backend ends and another is started, and misses nothing."""
        await fail_to_load(transport, "dies")
        async with aclosing(tail(transport, "dies", lines=1, follow=True)) as records:
            before = await until(records, LIVE)
            assert [ENDED, LIVE] == [one.kind for one in before]
            assert before[0].sequence == before[1].sequence
            assert not before[1].HasField("text")

            await fail_to_load(transport, "dies")
            first = await until(records, ENDED)
            await fail_to_load(transport, "dies")
            second = await until(records, ENDED)

        seen = [one.sequence for one in (before[0], *first, *second)]
        assert list(range(seen[0], seen[0] + 9)) == seen
        assert first[0].pid != second[0].pid

    async def test_model_that_never_ran(self, transport: Transport) -> None:
        """The stream begins all the same: whoever waits is told that there is nothing yet."""
        async with aclosing(tail(transport, "untold", follow=True, lines=0)) as records:
            assert [LIVE] == [one.kind for one in await until(records, LIVE)]

    async def test_many_readers(self, transports: dict[str, Transport]) -> None:
        """All who follow see the same."""
        await fail_to_load(transports["grpc"], "dies")
        streams = [
            tail(transport, "dies", lines=0, follow=True)
            for transport in transports.values()
            for _ in range(3)
        ]
        for stream in streams:
            await until(stream, LIVE)
        await fail_to_load(transports["grpc"], "dies")
        seen = [await until(stream, ENDED) for stream in streams]
        for stream in streams:
            await stream.aclose()

        assert all(one == seen[0] for one in seen)


class TestRest:
    @pytest.fixture(params=["rest", "rest-upstream"])
    def client(
        self, transports: dict[str, Any], request: pytest.FixtureRequest
    ) -> httpx.AsyncClient:
        """A client of one gateway after the other."""
        found: httpx.AsyncClient = transports[request.param]._client
        return found

    @pytest_asyncio.fixture(loop_scope="module")
    async def last(self, transports: dict[str, Transport]) -> int:
        """The sequence of the last record of a log with some."""
        await fail_to_load(transports["inprocess"], "dies")
        return (await history(transports["inprocess"], "dies"))[-1].sequence

    async def test_events(self, client: httpx.AsyncClient, last: int) -> None:
        """Events have their sequence as id; 64-bit numbers are numbers, what is unknown is null."""
        response = await client.get("/api/backend-logs/dies", params={"lines": 3})
        events = response.text.removesuffix("\n\n").split("\n\n")
        assert "text/event-stream" == response.headers["content-type"]
        ids = [int(event.splitlines()[0].removeprefix("id: ")) for event in events]
        _, said, ended = (json.loads(e.splitlines()[1].removeprefix("data: ")) for e in events)

        assert [last - 2, last - 1, last] == ids
        assert ("output", "ended") == (said["kind"], ended["kind"])
        assert (last - 1, "stderr", "last words", False) == (
            said["sequence"],
            said["stream"],
            said["text"],
            said["is_partial"],
        )
        assert ended["stream"] is None

    async def test_last_event_id(self, client: httpx.AsyncClient, last: int) -> None:
        """A browser that connects again goes on where it was, whatever its address says."""
        response = await client.get(
            "/api/backend-logs/dies",
            params={"lines": 100},
            headers={"last-event-id": str(last - 1)},
        )

        assert [f"id: {last}"] == [
            line for line in response.text.splitlines() if line.startswith("id: ")
        ]

    @pytest.mark.parametrize("given", ["-1", "x", "", "1.5", "9" * 5000])
    async def test_strange_event_id(self, client: httpx.AsyncClient, last: int, given: str) -> None:
        """An id that is none of ours is no place."""
        response = await client.get(
            "/api/backend-logs/dies", params={"lines": 1}, headers={"last-event-id": given}
        )

        assert response.text.startswith(f"id: {last}\n")

    async def test_lines_of_json(self, client: httpx.AsyncClient, last: int) -> None:
        """Who accepts lines of JSON gets those."""
        response = await client.get(
            "/api/backend-logs/dies",
            params={"lines": 2},
            headers={"accept": "application/x-ndjson"},
        )

        assert [last - 1, last] == [
            json.loads(one)["sequence"] for one in response.text.splitlines()
        ]

    async def test_plain_text(self, client: httpx.AsyncClient, last: int) -> None:
        """Who accepts plain text gets the lines and nothing else."""
        response = await client.get(
            "/api/backend-logs/dies", params={"lines": 2}, headers={"accept": "text/plain"}
        )

        assert "text/plain; charset=utf-8" == response.headers["content-type"]
        said, ended = response.text.splitlines()
        assert "last words" == said
        assert ended.endswith("ended with exit code 3")
        assert last

    async def test_stream_begins_at_once(self, client: httpx.AsyncClient) -> None:
        """Who follows a log that is empty has the head of the answer, and so knows that it works."""
        async with (
            asyncio.timeout(10),
            client.stream(
                "GET",
                "/api/backend-logs/orphan",
                params={"follow": "true"},
                headers={"accept": "text/plain"},
            ) as response,
        ):
            assert 200 == response.status_code
