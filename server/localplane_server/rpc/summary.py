"""The summary of the service: what its first page shows, as far as the caller may see it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from localplane.v1 import summary_pb2
from localplane_server import __version__
from localplane_server.config import Settings
from localplane_server.gallery.installs.installed import InstalledModels
from localplane_server.gallery.installs.works import DELETE
from localplane_server.jobs.jobs import Jobs
from localplane_server.models.catalog import ModelCatalog
from localplane_server.p2p.network import Network
from localplane_server.rpc.access import Keys, Role
from localplane_server.rpc.base_url import base_url
from localplane_server.rpc.convert import backend_to_proto, model_to_proto
from localplane_server.rpc.http_facts import BASE_URL
from localplane_server.rpc.installed_backends import installed_to_proto
from localplane_server.rpc.job_convert import job_model
from localplane_server.scheduling.monitor import Monitor
from localplane_server.scheduling.scheduler import Scheduler
from localplane_server.scheduling.snapshots import BackendState
from localplane_server.setting_values import Endpoint
from localplane_server.supervision.programs import BackendPrograms

TASK_TYPES = {False: "Installation", True: "Deletion"}
"""LocalAI's words for jobs, by whether they delete."""


class Summaries:
    """Makes summaries for callers of each role.

    Args:
        settings: Some of them are shown.
        keys: Tell what a caller may see.
        catalog: The models.
        installed: What galleries said of them.
        scheduler: The backends.
        jobs: What is installed and deleted.
        monitor: What they use.
        programs: The backends that can be started.
        network: The peer-to-peer network.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        keys: Keys,
        catalog: ModelCatalog,
        installed: InstalledModels,
        scheduler: Scheduler,
        jobs: Jobs,
        monitor: Monitor,
        programs: BackendPrograms,
        network: Network,
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._catalog = catalog
        self._installed = installed
        self._scheduler = scheduler
        self._jobs = jobs
        self._monitor = monitor
        self._programs = programs
        self._network = network
        self._listens = (settings.grpc_listen, settings.http_listen)

    def listening(self, grpc: Endpoint, http: Endpoint) -> None:
        """Take note of where the service listens, once the ports are known."""
        self._listens = (grpc, http)

    async def summary(self, metadata: Iterable[tuple[str, str | bytes]]) -> summary_pb2.Summary:
        """Return the summary for a caller.

        Args:
            metadata: What came with the call. Anybody can send anything in it, so the address of a gateway in it is
                repeated where it is a URL, and decides nothing.
        """
        sent = {key: value for key, value in metadata if isinstance(value, str)}
        version = f"v{__version__}"
        summary = summary_pb2.Summary(title=f"Localplane {version}", version=version)
        role = self._keys.role(sent.get("authorization"))
        if role is not None:
            summary.base_url = base_url(self._settings.public_url, sent.get(BASE_URL, ""))
            await self._add_models(summary)
        if role is Role.ADMIN:
            self._add_service(summary)
            # It looks at every file that a gallery left.
            told = await asyncio.to_thread(self._installed.configs)
            summary.gallery_config.SetInParent()
            for name, config in told.items():
                summary.gallery_config.by_model[name].update(config)
        return summary

    async def _add_models(self, summary: summary_pb2.Summary) -> None:
        catalog, scheduler = self._catalog, self._scheduler
        models = catalog.configured()
        # It looks at the file of each.
        sizes = await asyncio.to_thread(lambda: [catalog.size(model) for model in models])
        summary.models.SetInParent()
        summary.models.names.extend(model.name for model in catalog.loose())
        summary.models_config.SetInParent()
        for model, size in zip(models, sizes, strict=True):
            shown = model_to_proto(model, size, scheduler.state(model.name))
            # Words for the backend, among which there may be a password.
            shown.ClearField("options")
            summary.models_config.models.append(shown)

    def _add_service(self, summary: summary_pb2.Summary) -> None:
        summary.is_p2p_enabled = self._network.is_on
        summary.application_config.CopyFrom(self._application_config())
        summary.processing_models.SetInParent()
        summary.task_types.SetInParent()
        for job in self._jobs.unfinished():
            model = job_model(job)
            summary.processing_models.by_model[model] = job.id
            summary.task_types.by_model[model] = TASK_TYPES[job.kind == DELETE]
        summary.loaded_models.SetInParent()
        for one in self._scheduler.snapshots():
            if one.state is BackendState.STOPPED:
                # It is only waited for.
                continue
            backend = backend_to_proto(one, self._monitor.last_sample(one))
            summary.loaded_models.by_model[one.model].CopyFrom(backend)
        summary.installed_backends.SetInParent()
        summary.installed_backends.backends.extend(
            installed_to_proto(program) for program in self._programs.all()
        )

    def _application_config(self) -> summary_pb2.ApplicationConfig:
        # Named one by one: a setting that is added shows nowhere until somebody decides that it may.
        settings = self._settings
        grpc, http = self._listens
        return summary_pb2.ApplicationConfig(
            grpc_listen=str(grpc),
            http_listen=str(http),
            public_url=settings.public_url,
            requires_key=not self._keys.is_open,
            threads=settings.threads,
            context_size=settings.context_size,
            f16=settings.f16,
            no_autoload=settings.no_autoload,
            max_body_size=settings.max_body_size,
            load_timeout=settings.load_timeout,
            shutdown_grace=settings.shutdown_grace,
            debug=settings.debug,
        )
