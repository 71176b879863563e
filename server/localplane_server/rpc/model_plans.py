"""Plans of installations as messages."""

from __future__ import annotations

from google.protobuf.struct_pb2 import Struct

from localplane.v1 import gallery_pb2
from localplane_server.gallery.installs.memory_estimate import MemoryEstimate
from localplane_server.gallery.installs.plan import BackendPresence, FilePresence, Plan, PlannedFile

FILE_PRESENCES = {
    FilePresence.ABSENT: gallery_pb2.FILE_PRESENCE_ABSENT,
    FilePresence.PRESENT: gallery_pb2.FILE_PRESENCE_PRESENT,
    FilePresence.DIFFERENT: gallery_pb2.FILE_PRESENCE_DIFFERENT,
}

BACKEND_PRESENCES = {
    BackendPresence.UNKNOWN: gallery_pb2.BACKEND_PRESENCE_UNKNOWN,
    BackendPresence.PRESENT: gallery_pb2.BACKEND_PRESENCE_PRESENT,
    BackendPresence.MISSING: gallery_pb2.BACKEND_PRESENCE_MISSING,
    BackendPresence.EXTRA_MISSING: gallery_pb2.BACKEND_PRESENCE_EXTRA_MISSING,
}


def plan_to_proto(plan: Plan) -> gallery_pb2.ModelPlan:
    """Return a plan as a message."""
    message = gallery_pb2.ModelPlan(
        name=plan.name,
        installed=plan.is_installed,
        files=[_file_to_proto(one) for one in plan.files],
        written=plan.written,
        total_bytes=plan.total_bytes,
        fetch_bytes=plan.fetch_bytes,
        free_bytes=plan.free_bytes,
        fits=plan.fits,
        backend=plan.backend,
        backend_presence=BACKEND_PRESENCES[plan.backend_presence],
        missing_extra=plan.missing_extra or None,
        memory=_memory_to_proto(plan.memory),
        memory_unknown=plan.memory_unknown or None,
        needed_bytes=plan.needed_bytes,
        needed_unknown=plan.needed_unknown or None,
    )
    if plan.configuration is not None:
        configuration = Struct()
        configuration.update(dict(plan.configuration))
        message.configuration.CopyFrom(configuration)
    return message


def _file_to_proto(file: PlannedFile) -> gallery_pb2.PlannedFile:
    return gallery_pb2.PlannedFile(
        filename=file.filename,
        uri=file.uri,
        size_bytes=file.size_bytes,
        presence=FILE_PRESENCES[file.presence],
        fetch_bytes=file.fetch_bytes,
        unpacked_bytes=file.unpacked_bytes,
    )


def _memory_to_proto(memory: MemoryEstimate | None) -> gallery_pb2.MemoryEstimate | None:
    if memory is None:
        return None
    return gallery_pb2.MemoryEstimate(
        weights_bytes=memory.weights_bytes,
        cache_bytes=memory.cache_bytes,
        other_bytes=memory.other_bytes,
        total_bytes=memory.total_bytes,
        context_size=memory.context_size,
    )
