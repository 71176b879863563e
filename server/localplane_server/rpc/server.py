"""The gRPC server: where it listens, its limits, and the services on it."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from localplane.v1 import (
    backend_service_pb2_grpc,
    gallery_service_pb2_grpc,
    inference_service_pb2_grpc,
    job_service_pb2_grpc,
    metrics_service_pb2_grpc,
    model_service_pb2_grpc,
    peer_service_pb2_grpc,
    system_service_pb2_grpc,
    token_metrics_service_pb2_grpc,
    tokenizer_service_pb2_grpc,
)
from localplane_server.errors import StartupError
from localplane_server.rpc.backend_service import BackendServicer
from localplane_server.rpc.gallery_service import GalleryServicer
from localplane_server.rpc.health import HealthReporter, add_reflection
from localplane_server.rpc.inference_service import InferenceServicer
from localplane_server.rpc.interceptors import CallInterceptor
from localplane_server.rpc.job_service import JobServicer
from localplane_server.rpc.metrics_service import MetricsServicer
from localplane_server.rpc.model_service import ModelServicer
from localplane_server.rpc.peer_service import PeerServicer
from localplane_server.rpc.system_service import SystemServicer
from localplane_server.rpc.token_metrics_service import TokenMetricsServicer
from localplane_server.rpc.tokenizer_service import TokenizerServicer

log = logging.getLogger(__name__)

SERVICES = (
    "localplane.v1.BackendService",
    "localplane.v1.GalleryService",
    "localplane.v1.InferenceService",
    "localplane.v1.JobService",
    "localplane.v1.MetricsService",
    "localplane.v1.ModelService",
    "localplane.v1.PeerService",
    "localplane.v1.SystemService",
    "localplane.v1.TokenMetricsService",
    "localplane.v1.TokenizerService",
)
"""Our services, by full name."""


class Servicers(NamedTuple):
    """One servicer for each of our services."""

    backend: BackendServicer
    gallery: GalleryServicer
    inference: InferenceServicer
    job: JobServicer
    metrics: MetricsServicer
    model: ModelServicer
    peer: PeerServicer
    system: SystemServicer
    token_metrics: TokenMetricsServicer
    tokenizer: TokenizerServicer

    def add_to(self, server: Any) -> None:
        """Add them to a gRPC server, or to what takes servicers like one."""
        backend_service_pb2_grpc.add_BackendServiceServicer_to_server(self.backend, server)
        gallery_service_pb2_grpc.add_GalleryServiceServicer_to_server(self.gallery, server)
        inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(self.inference, server)
        job_service_pb2_grpc.add_JobServiceServicer_to_server(self.job, server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(self.metrics, server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self.model, server)
        peer_service_pb2_grpc.add_PeerServiceServicer_to_server(self.peer, server)
        system_service_pb2_grpc.add_SystemServiceServicer_to_server(self.system, server)
        token_metrics_service_pb2_grpc.add_TokenMetricsServiceServicer_to_server(
            self.token_metrics, server
        )
        tokenizer_service_pb2_grpc.add_TokenizerServiceServicer_to_server(self.tokenizer, server)


def server_options(max_message_bytes: int) -> list[tuple[str, int]]:
    """Return the options of the gRPC library."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        # Answers are ours: a limit would only cut a listing that has grown.
        ("grpc.max_send_message_length", -1),
        # Without this, a second server would silently share the port and get half of the calls.
        ("grpc.so_reuseport", 0),
    ]


def build_grpc_server(
    servicers: Servicers,
    interceptor: CallInterceptor,
    health: HealthReporter,
    *,
    max_message_bytes: int,
) -> grpc.aio.Server:
    """Return a server with all services, health and reflection, that listens nowhere yet."""
    options = server_options(max_message_bytes)
    server = grpc.aio.server(interceptors=[interceptor], options=options)
    servicers.add_to(server)
    health.add_to(server)
    add_reflection(server, (*SERVICES, "grpc.health.v1.Health"))
    return server


def listen_on_socket_file(server: grpc.aio.Server, path: Path) -> None:
    """Have the server listen on a Unix socket that only this user may open.

    A socket that an earlier server left behind is replaced.

    Raises:
        StartupError: If it cannot: somebody listens there, something else is there, the folder is missing.
    """
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink(missing_ok=True)
            else:
                raise StartupError(f"cannot listen on {path}: another server does already")
    elif path.exists():
        raise StartupError(f"cannot listen on {path}: it exists and is no socket")
    mask = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        message = f"cannot listen on {path}: its folder must exist and its path be short"
        raise StartupError(message) from error
    finally:
        os.umask(mask)
