"""Long lists and maps, written a slice at a time."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from google.protobuf.message import Message

from localplane.v1 import gallery_pb2, gallery_service_pb2, job_pb2, job_service_pb2
from localplane_gateway.codec import codec_for
from localplane_gateway.codec.error import CodecError
from localplane_gateway.slices import SLICE, SlicedField

Galleries = gallery_service_pb2.ListGalleriesResponse
Jobs = job_service_pb2.ListJobsResponse


def sliced(message_class: type[Message], name: str) -> SlicedField:
    """Return what writes a field that is a list or a map of messages."""
    found = SlicedField.of(message_class, name)
    assert found is not None
    return found


def jobs(count: int) -> Jobs:
    return Jobs(jobs={f"id-{n}": job_pb2.Job(uuid=f"id-{n}", error='"') for n in range(count)})


COUNTS = [0, 1, SLICE, SLICE + 1, 3 * SLICE, 3 * SLICE + 1]


@pytest.mark.parametrize("count", COUNTS)
async def test_map(count: int) -> None:
    """It is what is written at once."""
    whole = codec_for(Jobs).encode_field(jobs(count), "jobs")
    written = await sliced(Jobs, "jobs").encode(jobs(count))

    assert orjson.loads(whole) == orjson.loads(written)
    assert count == len(orjson.loads(written))


@pytest.mark.parametrize("count", COUNTS)
async def test_list(count: int) -> None:
    """It is what is written at once, in its order."""
    message = Galleries(galleries=[gallery_pb2.Gallery(name=f"g{n}") for n in range(count)])

    assert codec_for(Galleries).encode_field(message, "galleries") == (
        await sliced(Galleries, "galleries").encode(message)
    )


async def test_others_have_their_turn() -> None:
    """Whoever has something else to do does it after each slice."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await sliced(Jobs, "jobs").encode(jobs(10 * SLICE))
    task.cancel()

    assert turns >= 10


async def test_what_cannot_be_written() -> None:
    """The error is the one that the whole would have, wherever the culprit is."""
    message = jobs(3 * SLICE)
    message.jobs[f"id-{2 * SLICE}"].result["x"] = float("nan")

    with pytest.raises(CodecError) as whole:
        codec_for(Jobs).encode_field(message, "jobs")
    with pytest.raises(CodecError) as caught:
        await sliced(Jobs, "jobs").encode(message)

    assert str(whole.value) == str(caught.value)
    assert f"id-{2 * SLICE}" in str(caught.value)


@pytest.mark.parametrize(
    ("message_class", "name"),
    [(Jobs, ""), (Jobs, "next_page_token"), (job_pb2.Job, "error_metadata"), (job_pb2.Job, "uuid")],
)
def test_nothing_to_slice(message_class: type[Message], name: str) -> None:
    """Single values, lists and maps of plain values, and whole messages are written at once."""
    assert SlicedField.of(message_class, name) is None
