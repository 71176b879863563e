"""Watching over every transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from contract.transports import CallError, RestTransport, Transport
from localplane.v1 import backend_pb2 as b
from localplane.v1 import backend_service_pb2 as pb
from localplane.v1 import inference_service_pb2
from localplane.v1 import token_metrics_service_pb2 as tpb
from localplane.v1 import watch_pb2 as w
from localplane_server.app import App
from localplane_server.scheduling import monitor
from localplane_server.scheduling.backend_feed import SeenBackend
from localplane_server.scheduling.snapshots import BackendSnapshot, BackendState
from localplane_server.watching import feed

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_SECONDS = 20.0
BACKENDS, TOKENS = "BackendService.WatchBackends", "TokenMetricsService.WatchTokenMetrics"
REQUESTS: dict[str, Any] = {
    BACKENDS: pb.WatchBackendsRequest,
    TOKENS: tpb.WatchTokenMetricsRequest,
}
both = pytest.mark.parametrize("method", [BACKENDS, TOKENS])

Backends = AsyncGenerator[pb.WatchBackendsResponse]


@pytest.fixture(scope="module", autouse=True)
def _quick_samples() -> Iterator[None]:
    """Process trees are sampled more often than otherwise, so that no test waits for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monitor, "SAMPLE_SECONDS", 0.5)
        yield


def watch(transport: Transport, method: str = BACKENDS, **options: Any) -> Any:
    """Return a stream that ends with its block, and breaks off when nothing comes."""
    return aclosing(in_time(transport.stream(method, REQUESTS[method](**options))))


async def in_time(stream: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
    async with aclosing(stream):
        while True:
            async with asyncio.timeout(PATIENCE_SECONDS):
                try:
                    message = await anext(stream)
                except StopAsyncIteration:
                    return
            yield message


async def load(transport: Transport, model: str) -> None:
    await transport.call("BackendService.LoadModel", pb.LoadModelRequest(model=model))


async def stop(transport: Transport, model: str) -> None:
    request = pb.ShutdownBackendRequest(model=model, force=True)
    await transport.call("BackendService.ShutdownBackend", request)


async def refusal(transport: Transport, method: str = BACKENDS, **options: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        async with watch(transport, method, **options) as stream:
            await anext(stream)
    return caught.value


async def told(stream: Backends, model: str, state: b.BackendState.ValueType) -> b.Backend:
    """Read on until a backend is in a state."""
    async for message in stream:
        for one in message.backends:
            if (one.model, one.state) == (model, state):
                return one
    raise AssertionError("the stream has ended")


async def gone(stream: Backends, model: str) -> None:
    """Read on until a backend is gone."""
    async for message in stream:
        if model in message.removed:
            return


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nobody_is_left(app: App) -> AsyncGenerator[None]:
    """Whoever watched in a test has been let go after it."""
    yield
    async with asyncio.timeout(PATIENCE_SECONDS):
        while app.backends.watchers or app.tokens.watchers:
            await asyncio.sleep(0.01)


def without_figures(backends: Iterable[b.Backend]) -> list[b.Backend]:
    """Leave out what is sampled, which may be another sample the next time."""
    found = []
    for one in backends:
        copy = b.Backend()
        copy.CopyFrom(one)
        for field in ("memory_info", "memory_percent", "cpu_percent", "sampled_at"):
            copy.ClearField(field)
        found.append(copy)
    return found


def seen(number: int) -> SeenBackend:
    """A backend that there is not."""
    snapshot = BackendSnapshot(
        model=f"made-up-{number}",
        backend="fake",
        state=BackendState.READY,
        pid=None,
        in_flight=0,
        last_error=None,
        restarts=number,
        loaded_at=None,
        last_used=None,
    )
    return SeenBackend(snapshot=snapshot, sample=None)


class TestWatchBackends:
    async def test_life(self, transport: Transport) -> None:
        """A snapshot, then every state from the start of the process to its end."""
        states: list[int] = []
        async with watch(transport) as stream:
            first = await anext(stream)
            loading = asyncio.create_task(load(transport, "echo"))
            async for message in stream:
                assert w.WATCH_KIND_CHANGES == message.kind
                # Who waits for it is told too, so a state may come twice.
                states += [
                    one.state
                    for one in message.backends
                    if one.model == "echo" and [one.state] != states[-1:]
                ]
                if states[-1:] == [b.BACKEND_STATE_READY]:
                    break
            await loading
            stopping = asyncio.create_task(stop(transport, "echo"))
            await told(stream, "echo", b.BACKEND_STATE_STOPPING)
            await gone(stream, "echo")
            await stopping

        assert (w.WATCH_KIND_SNAPSHOT, []) == (first.kind, list(first.removed))
        assert first.revision
        assert [
            b.BACKEND_STATE_STARTING,
            b.BACKEND_STATE_LOADING,
            b.BACKEND_STATE_READY,
        ] == states

    async def test_snapshot_is_the_list(self, transport: Transport) -> None:
        """The snapshot has what the list has, field for field, once the calls before it were told."""
        await load(transport, "echo")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                async with watch(transport) as stream:
                    first = await anext(stream)
                request = pb.ListBackendsRequest()
                listed = await transport.call("BackendService.ListBackends", request)
                snapshot = sorted(first.backends, key=lambda one: one.model)
                if without_figures(snapshot) == without_figures(listed.backends):
                    break
                await asyncio.sleep(0.01)
        await stop(transport, "echo")

        assert "echo" in [one.model for one in snapshot]

    async def test_calls(self, transport: Transport) -> None:
        """Calls that begin and end are told."""
        await load(transport, "slow")
        async with watch(transport, models=["slow"]) as stream:
            await anext(stream)
            request = inference_service_pb2.CompleteRequest(model="slow", prompt=["x"])
            async with aclosing(transport.stream("InferenceService.CompleteStream", request)) as x:
                await anext(x)
                busy = await told(stream, "slow", b.BACKEND_STATE_BUSY)
            ready = await told(stream, "slow", b.BACKEND_STATE_READY)
        await stop(transport, "slow")

        assert (1, 0) == (busy.in_flight, ready.in_flight)
        assert ready.HasField("last_used")

    async def test_failure(self, transport: Transport) -> None:
        """A backend that fails is told with its cause."""
        async with watch(transport) as stream:
            await anext(stream)
            with pytest.raises(CallError):
                await load(transport, "dies")
            failed = await told(stream, "dies", b.BACKEND_STATE_FAILED)

        assert "exit code 3" in failed.last_error

    async def test_figures(self, transport: Transport) -> None:
        """The figures of the operating system come whenever they were sampled."""
        await load(transport, "echo")
        sampled = []
        async with watch(transport, models=["echo"]) as stream:
            async for message in stream:
                sampled += [one for one in message.backends if one.HasField("cpu_percent")]
                if len({one.sampled_at.ToNanoseconds() for one in sampled}) == 2:
                    break
        await stop(transport, "echo")

        assert sampled[0].memory_info.rss > 0
        assert sampled[0].memory_percent > 0

    async def test_selection(self, transport: Transport) -> None:
        """Who names models, by whichever name, hears of those alone, also of one that is not there yet."""
        async with watch(transport, models=["gpt-tiny", "nobody"]) as stream:
            first = await anext(stream)
            await load(transport, "echo")
            await load(transport, "tiny")
            names = set()
            async for message in stream:
                names |= {one.model for one in message.backends}
                if any(one.state == b.BACKEND_STATE_READY for one in message.backends):
                    break
        await stop(transport, "echo")
        await stop(transport, "tiny")

        assert not first.backends
        assert {"tiny"} == names


class TestResume:
    async def test_goes_on(self, transport: Transport) -> None:
        """What happened while nobody watched comes first, and nothing else."""
        await load(transport, "echo")
        async with watch(transport) as stream:
            place = (await anext(stream)).revision
        await load(transport, "mute")
        await stop(transport, "echo")
        async with watch(transport, after_revision=place) as stream:
            first = await anext(stream)
        async with watch(transport, after_revision=first.revision, models=["nobody"]) as stream:
            nothing = await anext(stream)
        await stop(transport, "mute")

        assert w.WATCH_KIND_CHANGES == first.kind
        assert (["mute"], ["echo"]) == (
            [one.model for one in first.backends if one.model in ("mute", "echo")],
            list(first.removed),
        )
        assert w.WATCH_KIND_CHANGES == nothing.kind
        assert not nothing.backends

    @both
    @pytest.mark.parametrize("place", ["0123456789ab-3", "a-0"])
    async def test_another_life(self, transport: Transport, method: str, place: str) -> None:
        """A revision from before a restart gets everything anew, and is told so."""
        async with watch(transport, method, after_revision=place) as stream:
            first = await anext(stream)

        assert w.WATCH_KIND_RESYNC == first.kind
        assert place.partition("-")[0] != first.revision.partition("-")[0]

    @both
    async def test_future(self, transport: Transport, method: str) -> None:
        """So does one that has not been yet."""
        async with watch(transport, method) as stream:
            epoch = (await anext(stream)).revision.partition("-")[0]
        async with watch(transport, method, after_revision=f"{epoch}-{10**17}") as stream:
            assert w.WATCH_KIND_RESYNC == (await anext(stream)).kind

    @both
    @pytest.mark.parametrize("place", ["17", "x-", "a-b", " a-1"])
    async def test_none(self, transport: Transport, method: str, place: str) -> None:
        """What cannot be a revision is refused, and the field named."""
        error = await refusal(transport, method, after_revision=place)

        assert ("INVALID_ARGUMENT", "after_revision") == (error.reason, error.metadata["field"])

    async def test_too_old(self, transport: Transport, app: App) -> None:
        """So does one from before the removals that are remembered."""
        async with watch(transport) as stream:
            place = (await anext(stream)).revision
        come_and_go(app)
        async with watch(transport, after_revision=place) as stream:
            assert w.WATCH_KIND_RESYNC == (await anext(stream)).kind


def come_and_go(app: App) -> None:
    """Have more backends come and go than are remembered."""
    for number in range(feed.REMEMBERED_REMOVALS + 1):
        app.backends.put(f"made-up-{number}", seen(number))
        app.backends.remove(f"made-up-{number}")


async def test_slow_reader(transport: Transport, app: App) -> None:
    """One for whom too much happened at once is told to begin anew, and then hears of changes as before."""
    async with watch(transport) as stream:
        await anext(stream)
        come_and_go(app)
        app.backends.put("made-up-0", seen(0))
        anew = await anext(stream)
        app.backends.put("made-up-0", seen(1))
        change = await anext(stream)
        app.backends.remove("made-up-0")

    assert w.WATCH_KIND_RESYNC == anew.kind
    assert "made-up-0" in [one.model for one in anew.backends]
    assert (w.WATCH_KIND_CHANGES, 1) == (change.kind, change.backends[0].restarts)


class TestWatchTokenMetrics:
    async def test_predictions(self, transport: Transport) -> None:
        """The list first; then a prediction is told once it has ended."""
        async with watch(transport, TOKENS, models=["echo"]) as stream:
            first = await anext(stream)
            request = inference_service_pb2.CompleteRequest(model="echo", prompt=["a b c"])
            await transport.call("InferenceService.Complete", request)
            before = first.models[0].total.completions if first.models else 0
            async for message in stream:
                if message.models[0].total.completions > before:
                    break
        listed = await transport.call(
            "TokenMetricsService.ListTokenMetrics", tpb.ListTokenMetricsRequest()
        )
        of_echo = next(one for one in listed.models if one.model == "echo")

        assert of_echo.total == message.models[0].total
        assert message.models[0].loaded
        assert listed.epoch == message.epoch == first.epoch

    async def test_loaded(self, transport: Transport) -> None:
        """Whether a model that was asked once is loaded is told when it changes."""
        request = inference_service_pb2.CompleteRequest(model="echo", prompt=["a b c"])
        await transport.call("InferenceService.Complete", request)
        async with watch(transport, TOKENS, models=["echo"]) as stream:
            async for message in stream:
                if message.models and message.models[0].loaded:
                    await stop(transport, "echo")
                    break
            async for message in stream:
                if not message.models[0].loaded:
                    break

        assert "echo" == message.models[0].model


class TestRefusals:
    @both
    @pytest.mark.parametrize("name", ["", " ", "a\n", "x" * 256])
    async def test_bad_name(self, transport: Transport, method: str, name: str) -> None:
        """What cannot be a model's name is told apart from one that there is not."""
        assert "INVALID_MODEL_NAME" == (await refusal(transport, method, models=[name])).reason

    @both
    async def test_many_names(self, transport: Transport, method: str) -> None:
        """There is an end to the names of one watch."""
        error = await refusal(transport, method, models=[f"m{number}" for number in range(257)])

        assert ("INVALID_ARGUMENT", "256") == (error.reason, error.metadata["limit"])

    @both
    async def test_many_watchers(
        self, transport: Transport, app: App, method: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There is an end to the watchers, and place again once one has gone."""
        feed = app.backends if method == BACKENDS else app.tokens
        monkeypatch.setattr(feed, "_most_watchers", 1)
        async with watch(transport, method) as stream:
            await anext(stream)
            error = await refusal(transport, method)
        while feed.watchers:
            await asyncio.sleep(0.01)
        async with watch(transport, method) as stream:
            assert (await anext(stream)).revision

        assert "TOO_MANY_REQUESTS" == error.reason
        assert error.code in (429, grpc.StatusCode.RESOURCE_EXHAUSTED)


@pytest.mark.parametrize("transport", ["rest", "rest-upstream"], indirect=True)
class TestEvents:
    async def test_ids(self, transport: RestTransport) -> None:
        """An event has its revision as its identifier, and what a browser sends back goes on there."""
        await load(transport, "echo")
        first = await event(transport._client)
        await stop(transport, "echo")
        again = await event(transport._client, **{"last-event-id": first["id"]})
        # The query of the first time stays; the header is newer.
        query = "?after_revision=0123-1"
        newer = await event(transport._client, query, **{"last-event-id": first["id"]})

        assert first["id"] == first["data"]["revision"]
        assert "snapshot" == first["data"]["kind"]
        assert ("changes", ["echo"]) == (again["data"]["kind"], again["data"]["removed"])
        assert "changes" == newer["data"]["kind"]

    @pytest.mark.parametrize("place", ["-1", "17", "x" * 999, "a-1"])
    async def test_strange_id(self, transport: RestTransport, place: str) -> None:
        """What is no revision of ours does not stop a browser for ever: it gets everything."""
        first = await event(transport._client, **{"last-event-id": place})

        assert first["data"]["kind"] in ("snapshot", "resync")

    async def test_lines(self, transport: RestTransport) -> None:
        """Who asks for lines of JSON gets the same without identifiers."""
        headers = {"accept": "application/x-ndjson"}
        async with transport._client.stream("GET", "/api/backends/watch", headers=headers) as got:
            line = await anext(got.aiter_lines())

        assert "application/x-ndjson" == got.headers["content-type"]
        assert {"revision", "kind", "backends", "removed"} == json.loads(line).keys()


async def event(client: httpx.AsyncClient, query: str = "", **headers: str) -> dict[str, Any]:
    """Return the first event of a watch of the backends."""
    found: dict[str, Any] = {}
    path = f"/api/backends/watch{query}"
    async with client.stream("GET", path, headers=headers) as response:
        assert "text/event-stream" == response.headers["content-type"]
        async for line in response.aiter_lines():
            if not line:
                break
            name, _, value = line.partition(": ")
            found[name] = json.loads(value) if name == "data" else value
    return found
