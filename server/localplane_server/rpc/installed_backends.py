"""The backends that can be used, to protobuf."""

from __future__ import annotations

from dataclasses import asdict

from localplane.v1 import backend_pb2
from localplane_server.supervision.programs import (
    BackendPrograms,
    BackendSource,
    ExternalServer,
    RegisteredBackend,
)

SOURCES = {
    BackendSource.SHIPPED: backend_pb2.BACKEND_SOURCE_SHIPPED,
    BackendSource.INSTALLED: backend_pb2.BACKEND_SOURCE_INSTALLED,
    BackendSource.EXTERNAL: backend_pb2.BACKEND_SOURCE_EXTERNAL,
}


def installed_to_proto(backend: RegisteredBackend) -> backend_pb2.InstalledBackend:
    """Return a backend that can be used."""
    shown = backend_pb2.InstalledBackend(
        name=backend.name,
        is_system=backend.source is BackendSource.SHIPPED,
        aliases=backend.aliases,
        source=SOURCES[backend.source],
    )
    if isinstance(backend, ExternalServer):
        shown.address = str(backend.address)
        return shown
    shown.run_file = " ".join(backend.argv)
    if backend.missing:
        shown.missing = f"localplane[{backend.missing}]"
    if backend.metadata is not None:
        shown.is_meta = bool(backend.metadata.meta_backend_for)
        # What is empty was not written, and is left out as LocalAI leaves it out.
        written = {key: value for key, value in asdict(backend.metadata).items() if value}
        shown.metadata.CopyFrom(backend_pb2.BackendMetadata(**written))
    return shown


def backend_problems(programs: BackendPrograms) -> list[backend_pb2.BackendProblem]:
    """Return what lies in the backends folder and cannot be used."""
    return [
        backend_pb2.BackendProblem(name=problem.name, message=problem.message)
        for problem in programs.problems
    ]
