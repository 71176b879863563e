"""The composition root: everything is built here, in order, and taken down in the opposite order."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from localplane_gateway.server import GatewayServer
from localplane_gateway.settings import GatewaySettings
from localplane_server.config import Endpoint, Settings
from localplane_server.events import Events
from localplane_server.inference.embedding import Embedder
from localplane_server.inference.generation import TextGenerator
from localplane_server.inference.tokenization import Tokenizer
from localplane_server.logs import log_events
from localplane_server.models.catalog import Defaults, ModelCatalog
from localplane_server.readiness import Readiness
from localplane_server.rpc.access import read_keys
from localplane_server.rpc.backend_service import BackendServicer
from localplane_server.rpc.inference_service import InferenceServicer
from localplane_server.rpc.inprocess import InProcessChannel
from localplane_server.rpc.interceptors import CallInterceptor
from localplane_server.rpc.model_service import ModelServicer
from localplane_server.rpc.server import GrpcServer, Servicers
from localplane_server.rpc.system_service import SystemServicer
from localplane_server.rpc.tokenizer_service import TokenizerServicer
from localplane_server.scheduling.monitor import Monitor
from localplane_server.scheduling.scheduler import Scheduler
from localplane_server.scheduling.starting import BackendStarter
from localplane_server.scheduling.tasks import DetachedTasks
from localplane_server.supervision.backend import BackendLauncher
from localplane_server.supervision.processes import KeeperHandle, Processes
from localplane_server.supervision.programs import BackendPrograms, shipped_programs
from localplane_server.supervision.sampling import Sampler

log = logging.getLogger(__name__)
