"""Backends that others run, with real servers that live, die, hang and come back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foreign import ExternalProcess, external
from localplane_server.errors import (
    BackendGoneError,
    LoadFailedError,
    LocalplaneError,
    ServerTakenError,
)
from localplane_server.setting_values import Endpoint
from localplane_server.supervision import external as module
from localplane_server.supervision.calls import LoadOptions, Prediction
from localplane_server.supervision.external import ExternalBackend, ExternalServers
from localplane_server.supervision.programs import ExternalServer

OPTIONS = LoadOptions(model="weights", options=("pieces:1000", "piece_seconds:0.02"))


@pytest.fixture
def process(foreign_program: Path, tmp_path: Path) -> Iterator[ExternalProcess]:
    """A server elsewhere."""
    with external(foreign_program, tmp_path / "external.log") as process:
        yield process


@pytest.fixture
async def servers() -> ExternalServers:
    return ExternalServers(token="", models_path=Path("/models"))


def server_at(port: int, host: str = "127.0.0.1") -> ExternalServer:
    return ExternalServer(name="far", address=Endpoint(host, port))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def connected(servers: ExternalServers, process: ExternalProcess) -> ExternalBackend:
    backend = await servers.connect("m", server_at(process.port))
    await backend.load(OPTIONS)
    return backend


class TestLife:
    async def test_load_call_stop(self, servers: ExternalServers, process: ExternalProcess) -> None:
        """A model is loaded over the protocol and freed at the end; the server itself goes on."""
        backend = await connected(servers, process)
        answer = await backend.client.predict(Prediction(prompt="hello"))
        await backend.stop()

        assert "hello" == answer.text
        assert [] == backend.tree_in({})
        assert "freed weights" in process.text
        assert process.process is not None
        assert process.process.poll() is None

    async def test_old_server(
        self, servers: ExternalServers, old_program: Path, tmp_path: Path
    ) -> None:
        """One that cannot free is forgotten all the same."""
        with external(old_program, tmp_path / "log") as process:
            backend = await connected(servers, process)
            await backend.stop()
            again = await connected(servers, process)
            await again.stop()

        assert backend.exited.done()

    async def test_refusal(self, servers: ExternalServers, process: ExternalProcess) -> None:
        """A server that refuses the model is quoted, and is free for another."""
        backend = await servers.connect("m", server_at(process.port))
        with pytest.raises(LoadFailedError) as caught:
            await backend.load(LoadOptions(model="x", options=("refuse:no /models/x here",)))
        await backend.stop(free=False)
        other = await servers.connect("n", server_at(process.port))
        await other.stop()

        assert "cannot load model m: no x here" == str(caught.value)

    async def test_overdue_load_is_freed(
        self, servers: ExternalServers, process: ExternalProcess
    ) -> None:
        """A load that was given up goes on over there: it is freed once it is done."""
        backend = await servers.connect("m", server_at(process.port))
        slow = LoadOptions(model="slow", options=("load_seconds:0.5",))
        loading = asyncio.create_task(backend.load(slow))
        await until(lambda: "loading slow" in process.text)
        loading.cancel()
        await backend.stop(free=False)

        assert "freed slow" in process.text


class TestOneModelAtATime:
    async def test_second_model_is_refused(
        self, servers: ExternalServers, process: ExternalProcess
    ) -> None:
        """It does not replace the first, which is named; once that is stopped, the second has its turn."""
        first = await connected(servers, process)
        with pytest.raises(ServerTakenError) as caught:
            await servers.connect("n", server_at(process.port))
        answer = await first.client.predict(Prediction(prompt="still here"))
        await first.stop()
        second = await servers.connect("n", server_at(process.port))
        await second.stop()

        assert {"backend": "far", "model": "n", "holder": "m"} == caught.value.metadata
        assert "still here" == answer.text

    @pytest.mark.parametrize(
        ("host", "is_same"),
        [
            ("localhost", True),
            ("LOCALHOST", True),
            ("::1", True),
            ("0:0:0:0:0:0:0:1", True),
            ("::ffff:127.0.0.1", True),
            ("0.0.0.0", True),  # noqa: S104 - nothing is bound here
            ("127.0.0.2", False),
        ],
    )
    async def test_other_name_of_the_server(
        self, servers: ExternalServers, process: ExternalProcess, host: str, *, is_same: bool
    ) -> None:
        """This machine has several names, and a server on a port of it is one server under all of them."""
        backend = await connected(servers, process)
        expected = ServerTakenError if is_same else LoadFailedError
        with pytest.raises(expected):
            await servers.connect("n", server_at(process.port, host))
        await backend.stop()
        again = await connected(servers, process)
        await again.stop()

    async def test_two_at_the_same_moment(
        self, servers: ExternalServers, process: ExternalProcess
    ) -> None:
        """Of two that come together, one gets the server."""
        server = server_at(process.port)
        outcomes = await asyncio.gather(
            *(servers.connect(name, server) for name in "ab"), return_exceptions=True
        )
        backends = [one for one in outcomes if isinstance(one, ExternalBackend)]
        await backends[0].stop()

        assert [1, 1] == [len(backends), sum(isinstance(x, ServerTakenError) for x in outcomes)]


class TestUnreachable:
    async def test_nobody_listens(self, servers: ExternalServers) -> None:
        """The cause is told and the address is not; soon, and the server is free afterwards."""
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            server = server_at(reserved.getsockname()[1])
            outcomes = []
            for _ in range(2):
                with pytest.raises(LoadFailedError) as caught:
                    async with asyncio.timeout(5):
                        await servers.connect("m", server)
                outcomes.append(str(caught.value))

        expected = "the server of backend far cannot be reached: connection refused"
        assert 2 * [f"cannot load model m: {expected}"] == outcomes

    async def test_no_such_host(self, servers: ExternalServers) -> None:
        """A name that nobody has is told as that."""
        with pytest.raises(LoadFailedError, match=r"cannot be reached: .*(known|name)"):
            await servers.connect("m", server_at(9, "nobody.invalid"))

    async def test_starts_while_it_is_tried(
        self,
        servers: ExternalServers,
        process: ExternalProcess,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A server that is just starting anew is waited for."""
        monkeypatch.setattr(module, "REFUSED_SECONDS", 30.0)
        process.kill()
        connecting = asyncio.create_task(servers.connect("m", server_at(process.port)))
        await asyncio.sleep(0)
        await asyncio.to_thread(process.start)
        backend = await connecting
        await backend.stop()

    async def test_something_else_listens(self, servers: ExternalServers) -> None:
        """What does not speak the protocol is told apart from what is not there."""

        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as other:
            port = other.sockets[0].getsockname()[1]
            with pytest.raises(LoadFailedError, match="answers no call: it hangs, or is"):
                await servers.connect("m", server_at(port))

    async def test_hanging_server(
        self,
        servers: ExternalServers,
        process: ExternalProcess,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """One that accepts connections and never answers is given up."""
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
        process.hang()
        with pytest.raises(LoadFailedError, match="answers no call: it hangs, or is"):
            await servers.connect("m", server_at(process.port))
        process.go_on()
        backend = await servers.connect("m", server_at(process.port))
        await backend.stop()

    async def test_caller_goes_away(
        self, servers: ExternalServers, process: ExternalProcess
    ) -> None:
        """A connection that nobody waits for any more holds nothing."""
        process.hang()
        connecting = asyncio.create_task(servers.connect("m", server_at(process.port)))
        await asyncio.sleep(0.05)
        connecting.cancel()
        await asyncio.wait((connecting,))
        process.go_on()
        other = await servers.connect("n", server_at(process.port))
        await other.stop()

    async def test_token(self, foreign_program: Path, tmp_path: Path) -> None:
        """A server that wants a token gets it; a wrong one is told."""
        with external(foreign_program, tmp_path / "log", LOCALAI_GRPC_AUTH_TOKEN="x") as process:
            wrong = ExternalServers(token="y", models_path=tmp_path)
            with pytest.raises(LoadFailedError, match="invalid token"):
                await wrong.connect("m", server_at(process.port))
            right = ExternalServers(token="x", models_path=tmp_path)
            backend = await right.connect("m", server_at(process.port))
            await backend.stop()


class TestLost:
    async def test_killed(self, servers: ExternalServers, process: ExternalProcess) -> None:
        """The end is seen at once, and what comes back takes a model anew."""
        backend = await connected(servers, process)
        process.kill()
        async with asyncio.timeout(2):
            await asyncio.shield(backend.exited)
        await backend.stop(free=False)
        await asyncio.to_thread(process.start)
        again = await connected(servers, process)
        await again.stop()

        assert "the server of backend far is gone: the connection broke" == backend.ended()
        assert not backend.is_stopping

    async def test_killed_during_a_call(
        self, servers: ExternalServers, process: ExternalProcess
    ) -> None:
        """The call ends with that."""
        backend = await connected(servers, process)
        pieces = backend.client.predict_stream(Prediction(prompt="x"))
        await anext(pieces)
        process.kill()
        with pytest.raises(BackendGoneError):
            async for _ in pieces:
                pass
        await backend.wait_for_end(5)
        await backend.stop(free=False)

        assert backend.exited.done()

    async def test_killed_while_loading(
        self, servers: ExternalServers, process: ExternalProcess
    ) -> None:
        """The load fails for that cause, without its time limit."""
        backend = await servers.connect("m", server_at(process.port))
        slow = LoadOptions(model="slow", options=("load_seconds:60",))
        loading = asyncio.create_task(backend.load(slow))
        await until(lambda: "loading slow" in process.text)
        process.kill()
        with pytest.raises(LoadFailedError, match="far is gone: the connection broke"):
            async with asyncio.timeout(5):
                await loading
        await backend.stop(free=False)

    async def test_hang_is_no_end(self, servers: ExternalServers, process: ExternalProcess) -> None:
        """A server that hangs for a while has its model still."""
        backend = await connected(servers, process)
        process.hang()
        with pytest.raises(LocalplaneError):
            await backend.client.status(0.2)
        process.go_on()
        report = await backend.client.status(5)
        await backend.stop()

        assert "ready" == report.reported_state

    async def test_stop_of_a_hanging_server(
        self, servers: ExternalServers, process: ExternalProcess
    ) -> None:
        """A stop ends in time whatever the server does."""
        backend = await connected(servers, process)
        process.hang()
        async with asyncio.timeout(2):
            await backend.stop(within_seconds=0.5)

    async def test_host_without_a_network(
        self,
        servers: ExternalServers,
        process: ExternalProcess,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A host that says nothing any more, not even that it ended, counts as gone after a few looks."""
        backend = await connected(servers, process)
        await backend.stop()
        looks = 0

        async def unreachable(_address: Endpoint, _seconds: float) -> str | None:
            nonlocal looks
            looks += 1
            return None if looks in (1, 3) else "cannot be reached within 5 s"

        monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
        backend = await connected(servers, process)
        looks = 1
        monkeypatch.setattr(module, "_problem_with", unreachable)
        async with asyncio.timeout(5):
            ending = await asyncio.shield(backend.exited)
        await backend.stop(free=False)

        assert (6, "cannot be reached within 5 s") == (looks, ending)

    async def test_nothing_is_left(
        self, servers: ExternalServers, process: ExternalProcess
    ) -> None:
        """Connecting and stopping many times leaves no task behind."""
        before = len(asyncio.all_tasks())
        for _ in range(20):
            await (await servers.connect("m", server_at(process.port))).stop()

        assert before == len(asyncio.all_tasks())
