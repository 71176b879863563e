"""Memory of devices, by process tree."""

from __future__ import annotations

from datetime import UTC, datetime

from localplane_server.supervision.devices import (
    NOT_TOLD,
    DeviceMemory,
    DeviceReading,
    DeviceUse,
    memory_of,
)


def use(pid: int, used: int | None, device: str = "a", total: int | None = 1000) -> DeviceUse:
    return DeviceUse(
        pid=pid, name="GPU", address=f"0000:0{device}:00.0", used_bytes=used, total_bytes=total
    )


def reading(*uses: DeviceUse) -> DeviceReading:
    return DeviceReading(uses=uses, sampled_at=datetime.now(UTC))


def memory(used: int | None, device: str = "a") -> DeviceMemory:
    return DeviceMemory(
        name="GPU",
        address=f"0000:0{device}:00.0",
        used_bytes=used,
        total_bytes=1000,
        unknown={} if used is not None else {"used": NOT_TOLD},
    )


def test_summed_over_the_tree() -> None:
    """Of each device, what the processes of the tree use together; others do not count."""
    read = reading(use(1, 10), use(2, 20), use(9, 500), use(1, 5, "b"))

    assert (memory(30), memory(5, "b")) == memory_of(read, {1, 2})


def test_none_of_ours() -> None:
    """A device that lists none of the tree is not there."""
    assert () == memory_of(reading(use(9, 1)), {1})


def test_unknown_is_not_zero() -> None:
    """A sum with an unknown part is unknown; zero is a figure."""
    assert (memory(None),) == memory_of(reading(use(1, 10), use(2, None)), {1, 2})
    assert (memory(0),) == memory_of(reading(use(1, 0)), {1})


def test_device_that_tells_little() -> None:
    """Whatever is missing has a reason."""
    bare = DeviceUse(pid=1, name="GPU", address=None, used_bytes=3, total_bytes=None)
    (found,) = memory_of(reading(bare), {1})

    assert dict.fromkeys(("address", "total"), NOT_TOLD) == found.unknown
