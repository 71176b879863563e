"""What happens, as the figures tell it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from localplane_server import events
from localplane_server.errors import MetricsDisabledError
from localplane_server.jobs.job import Job, JobEvent
from localplane_server.metrics import loop_lag
from localplane_server.metrics.calls import localai_path
from localplane_server.metrics.families import MOST_DISTRIBUTIONS, MOST_SERIES
from localplane_server.metrics.service_metrics import KEEP_SECONDS, ServiceMetrics, refuse
from localplane_server.scheduling.actor import BackendSnapshot, BackendState
from localplane_server.supervision.sampling import TreeSample

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
LINES_OF_A_HISTOGRAM = 19
"""At most: one for each bound, one for all above, sum and count."""


class Service:
    """Figures, and all that they are fed with."""

    def __init__(self) -> None:
        self.bus = events.Events()
        self.backends: list[BackendSnapshot] = []
        self.samples: dict[str, TreeSample] = {}
        self.jobs: list[Job] = []
        self.time = 0.0
        self.metrics = ServiceMetrics(
            self.bus,
            snapshots=lambda: self.backends,
            last_sample=lambda snapshot: self.samples.get(snapshot.model),
            jobs=lambda: self.jobs,
            now=lambda: self.time,
        )

    async def lines(self) -> list[str]:
        text, _ = await self.metrics.written("")
        return [line for line in text.decode().splitlines() if not line.startswith("#")]

    async def values(self, name: str) -> dict[str, float]:
        """Values by labels, as they are written, of the series with a name."""
        found = {}
        for line in await self.lines():
            series, _, value = line.rpartition(" ")
            its_name, _, labels = series.partition("{")
            if its_name == name:
                found[labels.removesuffix("}")] = float(value)
        return found

    def request(self, method: str = "GET", route: str = "/version", status: int = 200) -> None:
        self.bus.emit(events.RequestStarted())
        self.bus.emit(
            events.RequestFinished(
                method=method, route=route, status=status, seconds=0.02, request_id="r"
            )
        )

    def call(self, method: str, code: str = "OK", peer: str = "ipv4:127.0.0.1:1") -> None:
        self.bus.emit(
            events.CallFinished(
                method=method, code=code, reason="", seconds=0.02, request_id="r", peer=peer
            )
        )

    def prediction(self, model: str = "m", **fields: Any) -> None:
        self.bus.emit(
            events.PredictionFinished(
                model=model,
                operation="chat",
                prompt_tokens=3,
                completion_tokens=5,
                outcome="ok",
                **fields,
            )
        )

    def move(self, state: str) -> None:
        self.bus.emit(
            events.JobMoved(job="j", kind="install", target="t", before="running", state=state)
        )


@pytest.fixture
def service() -> Service:
    return Service()


def snapshot(model: str = "m", state: BackendState = BackendState.READY) -> BackendSnapshot:
    return BackendSnapshot(
        model=model,
        backend="b",
        state=state,
        pid=7,
        in_flight=2,
        last_error=None,
        restarts=4,
        loaded_at=None,
        last_used=None,
    )


def sample(cpu_percent: float | None) -> TreeSample:
    return TreeSample(
        processes=1,
        threads=1,
        open_files=1,
        rss_bytes=1024,
        vms_bytes=4096,
        pss_bytes=None,
        memory_percent=1.0,
        cpu_percent=cpu_percent,
        sampled_at=datetime.now(UTC),
        unknown={},
    )


def fill(service: Service) -> None:
    """Have something happen that each family tells of."""
    service.backends = [snapshot()]
    service.samples = {"m": sample(50.0)}
    service.bus.emit(events.BackendReady(model="m", backend="b", pid=7, seconds=3.0))
    service.request(route="/api/models/{name}")
    service.request(method="BREW", route="", status=404)
    service.call("/localplane.v1.SystemService/GetVersion")
    service.call("", code="UNIMPLEMENTED")
    service.prediction(seconds_to_first_token=0.25)
    service.move("completed")
    service.bus.emit(events.JobFetched(kind="install", bytes_count=5))


class TestJobs:
    async def test_counts(self, service: Service) -> None:
        """Jobs are there by state, also where there are none; ends and bytes are counted."""
        job = Job(
            id="j", number=1, kind="install", target="t", request={}, created_at=datetime.now(UTC)
        )
        service.jobs = [job, job.after(JobEvent.PAUSE, datetime.now(UTC))]
        for state in ("queued", "failed", "completed", "failed"):
            service.move(state)
        for count in (3, 4):
            service.bus.emit(events.JobFetched(kind="install", bytes_count=count))

        assert {'state="queued"': 1, 'state="running"': 0, 'state="paused"': 1} == (
            await service.values("localplane_jobs")
        )
        assert {'kind="install",state="failed"': 2, 'kind="install",state="completed"': 1} == (
            await service.values("localplane_jobs_finished_total")
        )
        assert {'kind="install"': 7} == await service.values("localplane_jobs_fetched_bytes_total")


class TestRequests:
    async def test_api_call(self, service: Service) -> None:
        """LocalAI's histogram has LocalAI's labels, seconds, and routes as LocalAI writes them."""
        service.request(route="/models/jobs/{uuid}")

        labels = (
            'method="GET",otel_scope_name="github.com/mudler/LocalAI",otel_scope_version="",'
            'path="/models/jobs/:uuid"'
        )
        assert {labels: 1} == await service.values("api_call_count")
        assert {labels: 0.02} == await service.values("api_call_sum")

    def test_localai_path(self) -> None:
        """Only the parameters are written in another way."""
        assert "/v1/a/:b_c/d/:e" == localai_path("/v1/a/{b_c}/d/{e}")

    async def test_requests(self, service: Service) -> None:
        """Requests are told apart by verb, route and status; what fits no route is one."""
        service.request()
        service.request(status=401)
        service.request(route="", status=404)
        service.request(route="", status=404)

        assert {
            'method="GET",route="/version",status="200"': 1,
            'method="GET",route="/version",status="401"': 1,
            'method="GET",route="",status="404"': 2,
        } == await service.values("localplane_http_requests_total")

    async def test_scrapes_are_not_counted(self, service: Service) -> None:
        """Reading the figures does not change them."""
        service.request(route="/metrics")

        assert {} == await service.values("localplane_http_requests_total")
        assert {} == await service.values("api_call_count")
        assert {"": 0} == await service.values("localplane_http_requests_in_flight")

    async def test_verbs(self, service: Service) -> None:
        """A verb that a caller made up is not shown."""
        service.request(method="BREW")
        service.request(method="PROPFIND")

        assert {'method="other",route="/version",status="200"': 2} == await service.values(
            "localplane_http_requests_total"
        )

    async def test_in_flight(self, service: Service) -> None:
        """What has begun and not ended is in flight."""
        service.bus.emit(events.RequestStarted())
        service.bus.emit(events.CallStarted())
        assert {"": 1} == await service.values("localplane_http_requests_in_flight")
        assert {"": 1} == await service.values("localplane_grpc_calls_in_flight")

        service.call("/s/M")

        assert {"": 0} == await service.values("localplane_grpc_calls_in_flight")


class TestCalls:
    async def test_calls(self, service: Service) -> None:
        """Calls are told apart by method, code and interface."""
        service.call("/s/M")
        service.call("/s/M", code="NOT_FOUND", peer="inprocess")

        assert {
            'code="OK",interface="grpc",method="s/M"': 1,
            'code="NOT_FOUND",interface="rest",method="s/M"': 1,
        } == await service.values("localplane_grpc_calls_total")
        assert {'method="s/M"': 2} == await service.values("localplane_grpc_call_seconds_count")

    async def test_unknown_method(self, service: Service) -> None:
        """Methods that there are not are one, and were never in flight."""
        service.call("", code="UNIMPLEMENTED")

        assert {'code="UNIMPLEMENTED",interface="grpc",method=""': 1} == await service.values(
            "localplane_grpc_calls_total"
        )
        assert {"": 0} == await service.values("localplane_grpc_calls_in_flight")


class TestBackends:
    async def test_states(self, service: Service) -> None:
        """Every state is shown, also those that no backend is in."""
        service.backends = [snapshot("a"), snapshot("b"), snapshot("c", BackendState.FAILED)]

        counts = await service.values("localplane_backends")

        assert {"starting", "loading", "ready", "busy", "stopping", "failed"} == {
            labels.split('"')[1] for labels in counts
        }
        assert (2, 1, 0) == tuple(
            counts[f'state="{state}"'] for state in ("ready", "failed", "busy")
        )
        assert {
            'backend="b",model="a",state="ready"': 1,
            'backend="b",model="b",state="ready"': 1,
            'backend="b",model="c",state="failed"': 1,
        } == await service.values("localplane_backend_state")

    async def test_snapshot(self, service: Service) -> None:
        """What the scheduler knows is told."""
        service.backends = [snapshot()]

        assert {'model="m"': 4} == await service.values("localplane_backend_restarts_total")
        assert {'model="m"': 2} == await service.values("localplane_backend_calls_in_flight")

    async def test_samples(self, service: Service) -> None:
        """Memory and processor time are the last sample's; what is not known is not there."""
        service.backends = [snapshot("a"), snapshot("b"), snapshot("c")]
        service.samples = {"a": sample(150.0), "b": sample(None)}

        assert {'model="a"': 1024, 'model="b"': 1024} == await service.values(
            "localplane_backend_resident_memory_bytes"
        )
        assert {'model="a"': 1.5} == await service.values("localplane_backend_cpu_cores")

    async def test_loads(self, service: Service) -> None:
        """Loads are counted by outcome; a backend that dies or is stopped later is none."""
        failed = events.BackendFailed(model="m", backend="b", message="died")
        stopped = events.BackendStopped(model="m", backend="b", seconds=1, cut_calls=0)
        service.bus.emit(events.BackendReady(model="m", backend="b", pid=7, seconds=3.0))
        service.bus.emit(replace(failed, was_loading=True))
        service.bus.emit(failed)
        service.bus.emit(replace(stopped, was_loading=True))
        service.bus.emit(stopped)

        assert {
            f'backend="b",model="m",outcome="{outcome}"': 1
            for outcome in ("ok", "error", "stopped")
        } == await service.values("localplane_backend_loads_total")
        assert {'model="m"': 3} == await service.values("localplane_backend_load_seconds_sum")


class TestPredictions:
    async def test_counted(self, service: Service) -> None:
        """Predictions and their tokens are counted; only streams have a first token."""
        service.prediction()
        service.prediction(seconds_to_first_token=0.25)

        assert {'model="m",operation="chat",outcome="ok"': 2} == await service.values(
            "localplane_predictions_total"
        )
        assert {
            'kind="prompt",model="m"': 6,
            'kind="completion",model="m"': 10,
        } == await service.values("localplane_tokens_total")
        first = "localplane_time_to_first_token_seconds"
        assert {'model="m"': 1} == await service.values(f"{first}_count")
        assert {'model="m"': 0.25} == await service.values(f"{first}_sum")


class TestForgetting:
    async def test_series_go_with_the_model(self, service: Service) -> None:
        """Counts outlive their model for a while that begins with a scrape, then they go."""
        service.backends = [snapshot()]
        service.prediction()
        await service.lines()
        service.backends = []
        service.time = 10_000.0
        assert await service.values("localplane_tokens_total")

        service.time += KEEP_SECONDS - 1
        assert await service.values("localplane_tokens_total")
        service.time += 1

        assert [] == [line for line in await service.lines() if 'model="m"' in line]

    async def test_model_that_returns(self, service: Service) -> None:
        """A model that is loaded again in time keeps its counts."""
        service.prediction()
        await service.lines()
        service.backends = [snapshot(state=BackendState.FAILED)]
        service.time = KEEP_SECONDS
        await service.lines()
        service.backends = []
        service.time += KEEP_SECONDS - 1

        assert await service.values("localplane_tokens_total")


class TestBounds:
    async def test_random_names(self, service: Service) -> None:
        """Whatever names come, the number of series has a bound, and more of them add nothing."""
        chance = random.Random(1)  # noqa: S311 - names, no secrets
        counts = []
        for _ in range(2):
            for _ in range(10_000):
                name = f"{chance.getrandbits(64):x}"
                service.request(method=name, route=f"/{name}", status=404)
                service.call(f"/{name}/{name}", code="UNIMPLEMENTED")
                service.prediction(name, seconds_to_first_token=0.1)
                service.bus.emit(
                    events.BackendReady(model=name, backend=name, pid=None, seconds=1.0)
                )
            counts.append(len(await service.lines()))

        dropped = await service.values("localplane_metrics_dropped_total")
        families = service.metrics.registry.families
        histograms = sum(family.kind == "histogram" for family in families)
        bound = MOST_SERIES * len(families) + MOST_DISTRIBUTIONS * LINES_OF_A_HISTOGRAM * histograms
        assert counts[0] == counts[1] <= bound
        assert 20_000 - MOST_SERIES == dropped['family="localplane_predictions_total"']
        assert 20_000 - MOST_DISTRIBUTIONS == dropped['family="api_call"']

        service.time += 1
        await service.lines()
        service.time += KEEP_SECONDS
        assert {} == await service.values("localplane_predictions_total")


class TestText:
    async def test_promtool(self, service: Service) -> None:
        """Prometheus' own checker finds nothing to say about any family."""
        promtool = shutil.which("promtool")
        if promtool is None:
            pytest.skip("promtool is not installed")
        fill(service)
        text, _ = await service.metrics.written("")

        checked = subprocess.run(  # noqa: ASYNC221 - there is nothing else to do meanwhile
            [promtool, "check", "metrics"], input=text, capture_output=True, check=False
        )

        assert (0, b"", b"") == (checked.returncode, checked.stdout, checked.stderr)

    async def test_documented(self, service: Service) -> None:
        """The page has every family with its type and its labels, and no other."""
        row = r"^\| `(\w+)` \| (counter|gauge|histogram) \|([^|]*)\| [^|]+ \|$"
        documented = {
            name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
            for name, kind, labels in re.findall(row, DOCUMENT.read_text(), re.MULTILINE)
        }
        real: dict[str, tuple[str, tuple[str, ...]]] = {
            family.name: (family.kind, family.labels)
            for family in service.metrics.registry.families
        }
        text, _ = await service.metrics.written("")
        for metric in text_string_to_metric_families(text.decode()):
            if metric.name.startswith("process_"):
                suffix = "_total" if metric.type == "counter" else ""
                real[metric.name + suffix] = (metric.type, ())

        assert real == documented


class TestLoopLag:
    async def test_measures(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        """A loop that is measured has a lag that is not below zero."""
        monkeypatch.setattr(loop_lag, "INTERVAL_SECONDS", 0.001)
        lag = "localplane_event_loop_lag_seconds"
        measuring = asyncio.create_task(service.metrics.loop_lag.run())
        while not (await service.values(f"{lag}_count"))[""]:
            pass
        measuring.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await measuring

        assert (await service.values(f"{lag}_sum"))[""] >= 0


async def test_refuse() -> None:
    """A service without figures says so."""
    with pytest.raises(MetricsDisabledError):
        await refuse("")
