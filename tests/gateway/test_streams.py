"""Streams, through a real HTTP server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
import httpx
import pytest

from gateway.fake_services import Services, failure
from gateway.gateways import error_of
from localplane_gateway import heartbeat
from served import WITHOUT_TLS

CHAT = "/v1/chat/completions"
STREAMED: dict[str, Any] = {"model": "m", "messages": [{"role": "user"}], "stream": True}


@pytest.fixture
async def web(live: AbstractAsyncContextManager[str]) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a gateway on a real port."""
    async with live as url, httpx.AsyncClient(base_url=url, verify=WITHOUT_TLS) as client:
        yield client


def contents(records: list[str]) -> list[str]:
    return [json.loads(record)["choices"][0]["delta"]["content"] for record in records]


class TestFormats:
    async def test_events(self, web: httpx.AsyncClient) -> None:
        """With `stream` in the body the answer is server-sent events, ended as OpenAI ends them."""
        response = await web.post(CHAT, json=STREAMED)

        events = response.text.removesuffix("\n\n").split("\n\n")
        assert ("text/event-stream", "no-cache") == (
            response.headers["content-type"],
            response.headers["cache-control"],
        )
        assert all(event.startswith("data: ") for event in events)
        assert ["word"] * 3 == contents([event.removeprefix("data: ") for event in events[:-1]])
        assert "data: [DONE]" == events[-1]

    async def test_lines(self, web: httpx.AsyncClient) -> None:
        """Who accepts lines of JSON gets those, and nothing else."""
        headers = {"accept": "application/x-ndjson"}

        response = await web.post(CHAT, json=STREAMED, headers=headers)

        assert "application/x-ndjson" == response.headers["content-type"]
        assert ["word"] * 3 == contents(response.text.splitlines())

    @pytest.mark.parametrize("stream", [False, None])
    async def test_plain(self, web: httpx.AsyncClient, stream: bool | None) -> None:  # noqa: FBT001
        """Without it the answer is one object."""
        response = await web.post(CHAT, json=STREAMED | {"stream": stream})

        assert "hello" == response.json()["choices"][0]["message"]["content"]

    async def test_no_messages(self, web: httpx.AsyncClient, services: Services) -> None:
        """A stream may be empty."""
        services.pieces = 0

        response = await web.post(CHAT, json=STREAMED)

        assert (200, "data: [DONE]\n\n") == (response.status_code, response.text)

    async def test_places(self, web: httpx.AsyncClient) -> None:
        """Messages that have a place tell it in a line of their own."""
        response = await web.get("/api/backend-logs/m")

        first = response.text.split("\n\n")[0].splitlines()
        assert "id: 1" == first[0]
        assert "one" == json.loads(first[1].removeprefix("data: "))["text"]

    @pytest.mark.parametrize(
        ("accept", "expected"),
        [
            ("text/plain", "text/plain; charset=utf-8"),
            ("text/plain;q=0.9, */*", "text/plain; charset=utf-8"),
            ("TEXT/PLAIN", "text/plain; charset=utf-8"),
            ("text/event-stream, text/plain", "text/event-stream"),
            ("text/plain, application/x-ndjson", "application/x-ndjson"),
            ("*/*", "text/event-stream"),
            ("", "text/event-stream"),
        ],
    )
    async def test_text(self, web: httpx.AsyncClient, accept: str, expected: str) -> None:
        """Lines of text are for who asks for text and for nothing else that there is."""
        response = await web.get("/api/backend-logs/m", headers={"accept": accept})

        assert expected == response.headers["content-type"]
        if expected.startswith("text/plain"):
            assert "one\n\ntwo\n" == response.text

    async def test_no_text(self, web: httpx.AsyncClient) -> None:
        """Messages that are more than a text are never sent as one."""
        response = await web.post(CHAT, json=STREAMED, headers={"accept": "text/plain"})

        assert "text/event-stream" == response.headers["content-type"]


class TestPlaces:
    async def test_ids(self, web: httpx.AsyncClient) -> None:
        """An event has the place of its message, in a line of its own; one without a place has none."""
        response = await web.get("/api/backends/watch")

        events = response.text.split("\n\n")
        first, second, third = [event.split("\n") for event in events[:3]]
        assert ["data"] == [line.partition(":")[0] for line in first]
        assert ["id: e-1", "id: e-2"] == [second[0], third[0]]
        assert all(line.startswith("data: {") for line in (second[1], third[1]))
        assert [""] == events[3:]

    async def test_what_the_method_is_told(
        self, web: httpx.AsyncClient, services: Services
    ) -> None:
        """It gets the place that a client sends back, and the fields of the query."""
        headers = {"last-event-id": "e-7"}

        await web.get("/api/backends/watch?after_revision=e-1&model=a&model=b%2Fc", headers=headers)

        assert "e-7" == services.metadata["x-http-last-event-id"]
        assert ("e-1", ["a", "b/c"]) == (
            services.request.after_revision,
            list(services.request.models),
        )

    async def test_error_without_a_place(self, web: httpx.AsyncClient, services: Services) -> None:
        """The record that a stream breaks off with is none of its messages."""
        services.failure = failure(grpc.StatusCode.UNAVAILABLE, "DRAINING")
        services.fails_after_pieces = 2

        events = (await web.get("/api/backends/watch")).text.split("\n\n")

        assert events[2].startswith('data: {"error":')

    async def test_head(self, web: httpx.AsyncClient) -> None:
        """HEAD tells the type of the stream and begins none."""
        response = await web.head("/api/backends/watch")

        assert (200, "text/event-stream", "") == (
            response.status_code,
            response.headers["content-type"],
            response.text,
        )


class TestFailures:
    async def test_between_lines_of_text(self, web: httpx.AsyncClient, services: Services) -> None:
        """What ends a text too early is told in its last line."""
        services.failure = failure(grpc.StatusCode.UNAVAILABLE, "DRAINING")
        services.fails_after_pieces = 2

        response = await web.get("/api/backend-logs/m", headers={"accept": "text/plain"})

        first, last = response.text.splitlines()
        assert "one" == first
        assert "DRAINING" == json.loads(last)["error"]["reason"]

    async def test_before_the_first_message(
        self, web: httpx.AsyncClient, services: Services
    ) -> None:
        """A stream that fails at once is an ordinary error."""
        services.failure = failure(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")

        error = error_of(await web.post(CHAT, json=STREAMED))

        assert (404, "MODEL_NOT_FOUND") == (error["code"], error["reason"])

    @pytest.mark.parametrize(
        ("accept", "before"), [("*/*", "data: "), ("application/x-ndjson", "")]
    )
    async def test_later(
        self, web: httpx.AsyncClient, services: Services, accept: str, before: str
    ) -> None:
        """A stream that fails later ends with a record that is the error, and is not `[DONE]`."""
        services.failure = failure(grpc.StatusCode.UNAVAILABLE, "BACKEND_GONE", exit_code="9")
        services.fails_after_pieces = 2

        response = await web.post(CHAT, json=STREAMED, headers={"accept": accept})

        records = response.text.split()
        last = response.text.strip().splitlines()[-1]
        assert 200 == response.status_code
        assert last.startswith(before)
        assert {
            "error": {
                "code": 503,
                "message": "cannot do it",
                "type": "",
                "reason": "BACKEND_GONE",
                "metadata": {"exit_code": "9"},
            }
        } == json.loads(last.removeprefix(before))
        assert "[DONE]" not in records


class TestHeartbeat:
    @pytest.mark.parametrize(
        ("accept", "beat"), [("text/event-stream", ":"), ("application/x-ndjson", "")]
    )
    async def test_silence(
        self,
        web: httpx.AsyncClient,
        services: Services,
        monkeypatch: pytest.MonkeyPatch,
        accept: str,
        beat: str,
    ) -> None:
        """A stream that has nothing to say for a while says so, between whole messages only."""
        monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.02)
        services.holds_between = True
        beats = 0
        lines = []

        headers = {"accept": accept}
        async with web.stream("POST", CHAT, json=STREAMED, headers=headers) as response:
            async for line in response.aiter_lines():
                lines.append(line)
                beats = beats + 1 if line == beat else beats
                if beats == 5:
                    services.release.set()
        messages = [line for line in lines if line.startswith(("{", "data: {"))]

        assert beats >= 5
        assert 3 == len(messages)
        assert {beat, ""} >= {line for line in lines if "{" not in line and "[DONE]" not in line}

    async def test_not_between_lines_of_text(
        self, web: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A text has no way to say nothing, so nothing is put into it, and its silence does not end it."""
        monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.01)
        services.holds_between = True
        headers = {"accept": "text/plain"}
        reading = asyncio.create_task(web.get("/api/backend-logs/m", headers=headers))
        await services.entered.wait()
        await asyncio.wait((reading,), timeout=0.2)
        services.release.set()

        assert "one\n\ntwo\n" == (await reading).text

    async def test_not_before_the_status(
        self, web: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While a call may still be refused nothing is written: the status would have to be."""
        monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.01)
        services.holds = True
        asking = asyncio.create_task(web.post(CHAT, json=STREAMED))
        await services.entered.wait()
        await asyncio.wait((asking,), timeout=0.1)
        services.release.set()

        assert (await asking).text.startswith("data: ")

    async def test_many_messages(
        self, web: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A stream that says something needs none."""
        monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.2)
        services.pieces = 100

        assert "\n:" not in (await web.post(CHAT, json=STREAMED)).text


class TestClients:
    async def test_one_that_leaves(self, web: httpx.AsyncClient, services: Services) -> None:
        """When the client closes the connection the call is cancelled, between messages too."""
        services.holds_between = True

        async with web.stream("POST", CHAT, json=STREAMED) as response:
            assert 200 == response.status_code
            await services.entered.wait()

        async with asyncio.timeout(5):
            await services.cancelled.wait()

    async def test_one_that_is_slow(
        self, live: AbstractAsyncContextManager[str], services: Services
    ) -> None:
        """A client that does not read stops the stream: it is not stored for it."""
        services.pieces = 100_000
        services.piece_text = "w" * 10_000
        body = json.dumps(STREAMED).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"

        async with live as url:
            host, port = url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
            writer.write(head.encode() + body)
            await reader.readline()
            sent = await settled(services)
            writer.close()
            async with asyncio.timeout(5):
                await services.stopped.wait()

        assert 0 < sent < services.pieces / 10

    async def test_head(self, web: httpx.AsyncClient) -> None:
        """A route that only takes POST does not take HEAD."""
        assert 405 == (await web.head(CHAT)).status_code


async def settled(services: Services) -> int:
    """Wait until a stream makes no progress, and get how far it came."""
    while True:
        before = services.sent_pieces
        # Nothing happens when nothing happens: there is no other condition to wait for.
        await asyncio.sleep(0.2)
        if before and before == services.sent_pieces:
            return before
