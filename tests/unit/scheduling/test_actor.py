"""The life of one model's backend, with a backend that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from localplane_server import events
from localplane_server.errors import (
    BackendGoneError,
    BackendNotInstalledError,
    DrainingError,
    LoadFailedError,
    LocalplaneError,
    ModelNotLoadedError,
)
from localplane_server.models.configuration import ModelConfig
from localplane_server.scheduling.actor import BackendState, ModelActor, StopReport
from localplane_server.scheduling.tasks import DetachedTasks

MODEL = ModelConfig(name="m", backend="fake")


class FakeBackend:
    """A backend of which tests decide when it stops and when it dies."""

    pid = 7

    def __init__(self) -> None:
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.client = object()
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self.is_stopping = False
        self.stops: list[bool] = []

    async def stop(
        self, *, free: bool = True, cut_calls: bool = False, within_seconds: float | None = None
    ) -> int:
        self.is_stopping = True
        self.stops.append(free)
        await self.may_stop.wait()
        return 1000

    async def wait_for_end(self, seconds: float) -> None:
        await asyncio.wait((self.exited,), timeout=seconds)

    def ended(self) -> str:
        return f"the backend ended with {self.exited.result()}"

    async def log_lines(self) -> list[str]:
        return ["last words"]


class FakeStart:
    """Starts backends when the test lets it."""

    def __init__(self) -> None:
        self.may_finish = asyncio.Event()
        self.may_finish.set()
        self.error: LocalplaneError | None = None
        self.fault: Exception | None = None
        self.backends: list[FakeBackend] = []

    async def __call__(self, model: ModelConfig, on_started: Callable[[Any], None]) -> Any:
        if isinstance(self.error, BackendNotInstalledError):
            raise self.error
        backend = FakeBackend()
        self.backends.append(backend)
        on_started(backend)
        try:
            await self.may_finish.wait()
            if self.fault is not None:
                raise self.fault
            if self.error is not None:
                raise self.error
        except BaseException:
            await backend.stop(free=False)
            raise
        return backend


class Stage:
    """An actor with everything around it."""

    def __init__(self) -> None:
        self.start = FakeStart()
        self.bus = events.Events()
        self.detached = DetachedTasks()
        self.actor = ModelActor(MODEL, start=self.start, run=self.detached, bus=self.bus)
        self.heard: list[Any] = []
        for kind in (events.BackendReady, events.BackendFailed, events.BackendStopped):
            self.bus.listen(kind, self.heard.append)

    @property
    def backend(self) -> FakeBackend:
        return self.start.backends[-1]

    async def load(self) -> None:
        await self.actor.load(MODEL)

    async def stop(self, **options: Any) -> StopReport:
        return await self.actor.stop(
            force=options.get("force", False), grace_seconds=options.get("grace_seconds", 60.0)
        )


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    await stage.detached.close()


async def settle() -> None:
    """Let everything run that can run."""
    for _ in range(10):
        await asyncio.sleep(0)


class TestLoad:
    async def test_states_on_the_way(self, stage: Stage) -> None:
        """Stopped, starting, loading, ready."""
        stage.start.may_finish.clear()
        seen = [stage.actor.state]
        stage.actor.begin_load(MODEL)
        seen.append(stage.actor.state)
        await settle()
        seen.append(stage.actor.state)
        stage.start.may_finish.set()
        await settle()
        seen.append(stage.actor.state)

        assert [
            BackendState.STOPPED,
            BackendState.STARTING,
            BackendState.LOADING,
            BackendState.READY,
        ] == seen

    async def test_many_callers_one_load(self, stage: Stage) -> None:
        """Whoever comes meanwhile waits for the same load; one who goes away does not end it."""
        stage.start.may_finish.clear()
        loads = [asyncio.create_task(stage.load()) for _ in range(5)]
        await settle()
        loads[0].cancel()
        await settle()
        stage.start.may_finish.set()
        outcomes = await asyncio.gather(*loads, return_exceptions=True)

        assert 1 == len(stage.start.backends)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert [None] * 4 == outcomes[1:]

    async def test_failure_reaches_all_and_the_next_tries_again(self, stage: Stage) -> None:
        """Everybody who waited hears it; whoever comes later gets a new start, counted as a restart."""
        stage.start.error = LoadFailedError("no", model="m")
        outcomes = await asyncio.gather(stage.load(), stage.load(), return_exceptions=True)
        assert [stage.start.error] * 2 == list(outcomes)
        assert (BackendState.FAILED, "no") == (
            stage.actor.state,
            stage.actor.snapshot().last_error,
        )

        stage.start.error = None
        await stage.load()

        snapshot = stage.actor.snapshot()
        assert (BackendState.READY, 1, None) == (
            snapshot.state,
            snapshot.restarts,
            snapshot.last_error,
        )

    async def test_fault_of_ours(self, stage: Stage) -> None:
        """An error that nobody foresaw fails the load; it does not look loaded, and the next load works."""
        stage.start.fault = ValueError("a secret")
        with pytest.raises(LoadFailedError, match="internal error"):
            await stage.load()
        assert "failed" == stage.actor.state.value

        stage.start.fault = None
        await stage.load()

        assert "ready" == stage.actor.state.value

    async def test_outcome_is_of_the_load_that_was_waited_for(self, stage: Stage) -> None:
        """Somebody who begins the next load meanwhile does not make the failed one a success."""
        stage.start.error = LoadFailedError("no", model="m")
        loading = asyncio.create_task(stage.load())
        stage.bus.listen(events.BackendFailed, lambda _: self._again(stage))
        with pytest.raises(LoadFailedError, match="no"):
            await loading

    def _again(self, stage: Stage) -> None:
        stage.start.error = None
        stage.detached(asyncio.sleep(0))
        asyncio.get_running_loop().call_soon(stage.actor.begin_load, MODEL)

    async def test_none_after_close(self, stage: Stage) -> None:
        """Who waited for a stop to load again is refused once the service stops."""
        await stage.load()
        stage.backend.may_stop.clear()
        closing = asyncio.create_task(stage.actor.close(grace_seconds=0.0, end_seconds=1.0))
        await settle()
        loading = asyncio.create_task(stage.load())
        await settle()
        stage.backend.may_stop.set()
        await closing

        with pytest.raises(DrainingError):
            await loading

    async def test_what_is_not_installed_is_no_failed_backend(self, stage: Stage) -> None:
        """Nothing was started, so nothing has failed."""
        stage.start.error = BackendNotInstalledError("x", "m")
        with pytest.raises(BackendNotInstalledError):
            await stage.load()

        assert (BackendState.STOPPED, []) == (stage.actor.state, stage.heard)


class TestLease:
    async def test_counts_calls(self, stage: Stage) -> None:
        """Busy until the last call has ended."""
        await stage.load()
        async with stage.actor.lease() as client:
            assert stage.backend.client is client
            assert (BackendState.BUSY, 1) == (stage.actor.state, stage.actor.snapshot().in_flight)

        assert BackendState.READY is stage.actor.state
        assert stage.actor.snapshot().last_used is not None

    async def test_not_loaded(self, stage: Stage) -> None:
        """There is nothing to lend."""
        with pytest.raises(ModelNotLoadedError):
            async with stage.actor.lease():
                pass

    async def test_backend_dies_during_a_call(self, stage: Stage) -> None:
        """The call is told how the backend ended and what it wrote last."""
        await stage.load()
        with pytest.raises(BackendGoneError, match=r"signal 9.*last words") as caught:  # noqa: PT012
            async with stage.actor.lease():
                stage.backend.exited.set_result("signal 9")
                raise BackendGoneError("connection reset", model="m")

        assert "signal 9" == caught.value.metadata["exit"]

    async def test_backend_dies_between_calls(self, stage: Stage) -> None:
        """It is seen at once, what it left is swept, and the next load starts another."""
        await stage.load()
        dead = stage.backend
        dead.exited.set_result("exit code 1")
        await settle()
        assert (BackendState.FAILED, [False]) == (stage.actor.state, dead.stops)
        assert "last words" in (stage.actor.snapshot().last_error or "")

        await stage.load()

        assert BackendState.READY is stage.actor.state
        assert dead is not stage.backend


class TestStop:
    async def test_report(self, stage: Stage) -> None:
        """What came back and that nothing was cut."""
        await stage.load()
        report = await stage.stop()

        assert (1000, 0) == (report.freed_bytes, report.cut_calls)
        assert (BackendState.STOPPED, [True]) == (stage.actor.state, stage.backend.stops)

    async def test_nothing_to_stop(self, stage: Stage) -> None:
        """A stopped model, and one that failed, cannot be stopped."""
        with pytest.raises(ModelNotLoadedError):
            await stage.stop()

    async def test_waits_for_calls_and_admits_no_new_ones(self, stage: Stage) -> None:
        """Admission closes first; the call in flight ends by itself."""
        await stage.load()
        async with stage.actor.lease():
            stopping = asyncio.create_task(stage.stop())
            await settle()
            assert (BackendState.STOPPING, []) == (stage.actor.state, stage.backend.stops)
            with pytest.raises(DrainingError):
                async with stage.actor.lease():
                    pass

        assert 0 == (await stopping).cut_calls

    @pytest.mark.parametrize("options", [{"force": True}, {"grace_seconds": 0.0}])
    async def test_cuts(self, stage: Stage, options: dict[str, Any]) -> None:
        """With force, or once the grace period is over, the call in flight is cut."""
        await stage.load()
        lease = stage.actor.lease()
        await lease.__aenter__()
        report = await stage.stop(**options)
        await lease.__aexit__(None, None, None)

        assert 1 == report.cut_calls

    async def test_force_hurries_a_stop_under_way(self, stage: Stage) -> None:
        """The second caller's force counts for the first, and both get the same report."""
        await stage.load()
        lease = stage.actor.lease()
        await lease.__aenter__()
        patient = asyncio.create_task(stage.stop())
        await settle()
        forced = await stage.stop(force=True)
        await lease.__aexit__(None, None, None)

        assert forced == await patient
        assert [True] == stage.backend.stops

    async def test_shorter_grace_counts(self, stage: Stage) -> None:
        """A later stop with less patience shortens the one under way."""
        await stage.load()
        lease = stage.actor.lease()
        await lease.__aenter__()
        patient = asyncio.create_task(stage.stop(grace_seconds=3600.0))
        await settle()
        await stage.stop(grace_seconds=0.01)
        await lease.__aexit__(None, None, None)

        assert 1 == (await patient).cut_calls

    async def test_caller_that_goes_away(self, stage: Stage) -> None:
        """The stop goes on without whoever asked for it."""
        await stage.load()
        stage.backend.may_stop.clear()
        stopping = asyncio.create_task(stage.stop())
        await settle()
        stopping.cancel()
        await settle()
        stage.backend.may_stop.set()
        await settle()

        assert BackendState.STOPPED is stage.actor.state

    async def test_during_a_load(self, stage: Stage) -> None:
        """The load ends, who waited for it is told, and nothing is left."""
        stage.start.may_finish.clear()
        loading = asyncio.create_task(stage.load())
        await settle()
        await stage.stop()

        with pytest.raises(DrainingError):
            await loading
        assert (BackendState.STOPPED, [False]) == (stage.actor.state, stage.backend.stops)

    async def test_load_during_a_stop(self, stage: Stage) -> None:
        """Who asks for the model while it stops gets it again once it has stopped."""
        await stage.load()
        first = stage.backend
        first.may_stop.clear()
        stopping = asyncio.create_task(stage.stop())
        await settle()
        loading = asyncio.create_task(stage.load())
        await settle()
        first.may_stop.set()
        await asyncio.gather(stopping, loading)

        assert BackendState.READY is stage.actor.state
        assert first is not stage.backend

    async def test_events(self, stage: Stage) -> None:
        """Each turn of a life is told once."""
        await stage.load()
        await stage.stop()

        assert ["BackendReady", "BackendStopped"] == [type(e).__name__ for e in stage.heard]

    async def test_events_of_a_load(self, stage: Stage) -> None:
        """A load that fails or is stopped is told apart from a backend that ends later."""
        stage.start.error = LoadFailedError("no", model="m")
        with pytest.raises(LoadFailedError):
            await stage.load()
        stage.start.error = None
        await stage.load()
        stage.backend.exited.set_result("exit code 1")
        await settle()
        stage.start.may_finish.clear()
        stage.actor.begin_load(MODEL)
        await settle()
        await stage.stop()
        stage.start.may_finish.set()
        await stage.load()
        await stage.stop()

        assert [
            ("BackendFailed", True),
            ("BackendReady", None),
            ("BackendFailed", False),
            ("BackendStopped", True),
            ("BackendReady", None),
            ("BackendStopped", False),
        ] == [(type(e).__name__, getattr(e, "was_loading", None)) for e in stage.heard]
