"""What the monitor knows of a backend as a message."""

from __future__ import annotations

from datetime import UTC, datetime

from localplane.v1 import backend_pb2
from localplane_server.rpc.convert import process_memory, timestamp
from localplane_server.scheduling import monitor
from localplane_server.scheduling.monitor import BackendReport

MONITOR_STATES = {
    monitor.UNINITIALIZED: backend_pb2.MONITOR_STATE_UNINITIALIZED,
    monitor.BUSY: backend_pb2.MONITOR_STATE_BUSY,
    monitor.READY: backend_pb2.MONITOR_STATE_READY,
    monitor.ERROR: backend_pb2.MONITOR_STATE_ERROR,
}

REPORTED_STATES = {
    "uninitialized": backend_pb2.REPORTED_STATE_UNINITIALIZED,
    "busy": backend_pb2.REPORTED_STATE_BUSY,
    "ready": backend_pb2.REPORTED_STATE_READY,
    "error": backend_pb2.REPORTED_STATE_ERROR,
}


def report_to_proto(report: BackendReport) -> backend_pb2.BackendStatus:
    """Return what the monitor knows of a backend."""
    snapshot, sample = report.snapshot, report.sample
    reported = report.reported_state
    return backend_pb2.BackendStatus(
        state=MONITOR_STATES[report.monitor_state],
        memory=backend_pb2.BackendMemory(
            total=report.memory.total, breakdown=report.memory.breakdown
        )
        if report.memory
        else None,
        model=snapshot.model,
        backend=snapshot.backend,
        reported_state=REPORTED_STATES[reported] if reported else None,
        memory_info=process_memory(sample),
        memory_percent=sample.memory_percent if sample else None,
        cpu_percent=sample.cpu_percent if sample else None,
        sampled_at=timestamp(sample.sampled_at) if sample else None,
        pid=snapshot.pid,
        in_flight=snapshot.in_flight,
        last_used=timestamp(snapshot.last_used),
        restarts=snapshot.restarts,
        unknown=report.unknown,
        memory_origin=_origin(backend_pb2.FIGURE_SOURCE_BACKEND, report.reported_at),
        memory_info_origin=_origin(
            backend_pb2.FIGURE_SOURCE_SYSTEM, sample.sampled_at if sample else None
        ),
        devices=[
            backend_pb2.DeviceMemory(
                name=device.name,
                address=device.address,
                used=device.used_bytes,
                total=device.total_bytes,
                origin=_origin(backend_pb2.FIGURE_SOURCE_NVML, report.devices_at),
                unknown=device.unknown,
            )
            for device in report.devices
        ],
    )


def _origin(
    source: backend_pb2.FigureSource.ValueType, moment: datetime | None
) -> backend_pb2.FigureOrigin | None:
    if moment is None:
        return None
    return backend_pb2.FigureOrigin(
        source=source,
        sampled_at=timestamp(moment),
        # The clock may have been set back meanwhile.
        age_seconds=max(0.0, (datetime.now(UTC) - moment).total_seconds()),
    )
