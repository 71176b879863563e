"""Domain to protobuf and back. Kept dumb: no decisions, no defaults of its own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from localplane.v1 import (
    backend_pb2,
    backend_service_pb2,
    inference_pb2,
    model_pb2,
    resources_pb2,
)
from localplane_server.errors import InvalidArgumentError
from localplane_server.models.configuration import ModelConfig, Sampling
from localplane_server.resources.figures import AcceleratorFigures, Resources, Source, Vendor
from localplane_server.scheduling.scheduler import StopOutcome
from localplane_server.scheduling.snapshots import BackendSnapshot, BackendState
from localplane_server.supervision.calls import ChatTurn, ToolCallPiece
from localplane_server.supervision.sampling import TreeSample

STATES = {
    BackendState.STOPPED: backend_pb2.BACKEND_STATE_STOPPED,
    BackendState.STARTING: backend_pb2.BACKEND_STATE_STARTING,
    BackendState.LOADING: backend_pb2.BACKEND_STATE_LOADING,
    BackendState.READY: backend_pb2.BACKEND_STATE_READY,
    BackendState.BUSY: backend_pb2.BACKEND_STATE_BUSY,
    BackendState.STOPPING: backend_pb2.BACKEND_STATE_STOPPING,
    BackendState.FAILED: backend_pb2.BACKEND_STATE_FAILED,
}

SOURCES = {
    Source.NOBODY: resources_pb2.RESOURCE_SOURCE_UNSPECIFIED,
    Source.SYSTEM: resources_pb2.RESOURCE_SOURCE_SYSTEM,
    Source.CGROUP_V1: resources_pb2.RESOURCE_SOURCE_CGROUP_V1,
    Source.CGROUP_V2: resources_pb2.RESOURCE_SOURCE_CGROUP_V2,
    Source.NVML: resources_pb2.RESOURCE_SOURCE_NVML,
    Source.SYSFS: resources_pb2.RESOURCE_SOURCE_SYSFS,
}

VENDORS = {
    Vendor.NVIDIA: resources_pb2.ACCELERATOR_VENDOR_NVIDIA,
    Vendor.AMD: resources_pb2.ACCELERATOR_VENDOR_AMD,
    Vendor.INTEL: resources_pb2.ACCELERATOR_VENDOR_INTEL,
}

_LARGEST_EXACT = 2**53


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return a moment as a message, or None."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def process_memory(sample: TreeSample | None) -> backend_pb2.ProcessMemory | None:
    """Return the memory of a sample as a message, or None."""
    if sample is None:
        return None
    return backend_pb2.ProcessMemory(rss=sample.rss_bytes, vms=sample.vms_bytes)


def backend_to_proto(snapshot: BackendSnapshot, sample: TreeSample | None) -> backend_pb2.Backend:
    """Return a backend as the list shows it."""
    return backend_pb2.Backend(
        model=snapshot.model,
        backend=snapshot.backend,
        state=STATES[snapshot.state],
        pid=snapshot.pid,
        memory_info=process_memory(sample),
        memory_percent=sample.memory_percent if sample else None,
        cpu_percent=sample.cpu_percent if sample else None,
        sampled_at=timestamp(sample.sampled_at) if sample else None,
        in_flight=snapshot.in_flight,
        last_error=snapshot.last_error,
        restarts=snapshot.restarts,
        loaded_at=timestamp(snapshot.loaded_at),
        last_used=timestamp(snapshot.last_used),
        waiting=snapshot.waiting,
        cooldown_until=timestamp(snapshot.cooldown_until),
    )


def stops_to_proto(outcomes: Sequence[StopOutcome]) -> backend_service_pb2.ShutdownAllResponse:
    """Return what came of the stops of all backends."""
    stopped = sum(1 for one in outcomes if one.report is not None)
    return backend_service_pb2.ShutdownAllResponse(
        message=f"{stopped} models stopped" if stopped != 1 else "1 model stopped",
        backends=[
            backend_service_pb2.StoppedBackend(
                model=one.model,
                seconds=one.report.seconds if one.report else 0.0,
                freed_bytes=one.report.freed_bytes if one.report else None,
                cut_calls=one.report.cut_calls if one.report else 0,
                error=one.error,
            )
            for one in outcomes
        ],
    )


def model_to_proto(model: ModelConfig, size: int | None, state: BackendState) -> model_pb2.Model:
    """Return a model."""
    return model_pb2.Model(
        name=model.name,
        aliases=model.aliases,
        backend=model.backend,
        file=model.file,
        size_bytes=size,
        config_file=model.config_file,
        context_size=model.context_size,
        threads=model.threads,
        f16=model.f16,
        embeddings=model.embeddings,
        options=model.options,
        state=STATES[state],
        description=model.description,
    )


def resources_to_proto(resources: Resources) -> resources_pb2.Resources:
    """Return what there is to run models on."""
    cpu, memory = resources.cpu, resources.memory
    load_1m, load_5m, load_15m = cpu.load or (None, None, None)
    return resources_pb2.Resources(
        cpu=resources_pb2.CpuResources(
            source=SOURCES[cpu.source],
            count=cpu.count,
            physical_count=cpu.physical_count,
            allowed=cpu.allowed,
            cgroup_quota=cpu.cgroup_quota,
            usable=cpu.usable,
            load_1m=load_1m,
            load_5m=load_5m,
            load_15m=load_15m,
            percent=cpu.percent,
            percent_seconds=cpu.percent_seconds,
            unknown=cpu.unknown,
        ),
        memory=resources_pb2.MemoryResources(
            source=SOURCES[memory.source],
            total=memory.total,
            available=memory.available,
            machine_total=memory.machine_total,
            machine_available=memory.machine_available,
            cgroup_limit=memory.cgroup_limit,
            cgroup_used=memory.cgroup_used,
            unknown=memory.unknown,
        ),
        disks=[
            resources_pb2.DiskResources(
                source=SOURCES[disk.source],
                purpose=disk.purpose,
                path=str(disk.path),
                total=disk.total,
                free=disk.free,
                filesystem=disk.filesystem,
                unknown=disk.unknown,
            )
            for disk in resources.disks
        ],
        accelerators=[_accelerator_to_proto(one) for one in resources.accelerators],
        sampled_at=timestamp(resources.sampled_at),
        unknown=resources.unknown,
    )


def _accelerator_to_proto(device: AcceleratorFigures) -> resources_pb2.Accelerator:
    return resources_pb2.Accelerator(
        source=SOURCES[device.source],
        vendor=VENDORS[device.vendor],
        name=device.name,
        address=device.address,
        memory_total=device.memory_total,
        memory_used=device.memory_used,
        utilization_percent=device.utilization_percent,
        temperature_celsius=device.temperature_celsius,
        driver=device.driver,
        driver_version=device.driver_version,
        unknown=device.unknown,
    )


def sampling_from_proto(request: Any) -> Sampling:
    """Return what a completion's or a chat's request says about sampling."""

    def said(name: str) -> Any:
        return getattr(request, name) if request.HasField(name) else None

    names = {field.name for field in request.DESCRIPTOR.fields}
    newer = said("max_completion_tokens") if "max_completion_tokens" in names else None
    return Sampling(
        max_tokens=newer if newer is not None else said("max_tokens"),
        temperature=said("temperature"),
        top_p=said("top_p"),
        top_k=said("top_k"),
        min_p=said("min_p"),
        seed=said("seed"),
        repeat_penalty=said("repeat_penalty"),
        frequency_penalty=said("frequency_penalty"),
        presence_penalty=said("presence_penalty"),
    )


def turn_from_proto(message: inference_pb2.ChatMessage, field: str) -> ChatTurn:
    """Return one message of a chat.

    Raises:
        InvalidArgumentError: If the content is neither text nor a list of parts of text.
    """
    calls = tuple(
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in message.tool_calls
    )
    return ChatTurn(
        role=message.role,
        content=_content(message.content, f"{field}.content"),
        name=message.name,
        tool_call_id=message.tool_call_id,
        tool_calls=calls,
    )


def _content(content: Value, field: str) -> str:
    kind = content.WhichOneof("kind")
    if kind in (None, "null_value"):
        return ""
    if kind == "string_value":
        return content.string_value
    if kind != "list_value":
        raise InvalidArgumentError(f"{field} is neither text nor a list of parts", field=field)
    texts: list[str] = []
    for number, part in enumerate(content.list_value.values):
        fields = part.struct_value.fields
        part_type = fields["type"].string_value if "type" in fields else ""
        if part_type not in ("text", "input_text") or "text" not in fields:
            message = f"cannot read a part of type {part_type or '(none)'}: only text is understood"
            raise InvalidArgumentError(message, field=f"{field}[{number}]")
        texts.append(fields["text"].string_value)
    return "\n".join(texts)


def tool_calls_to_proto(
    calls: Sequence[ToolCallPiece], *, is_stream: bool
) -> list[inference_pb2.ToolCall]:
    """Return calls to tools, or pieces of them; only pieces tell their position."""
    return [
        inference_pb2.ToolCall(
            index=call.index if is_stream else None,
            id=call.id or None,
            type="function" if call.id or not is_stream else None,
            function=inference_pb2.FunctionCall(name=call.name or None, arguments=call.arguments),
        )
        for call in calls
    ]


def plain(message: Any) -> Any:
    """Return a Struct, Value or ListValue as plain objects."""
    if isinstance(message, Struct):
        return {key: plain(value) for key, value in message.fields.items()}
    if isinstance(message, ListValue):
        return [plain(value) for value in message.values]
    kind = message.WhichOneof("kind")
    if kind in (None, "null_value"):
        return None
    value = getattr(message, kind)
    if kind in ("struct_value", "list_value"):
        return plain(value)
    # A schema that says `"maxItems": 3` must not reach an engine as 3.0.
    if kind == "number_value" and value.is_integer() and abs(value) < _LARGEST_EXACT:
        return int(value)
    return value
