"""The composition root: everything is built here, in order, and taken down in the opposite order."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from localplane_gateway.app import build_app
from localplane_gateway.server import serving
from localplane_gateway.settings import GatewaySettings
from localplane_server.config import Settings
from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.downloads.downloader import Downloader
from localplane_server.downloads.endpoints import Endpoints
from localplane_server.downloads.pip_settings import PipSettings
from localplane_server.downloads.proxies import Proxies
from localplane_server.errors import StartupError
from localplane_server.events import Events, PredictionFinished, RequestFinished, RequestStarted
from localplane_server.gallery.galleries import Galleries
from localplane_server.gallery.installs.changes import Changes
from localplane_server.gallery.installs.deletion import Remover
from localplane_server.gallery.installs.installation import Installer
from localplane_server.gallery.installs.installed import InstalledModels
from localplane_server.gallery.installs.loaded_models import LoadedModels
from localplane_server.gallery.installs.models_folder import ModelsFolder
from localplane_server.gallery.installs.plan import Planner
from localplane_server.gallery.installs.resolution import Resolver
from localplane_server.gallery.installs.scanning import Scanner
from localplane_server.gallery.installs.turns import Turns
from localplane_server.gallery.installs.works import DELETE, INSTALL, DeleteWork, InstallWork
from localplane_server.gallery.source_check import SourceCheck
from localplane_server.inference.counting import PredictionCounter
from localplane_server.inference.embedding import Embedder
from localplane_server.inference.generation import TextGenerator
from localplane_server.inference.tokenization import Tokenizer
from localplane_server.jobs.job_feed import JobFeed
from localplane_server.jobs.jobs import Jobs
from localplane_server.jobs.work import Work
from localplane_server.listening import bound_socket, check_free
from localplane_server.logs import AccessLog, log_events
from localplane_server.metrics.service_metrics import ServiceMetrics, refuse
from localplane_server.models.catalog import Defaults, ModelCatalog
from localplane_server.openai_servers import key_variables
from localplane_server.p2p.network import NoNetwork
from localplane_server.readiness import Readiness
from localplane_server.resources.device_uses import DeviceUses
from localplane_server.resources.inventory import Inventory
from localplane_server.rpc.access import KeyAuthenticator, read_keys
from localplane_server.rpc.available_models import AvailableModels
from localplane_server.rpc.backend_service import BackendServicer
from localplane_server.rpc.gallery_service import GalleryServicer
from localplane_server.rpc.health import HealthReporter
from localplane_server.rpc.inference_service import InferenceServicer
from localplane_server.rpc.inprocess import InProcessChannel
from localplane_server.rpc.interceptors import CallInterceptor
from localplane_server.rpc.job_service import JobServicer
from localplane_server.rpc.metrics_service import GET_METRICS, MetricsServicer
from localplane_server.rpc.model_service import ModelServicer
from localplane_server.rpc.peer_service import PeerServicer
from localplane_server.rpc.server import (
    SERVICES,
    Servicers,
    build_grpc_server,
    listen_on_socket_file,
)
from localplane_server.rpc.stopping import OpenCalls, stop_server
from localplane_server.rpc.summary import Summaries
from localplane_server.rpc.system_service import SystemServicer
from localplane_server.rpc.token_metrics_service import TokenMetricsServicer
from localplane_server.rpc.tokenizer_service import TokenizerServicer
from localplane_server.scheduling.backend_feed import BackendFeed
from localplane_server.scheduling.backend_logs import BackendLogs
from localplane_server.scheduling.limits import Limits
from localplane_server.scheduling.monitor import Monitor
from localplane_server.scheduling.scheduler import Scheduler
from localplane_server.scheduling.starting import BackendStarter
from localplane_server.scheduling.tasks import DetachedTasks, keep_running
from localplane_server.setting_values import Endpoint
from localplane_server.state.database import Database
from localplane_server.state.gallery_records import SqliteGalleryRecords
from localplane_server.state.job_records import SqliteJobRecords
from localplane_server.state.lock import DataDirLock
from localplane_server.state.spawn_records import SqliteSpawnRecords
from localplane_server.state.token_records import SqliteTokenRecords
from localplane_server.supervision.backend import BackendLauncher
from localplane_server.supervision.external import ExternalServers
from localplane_server.supervision.keeper_handle import KeeperHandle
from localplane_server.supervision.leftovers import reap_leftovers
from localplane_server.supervision.log_files import LogLimits
from localplane_server.supervision.logs import LogArchive
from localplane_server.supervision.memory_limit import memory_limit_bytes
from localplane_server.supervision.processes import Processes
from localplane_server.supervision.programs import BackendPrograms, shipped_programs
from localplane_server.supervision.registration import register
from localplane_server.supervision.sampling import Sampler
from localplane_server.tokens.accounting import TokenAccounting
from localplane_server.tokens.reporting import TokenReporter
from localplane_server.tokens.token_feed import TokenFeed

log = logging.getLogger(__name__)

MOST_END_SECONDS = 6.0
"""How much of the grace period is kept for the backends to end, at most."""
LONGEST_LOADS = 10
"""How many times as long as it may stand still a load that moves may take altogether."""
DAY_SECONDS = 86_400.0
STAGED_SECONDS = 30 * DAY_SECONDS
"""How long parts of files are kept for a job that goes on: as long as the job is remembered."""
CUT_SECONDS = 2.0
"""How long backends may take to end when somebody is in a hurry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A service that runs."""

    grpc: Endpoint
    """Where gRPC listens."""
    http: Endpoint
    """Where REST listens."""
    readiness: Readiness
    """Whether it can do its work."""
    channel: InProcessChannel
    """Reaches its services without the wire."""
    scheduler: Scheduler
    """Holds its backends."""
    backends: BackendFeed
    """Tells what they do."""
    tokens: TokenFeed
    """Tells what their tokens come to."""
    jobs: Jobs
    """Installs and deletes models."""

    async def cut_calls(self) -> None:
        """End every backend at once, and with it the calls in flight, so that a stop need not wait."""
        await self.scheduler.close(grace_seconds=0.0, end_seconds=CUT_SECONDS)


@asynccontextmanager
async def running(
    settings: Settings,
    keeper: KeeperHandle,
    *,
    programs: BackendPrograms | None = None,
    environment: dict[str, str] | None = None,
    access_log: AccessLog | None = None,
) -> AsyncGenerator[App]:
    """Run the service for as long as the context is open.

    Args:
        settings: The settings.
        keeper: A keeper that was started before this process had any object of gRPC.
        programs: The backends besides those of the settings. Default: those that come with the package.
        environment: What backends inherit. Default: this process's environment.
        access_log: Has a line for each request and each call. Default: there is none.

    Raises:
        StartupError: If it cannot start. Nothing of it is left then.
    """
    environment = dict(os.environ) if environment is None else environment
    programs = register(programs or shipped_programs(), settings, environment)
    # Their keys are for no other backend.
    keys_of_servers = key_variables(settings.openai_backends)
    environment = {k: value for k, value in environment.items() if k not in keys_of_servers}
    # All of a stop must fit the grace period: first the calls in flight, then the backends.
    end_seconds = min(MOST_END_SECONDS, settings.shutdown_grace / 2)
    drain_seconds = settings.shutdown_grace - end_seconds
    keys = read_keys(settings.api_key, settings.api_key_file)
    async with AsyncExitStack() as stack:
        # The lock first: what follows belongs to one service at a time.
        stack.enter_context(DataDirLock(settings.data_dir))
        database = await stack.enter_async_context(Database(settings.data_dir / "state.db"))
        records = SqliteSpawnRecords(database)
        await reap_leftovers(records)

        bus = Events()
        log_events(bus)
        if access_log is not None:
            access_log.listen(bus)
        readiness = Readiness()
        readiness.block("start", "the service is starting")

        # Left, and written for the last time, after the tasks below that still count predictions.
        accounting = await stack.enter_async_context(TokenAccounting(SqliteTokenRecords(database)))
        bus.listen(PredictionFinished, accounting.count)

        processes = await stack.enter_async_context(Processes(keeper, records))
        processes.add_listener(lambda is_ready: _tell(readiness, is_ready=is_ready))
        detached = DetachedTasks()
        stack.push_async_callback(detached.close)

        models_dir = settings.models_dir
        try:
            models_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"cannot use models folder {models_dir}: {error.strerror}"
            raise StartupError(message) from error
        defaults = Defaults(
            threads=settings.threads,
            context_size=settings.context_size,
            f16=True if settings.f16 else None,
        )
        catalog = ModelCatalog(models_dir, defaults=defaults)
        sampler = Sampler()
        archive = LogArchive(
            settings.data_dir / "logs",
            LogLimits(settings.backend_log_size, settings.backend_log_files),
        )
        launcher = BackendLauncher(
            processes,
            sampler,
            logs=archive,
            models_path=models_dir,
            environment=environment,
        )
        starter = BackendStarter(
            launcher,
            ExternalServers(token=settings.external_grpc_token or "", models_path=models_dir),
            programs,
            models_path=models_dir,
        )
        scheduler = Scheduler(
            catalog,
            start=starter,
            run=detached,
            bus=bus,
            readiness=readiness,
            limits=_limits(settings),
            is_elsewhere=starter.is_elsewhere,
            device_budget=settings.device_memory_budget.bytes_of,
            autoload=not settings.no_autoload,
        )
        devices = DeviceUses()
        stack.callback(devices.close)
        monitor = Monitor(scheduler, sampler, bus, devices=devices)
        backend_feed = BackendFeed(scheduler, monitor, bus)
        logs = BackendLogs(catalog, archive)
        inventory = Inventory({"data": settings.data_dir, "models": models_dir})
        stack.callback(inventory.close)
        public = frozenset({GET_METRICS} if settings.public_metrics else ())
        # Once the servers have stopped, no call is left that a backend should wait for.
        stack.push_async_callback(scheduler.close, grace_seconds=0.0, end_seconds=end_seconds)

        staging = settings.data_dir / "staging"
        policy = AddressPolicy.of(settings.allow_private_hosts, allow_http=settings.allow_http)
        endpoints = Endpoints.from_environment(environment)
        downloader = await stack.enter_async_context(
            Downloader(
                staging,
                policy=policy,
                endpoints=endpoints,
                credentials=endpoints.credentials(environment),
                offline=settings.offline,
                file_roots=[models_dir],
                pip=PipSettings.read(environment),
                proxies=Proxies.from_environment(environment),
            )
        )
        source_check = SourceCheck(
            policy, endpoints, file_roots=[models_dir], offline=settings.offline
        )
        galleries = Galleries(
            settings.galleries,
            records=SqliteGalleryRecords(database),
            reader=downloader,
            check=source_check,
            folder=settings.data_dir / "galleries",
            run=detached,
            offline=settings.offline,
        )
        await galleries.load()
        stack.callback(galleries.close)
        changes = Changes(ModelsFolder(models_dir), staging, catalog)
        await changes.recover()
        unloader = LoadedModels(scheduler, grace_seconds=settings.shutdown_grace)
        resolver = Resolver(galleries, downloader)
        scanner = None if settings.disable_predownload_scan else Scanner(downloader, endpoints)
        turns = Turns()
        installer = Installer(
            changes,
            resolver,
            downloader,
            catalog,
            unloader,
            turns=turns,
            scanner=scanner,
            parallel_downloads=settings.parallel_downloads,
        )
        planner = Planner(
            changes.folder,
            staging,
            resolver,
            downloader,
            programs,
            catalog=catalog,
            looks=downloader,
            context_size=settings.context_size,
        )
        works: dict[str, Work] = {
            INSTALL: InstallWork(installer, resolver),
            DELETE: DeleteWork(Remover(changes, catalog, unloader, turns=turns)),
        }
        # Left before all that their work uses is taken down.
        jobs = await stack.enter_async_context(
            Jobs(SqliteJobRecords(database), works, bus, parallel=settings.parallel_jobs)
        )
        job_feed = JobFeed(jobs, bus)
        metrics = None
        if not settings.disable_metrics_endpoint:
            metrics = ServiceMetrics(
                bus,
                snapshots=scheduler.snapshots,
                last_sample=monitor.last_sample,
                jobs=jobs.unfinished,
            )

        token_reporter = TokenReporter(catalog, scheduler, accounting)
        token_feed = TokenFeed(token_reporter, bus)
        network = NoNetwork()
        summaries = Summaries(
            settings=settings,
            keys=keys,
            catalog=catalog,
            installed=InstalledModels(changes.folder),
            scheduler=scheduler,
            jobs=jobs,
            monitor=monitor,
            programs=programs,
            network=network,
        )
        servicers = Servicers(
            backend=BackendServicer(
                scheduler,
                monitor,
                programs,
                catalog,
                backend_feed,
                logs=logs,
                grace_seconds=settings.shutdown_grace,
            ),
            gallery=GalleryServicer(
                galleries,
                AvailableModels(galleries, catalog),
                jobs,
                planner,
                look=source_check.look,
                public_url=settings.public_url,
            ),
            inference=InferenceServicer(
                TextGenerator(catalog, scheduler, PredictionCounter(bus, detached)),
                Embedder(catalog, scheduler, bus),
            ),
            job=JobServicer(jobs, job_feed),
            metrics=MetricsServicer(metrics.written if metrics else refuse),
            model=ModelServicer(catalog, scheduler, programs),
            token_metrics=TokenMetricsServicer(token_reporter, catalog, token_feed),
            peer=PeerServicer(network),
            system=SystemServicer(scheduler, programs, readiness, inventory, summaries),
            tokenizer=TokenizerServicer(Tokenizer(catalog, scheduler)),
        )
        calls = OpenCalls(bus)
        interceptor = CallInterceptor(keys, bus, public=public)
        channel = InProcessChannel(interceptor)
        servicers.add_to(channel)
        health = HealthReporter(SERVICES, scheduler, catalog, bus)
        server = build_grpc_server(
            servicers, interceptor, health, max_message_bytes=settings.max_body_size
        )
        check_free(settings.grpc_listen)
        grpc_port = server.add_insecure_port(str(settings.grpc_listen))
        if settings.grpc_uds is not None:
            listen_on_socket_file(server, settings.grpc_uds)
            stack.callback(settings.grpc_uds.unlink, missing_ok=True)
        http_socket = bound_socket(settings.http_listen)
        stack.callback(http_socket.close)
        grpc = settings.grpc_listen._replace(port=grpc_port)
        http = settings.http_listen._replace(port=http_socket.getsockname()[1])
        summaries.listening(grpc, http)
        await server.start()
        stops: list[asyncio.Task[None]] = []
        stack.push_async_callback(_all, stops)

        gateway = build_app(
            channel,
            GatewaySettings(
                allowed_hosts=frozenset(settings.allow_host),
                allowed_origins=frozenset(settings.allow_origin),
                public_url=settings.public_url,
                max_body_bytes=settings.max_body_size,
                public_methods=public,
            ),
            KeyAuthenticator(keys),
            observer=lambda **told: bus.emit(RequestFinished(**told)),
            on_start=partial(bus.emit, RequestStarted()),
        )
        await stack.enter_async_context(
            serving(gateway, [http_socket], grace_seconds=drain_seconds)
        )
        # Both servers stop at the same time: this begins the one, leaving the context above ends the other.
        stack.callback(
            lambda: stops.append(
                detached(stop_server(server, interceptor, health, calls, drain_seconds))
            )
        )
        stack.callback(readiness.block, "stop", "the service is stopping")
        # Who watches would hold up both for as long as they let him.
        for feed in (backend_feed, token_feed, job_feed, logs):
            stack.callback(feed.close)

        loops = await stack.enter_async_context(asyncio.TaskGroup())
        monitoring = loops.create_task(keep_running("monitor", monitor.run, readiness))
        stack.callback(monitoring.cancel)
        forgetting = loops.create_task(keep_running("token windows", token_feed.run, readiness))
        stack.callback(forgetting.cancel)
        writing = loops.create_task(keep_running("token accounting", accounting.run, readiness))
        stack.callback(writing.cancel)
        sampling = loops.create_task(keep_running("resources", inventory.run, readiness))
        stack.callback(sampling.cancel)
        removing = loops.create_task(keep_running("old logs", logs.run, readiness))
        stack.callback(removing.cancel)
        keeping = loops.create_task(keep_running("jobs", jobs.run, readiness))
        stack.callback(keeping.cancel)
        tidying = loops.create_task(
            keep_running("staging", partial(_remove_old_parts, downloader), readiness)
        )
        stack.callback(tidying.cancel)
        if metrics is not None:
            measuring = loops.create_task(
                keep_running("event loop lag", metrics.loop_lag.run, readiness)
            )
            stack.callback(measuring.cancel)
        readiness.unblock("start")
        readiness.listen(lambda is_ready: health.set_ready(is_ready=is_ready))
        if settings.preload:
            detached(scheduler.preload(settings.preload))
        yield App(
            grpc=grpc,
            http=http,
            readiness=readiness,
            channel=channel,
            scheduler=scheduler,
            backends=backend_feed,
            tokens=token_feed,
            jobs=jobs,
        )


async def _remove_old_parts(downloader: Downloader) -> None:
    """Remove every day, for ever, what was fetched long ago for something that never became whole."""
    while True:
        await asyncio.to_thread(downloader.prune, older_than_seconds=STAGED_SECONDS)
        await asyncio.sleep(DAY_SECONDS)


def _limits(settings: Settings) -> Limits:
    return Limits(
        most_backends=settings.most_backends,
        memory_bytes=settings.memory_budget.bytes_of(memory_limit_bytes()),
        queue_seconds=settings.queue_timeout,
        residency_seconds=settings.min_residency,
        idle_seconds=settings.idle_seconds,
        busy_seconds=settings.busy_seconds,
        load_seconds=settings.load_timeout,
        longest_load_seconds=LONGEST_LOADS * settings.load_timeout,
    )


def _tell(readiness: Readiness, *, is_ready: bool) -> None:
    if is_ready:
        readiness.unblock("keeper")
    else:
        readiness.block("keeper", "the keeper of the backends is gone and is being replaced")


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)
