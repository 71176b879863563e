"""Installations and deletions as jobs, over every transport, with a real server of files.

One module, longer than others: its tests share one service, whose start takes longer than most of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import json_format

import file_server
from contract.transports import CallError, GrpcTransport, RestTransport, Transport
from file_server import FileServer
from localplane.v1 import (
    gallery_pb2,
    gallery_service_pb2,
    job_pb2,
    job_service_pb2,
    summary_pb2,
    system_service_pb2,
    watch_pb2,
)
from localplane_server.app import App
from localplane_server.gallery_setting import GallerySetting

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS: dict[str, Any] = {"allow_private_hosts": ("127.0.0.1",), "offline": False}
SIZE = 4 << 20
PART = SIZE // 4
MOST_CONNECTIONS = 8
"""At most, of one file. Each has a piece under way."""

SHELF = b"- {name: Stock, overrides: {backend: fake}}"
STOCK = b"{name: Stock, config_file: {backend: fake}}"

_SERVERS: list[FileServer] = []


@contextlib.contextmanager
def prepare(_request: Any, _data_dir: Path) -> Iterator[dict[str, Any]]:
    """Serve files while the service runs."""
    with file_server.serving() as server:
        server.routes["/shelf.yaml"] = lambda _: (200, {}, SHELF)
        server.routes["/stock.yaml"] = lambda _: (200, {}, STOCK)
        _SERVERS.append(server)
        yield {"galleries": (GallerySetting("shelf", f"{server.url}/shelf.yaml"),)}
        _SERVERS.remove(server)


@pytest.fixture
def files(app: App) -> Generator[FileServer]:  # noqa: ARG001 - has it run
    """The server of files, with nothing held back in the end."""
    server = _SERVERS[-1]
    yield server
    server.allow(None)


@pytest.fixture
def name() -> str:
    """A model's name that no other test has."""
    return f"model-{uuid.uuid4().hex[:12]}"


def apply_request(
    files: FileServer, name: str, *, size: int = SIZE, **more: Any
) -> gallery_service_pb2.ApplyModelRequest:
    """Return a request for a model of one file, which the server has from now on."""
    served = files.put(f"/{name}.bin", name.encode() * (size // len(name)), etag=f'"{name}"')
    request = gallery_service_pb2.ApplyModelRequest(
        name=name,
        files=[
            gallery_pb2.GalleryFile(
                filename=f"{name}.bin", uri=f"{files.url}/{name}.bin", sha256=served.sha256
            )
        ],
        **more,
    )
    request.config_file.update({"backend": "fake", "parameters": {"model": f"{name}.bin"}})
    return request


async def apply(transport: Transport, request: gallery_service_pb2.ApplyModelRequest) -> str:
    reference = await transport.call("GalleryService.ApplyModel", request)
    return str(reference.uuid)


async def get(transport: Transport, job_id: str) -> job_pb2.Job:
    answer: job_pb2.Job = await transport.call(
        "JobService.GetJob", job_service_pb2.GetJobRequest(uuid=job_id)
    )
    return answer


async def until(
    transport: Transport, job_id: str, is_so: Callable[[job_pb2.Job], bool]
) -> job_pb2.Job:
    """Return a job once something is so of it."""
    async with asyncio.timeout(30):
        while not is_so(job := await get(transport, job_id)):
            await asyncio.sleep(0.01)
    return job


async def finished(transport: Transport, job_id: str) -> job_pb2.Job:
    return await until(transport, job_id, lambda job: job.processed)


async def watch(transport: Transport, job_id: str, after: str = "") -> AsyncGenerator[Any]:
    request = job_service_pb2.WatchJobRequest(uuid=job_id, after_revision=after)
    async for message in transport.stream("JobService.WatchJob", request):
        yield message


def left_of(name: str, models_folder: Path) -> list[Path]:
    """Return what there is of a model."""
    return [path for path in models_folder.iterdir() if name in path.name]


async def models(transport: Transport) -> set[str]:
    summary: summary_pb2.Summary = await transport.call(
        "SystemService.GetSummary", system_service_pb2.GetSummaryRequest()
    )
    return {model.name for model in summary.models_config.models}


async def test_install_and_delete(
    transport: Transport, files: FileServer, name: str, models_folder: Path
) -> None:
    """A model is installed and listed, then deleted and gone; the jobs tell what they came to."""
    job_id = await apply(transport, apply_request(files, name))
    job = await finished(transport, job_id)
    are_there = (name in await models(transport), (models_folder / f"{name}.bin").is_file())
    reference = await transport.call(
        "GalleryService.DeleteModel", gallery_service_pb2.DeleteModelRequest(name=name)
    )
    deletion = await finished(transport, reference.uuid)

    assert ("completed", "completed", 100.0) == (job.message, job.phase, job.progress)
    assert job_pb2.JOB_STATE_COMPLETED == job.state
    assert not job.deletion
    assert len(name) * (SIZE // len(name)) == job.current_bytes == job.total_bytes
    assert "4.0 MiB" == job.file_size
    assert [(f"{name}.bin", job_pb2.JOB_FILE_STATE_DONE)] == [
        (one.name, one.state) for one in job.files
    ]
    assert name == job.gallery_element_name == job.gallery_model_name == job.result["name"]
    assert (True, True) == are_there
    assert deletion.deletion
    assert ("completed", 100.0) == (deletion.message, deletion.progress)
    assert f"{name}.bin" in json_format.MessageToDict(deletion.result)["removed"]
    assert name not in await models(transport)
    assert [] == left_of(name, models_folder)


async def test_reference(transport: Transport, files: FileServer, name: str) -> None:
    """The answer names the job, and where REST tells of it: an absolute URL over REST."""
    reference = await transport.call(
        "GalleryService.ApplyModel", apply_request(files, name, size=64)
    )

    assert 1 == uuid.UUID(reference.uuid).version
    expected = f"/models/jobs/{reference.uuid}"
    if isinstance(transport, RestTransport):
        base = str(transport._client.base_url).rstrip("/")
        assert f"{base}{expected}" == reference.status
        response = await transport._client.get(reference.status)
        assert reference.uuid == response.json()["uuid"]
    else:
        assert expected == reference.status
    await finished(transport, reference.uuid)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/models/delete/one", {"name": "other"}),
        ("/models/jobs/one/cancel", {"uuid": "other"}),
        ("/models/jobs/one/pause", {"uuid": 1}),
    ],
)
async def test_path_and_body_differ(transport: Transport, path: str, body: dict[str, Any]) -> None:
    """What the path names is not what is ended or deleted if the body names something else: nothing is."""
    if not isinstance(transport, RestTransport):
        pytest.skip("paths are REST's")
    response = await transport._client.post(path, json=body)

    assert (400, "INVALID_ARGUMENT") == (
        response.status_code,
        response.json()["error"]["reason"],
    )
    assert next(iter(body)) == response.json()["error"]["metadata"]["field"]


async def test_unknown_model(transport: Transport) -> None:
    """A model that no gallery has is a job that fails with the cause, for people and for programs."""
    request = gallery_service_pb2.ApplyModelRequest(id="gallery@no/such-model")
    job = await finished(transport, await apply(transport, request))

    assert job_pb2.JOB_STATE_FAILED == job.state
    assert "MODEL_NOT_IN_GALLERY" == job.error_reason
    assert job.error in job.message
    assert job.message.startswith("error: ")
    assert job.error_metadata["model"]
    assert not job.HasField("result")


async def test_unknown_model_deleted(transport: Transport, name: str) -> None:
    """Deleting a model that there is not fails as a job, not as a call."""
    reference = await transport.call(
        "GalleryService.DeleteModel", gallery_service_pb2.DeleteModelRequest(name=name)
    )
    job = await finished(transport, reference.uuid)

    assert job.deletion
    assert "MODEL_NOT_FOUND" == job.error_reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "INVALID_ARGUMENT"),
        ({"name": "x"}, "INVALID_ARGUMENT"),
        ({"id": "a\nb"}, "INVALID_ARGUMENT"),
        ({"id": "a", "name": "../x"}, "INVALID_ARGUMENT"),
        ({"url": "no url at all"}, "INVALID_ARGUMENT"),
        ({"id": "a", "request_id": "once"}, "INVALID_ARGUMENT"),
        (
            {"id": "a", "files": [gallery_pb2.GalleryFile(filename="/x", uri="https://x/y")]},
            "INVALID_ARGUMENT",
        ),
    ],
)
async def test_bad_requests(transport: Transport, fields: dict[str, Any], reason: str) -> None:
    """What cannot be used is refused at once, and no job is made of it."""
    before = await transport.call("JobService.ListJobs", job_service_pb2.ListJobsRequest())
    with pytest.raises(CallError) as caught:
        await apply(transport, gallery_service_pb2.ApplyModelRequest(**fields))
    after = await transport.call("JobService.ListJobs", job_service_pb2.ListJobsRequest())

    assert caught.value.reason in (reason, "INVALID_MODEL_NAME")
    assert caught.value.code in (grpc.StatusCode.INVALID_ARGUMENT, 400)
    assert set(before.jobs) == set(after.jobs)


@pytest.mark.parametrize("job_id", ["b4b2f8a6-5f6c-4a0e-9d0c-3e1f0a7c2d11", "x", "../jobs", "%00"])
async def test_unknown_job(transport: Transport, job_id: str) -> None:
    """Identifiers of no job and texts that are none are not found, whatever is asked."""
    for method in ("GetJob", "CancelJob", "PauseJob", "ResumeJob"):
        request = getattr(job_service_pb2, f"{method}Request")(uuid=job_id)
        with pytest.raises(CallError) as caught:
            await transport.call(f"JobService.{method}", request)
        assert "JOB_NOT_FOUND" == caught.value.reason
        assert caught.value.code in (grpc.StatusCode.NOT_FOUND, 404)
    with pytest.raises(CallError) as caught:
        await anext(watch(transport, job_id))
    assert "JOB_NOT_FOUND" == caught.value.reason


async def test_fifty_applies(transport: Transport, files: FileServer, name: str) -> None:
    """Fifty who ask at once get one job, and the file is fetched once."""
    request = apply_request(files, name)
    # It is not over before the last one asks.
    files.allow(files.sent)
    ids = await asyncio.gather(*[apply(transport, request) for _ in range(50)])
    files.allow(None)
    await finished(transport, ids[0])

    assert 1 == len(set(ids))
    fetched = sum(asked.sent for asked in files.fetched(f"/{name}.bin"))
    assert len(files.files[f"/{name}.bin"].content) == fetched


async def test_one_model_by_all_its_names(
    transport: Transport, files: FileServer, name: str, models_folder: Path
) -> None:
    """A gallery's model is one job whatever it is called; what turns out to be the same model waits for that."""
    wanted = apply_request(files, name)
    files.allow(files.sent)
    requests = [
        gallery_service_pb2.ApplyModelRequest(id=spelling, files=wanted.files)
        for spelling in ("shelf@Stock", "stock", "SHELF@STOCK", "Stock")
    ]
    requests.append(gallery_service_pb2.ApplyModelRequest(id="stock", name="Stock"))
    requests[-1].files.extend(wanted.files)
    ids = [await apply(transport, request) for request in requests]
    by_url = await apply(
        transport, gallery_service_pb2.ApplyModelRequest(url=f"{files.url}/stock.yaml")
    )
    waiting = await until(transport, by_url, lambda job: job.phase == "waiting")
    first = await get(transport, ids[0])
    files.allow(None)
    ends = [(await finished(transport, one)).state for one in (ids[0], by_url)]
    reference = await transport.call(
        "GalleryService.DeleteModel", gallery_service_pb2.DeleteModelRequest(name="Stock")
    )
    await finished(transport, reference.uuid)

    assert 1 == len(set(ids))
    assert job_pb2.JOB_STATE_RUNNING == waiting.state == first.state
    assert [job_pb2.JOB_STATE_COMPLETED] * 2 == ends
    assert not (models_folder / "Stock.yaml").exists()


@pytest.mark.parametrize(
    "uri", ["https://10.0.0.1/x", "http://host/x", "file:///etc/passwd", "ftp://host/x"]
)
async def test_refused_source(transport: Transport, name: str, uri: str) -> None:
    """Where a URL says itself that nothing may be fetched from there, the call is refused and no job begins."""
    for fields in (
        {"url": uri},
        {"config_url": uri},
        {"id": "smollm2", "files": [gallery_pb2.GalleryFile(filename=name, uri=uri)]},
    ):
        with pytest.raises(CallError) as caught:
            await apply(transport, gallery_service_pb2.ApplyModelRequest(name=name, **fields))
        assert "SOURCE_REFUSED" == caught.value.reason
        assert caught.value.code in (grpc.StatusCode.INVALID_ARGUMENT, 400)
    jobs = await transport.call("JobService.ListJobs", job_service_pb2.ListJobsRequest())

    assert name not in {job.gallery_model_name for job in jobs.jobs.values()}


async def test_request_id(transport: Transport, files: FileServer, name: str) -> None:
    """The same request with the same identifier is the same job, also when that is over; another one is refused."""
    request = apply_request(files, name, size=64, request_id=str(uuid.uuid4()))
    first = await apply(transport, request)
    await finished(transport, first)
    again = await apply(transport, request)
    request.variant = ""
    request.overrides.update({"threads": 2})
    with pytest.raises(CallError) as caught:
        await apply(transport, request)

    assert first == again
    assert "REQUEST_ID_REUSED" == caught.value.reason
    assert caught.value.code in (grpc.StatusCode.ALREADY_EXISTS, 409)


async def test_progress_and_cancel(
    transport: Transport, files: FileServer, name: str, models_folder: Path
) -> None:
    """A job shows how far it is; cancelled, it ends at once, leaves nothing, and stays cancelled."""
    files.allow(files.sent + PART)
    job_id = await apply(transport, apply_request(files, name))
    running = await until(transport, job_id, lambda job: job.current_bytes > 0)
    sent = files.sent
    began = asyncio.get_running_loop().time()
    answer = await transport.call(
        "JobService.CancelJob", job_service_pb2.CancelJobRequest(uuid=job_id)
    )
    seconds = asyncio.get_running_loop().time() - began
    files.allow(None)
    with pytest.raises(CallError) as caught:
        await transport.call("JobService.CancelJob", job_service_pb2.CancelJobRequest(uuid=job_id))
    job = await get(transport, job_id)

    assert 0 < running.progress < 100
    assert running.cancellable
    assert re.fullmatch(
        rf"processing file: {name}\.bin\. Total: 4\.0 MiB\. Current: [\d.]+ [KM]iB", running.message
    )
    assert (f"{name}.bin", "downloading") == (running.file_name, running.phase)
    assert seconds < 5
    assert answer.success
    assert "Operation cancelled" == answer.message
    assert job_pb2.JOB_STATE_CANCELLED == answer.job.state == job.state
    assert (True, True, False, False) == (
        job.cancelled,
        job.processed,
        job.cancellable,
        job.HasField("error"),
    )
    assert "JOB_FINISHED" == caught.value.reason
    assert caught.value.code in (grpc.StatusCode.FAILED_PRECONDITION, 400)
    assert files.sent <= sent + MOST_CONNECTIONS * file_server.PIECE_BYTES
    assert [] == left_of(name, models_folder)


async def test_pause_and_resume(transport: Transport, files: FileServer, name: str) -> None:
    """A paused job fetches nothing, and goes on with what it has."""
    files.allow(files.sent + PART)
    job_id = await apply(transport, apply_request(files, name))
    await until(transport, job_id, lambda job: job.current_bytes > 0)
    paused = await transport.call(
        "JobService.PauseJob", job_service_pb2.PauseJobRequest(uuid=job_id)
    )
    files.allow(None)
    still = await get(transport, job_id)
    resumed = await transport.call(
        "JobService.ResumeJob", job_service_pb2.ResumeJobRequest(uuid=job_id)
    )
    job = await finished(transport, job_id)

    assert job_pb2.JOB_STATE_PAUSED == paused.job.state == still.state
    assert ("paused", "Operation paused") == (paused.job.message, paused.message)
    assert resumed.job.state in (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING)
    assert (job_pb2.JOB_STATE_COMPLETED, 2) == (job.state, job.runs)
    asked = files.fetched(f"/{name}.bin")
    assert any(one.start > 0 for one in asked), asked


async def test_watch(transport: Transport, files: FileServer, name: str) -> None:
    """A watch begins with what is, goes on from where it was cut, and ends with the job."""
    files.allow(files.sent + PART)
    job_id = await apply(transport, apply_request(files, name))
    await until(transport, job_id, lambda job: job.current_bytes > 0)
    async with contextlib.aclosing(watch(transport, job_id)) as messages:
        first = await anext(messages)
    files.allow(None)
    rest = [message async for message in watch(transport, job_id, first.revision)]
    after = [message async for message in watch(transport, job_id, rest[-1].revision)]
    late = [message async for message in watch(transport, job_id)]

    assert watch_pb2.WATCH_KIND_SNAPSHOT == first.kind
    assert job_id == first.job.uuid
    assert {watch_pb2.WATCH_KIND_CHANGES} == {message.kind for message in rest}
    bytes_told = [message.job.current_bytes for message in rest if message.HasField("job")]
    assert sorted(bytes_told) == bytes_told
    assert job_pb2.JOB_STATE_COMPLETED == rest[-1].job.state
    assert [False] == [message.HasField("job") for message in after]
    assert [job_pb2.JOB_STATE_COMPLETED] == [message.job.state for message in late]


async def test_pages(transport: Transport, files: FileServer, name: str) -> None:
    """All jobs come at once, or in pages that together are the same."""
    for number in range(3):
        await finished(
            transport, await apply(transport, apply_request(files, f"{name}-{number}", size=64))
        )
    everything = await transport.call("JobService.ListJobs", job_service_pb2.ListJobsRequest())
    assert len(everything.jobs) >= 3
    if not isinstance(transport, GrpcTransport):
        return
    found: set[str] = set()
    token = ""
    while True:
        request = job_service_pb2.ListJobsRequest(page_size=2, page_token=token)
        answer = await transport.call("JobService.ListJobs", request)
        assert len(answer.jobs) <= 2
        found |= set(answer.jobs)
        if not (token := answer.next_page_token):
            break
    assert set(everything.jobs) == found


async def test_pages_over_rest(
    transports: dict[str, Transport], files: FileServer, name: str
) -> None:
    """Over REST the list is a bare object; the next page is in the headers."""
    for transport in (transports["rest"], transports["rest-upstream"]):
        assert isinstance(transport, RestTransport)
        for number in range(3):
            request = apply_request(files, f"{name}-{number}", size=64)
            await finished(transport, await apply(transport, request))
        client = transport._client
        everything = (await client.get("/models/jobs")).json()
        found: dict[str, Any] = {}
        url = "/models/jobs?page_size=2"
        while True:
            response = await client.get(url)
            assert response.status_code == httpx.codes.OK
            found |= response.json()
            if "next" not in response.links:
                break
            url = response.links["next"]["url"]
            token = response.headers["x-next-page-token"]
            assert token == httpx.URL(url).params["page_token"]
        assert "x-next-page-token" not in response.headers
        assert everything.keys() == found.keys()
        assert all(job["uuid"] == job_id for job_id, job in everything.items())


async def test_rest_details(transports: dict[str, Transport], files: FileServer, name: str) -> None:
    """REST has LocalAI's keys with its types, its second route to cancel, and takes the usual header."""
    transport = transports["rest"]
    assert isinstance(transport, RestTransport)
    client = transport._client
    served = files.put(f"/{name}.bin", name.encode())
    body = {
        "name": name,
        "config_file": {"backend": "fake"},
        "files": [
            {"filename": f"{name}.bin", "uri": f"{files.url}/{name}.bin", "sha256": served.sha256}
        ],
        "license": "ignored",
        "tags": ["ignored"],
    }
    header = {"idempotency-key": str(uuid.uuid4())}
    first = (await client.post("/models/apply", json=body, headers=header)).json()
    await finished(transport, first["uuid"])
    again = (await client.post("/models/apply", json=body, headers=header)).json()
    other = await client.post("/models/apply", json={"id": "other"}, headers=header)
    job = (await client.get(first["status"])).json()
    cancelled = await client.post(f"/api/operations/{first['uuid']}/cancel")

    assert ["uuid", "status"] == list(first)
    assert first["uuid"] == again["uuid"]
    assert (409, "REQUEST_ID_REUSED") == (other.status_code, other.json()["error"]["reason"])
    assert {
        "deletion": False,
        "file_name": "",
        "error": None,
        "processed": True,
        "message": "completed",
        "progress": 100.0,
        "phase": "completed",
        "current_bytes": len(name),
        "total_bytes": len(name),
        "file_size": f"{len(name)} B",
        "downloaded_size": f"{len(name)} B",
        "gallery_model_name": name,
        "gallery_element_name": name,
        "cancelled": False,
        "cancellable": False,
        "uuid": first["uuid"],
        "state": "completed",
        "error_reason": None,
        "error_metadata": {},
        "rate": None,
        "eta": None,
    } == dict(list(job.items())[:21])
    assert (400, "JOB_FINISHED") == (
        cancelled.status_code,
        cancelled.json()["error"]["reason"],
    )


async def test_summary(transports: dict[str, Transport], files: FileServer, name: str) -> None:
    """The first page shows which models are being installed, as long as they are."""
    transport = transports["rest"]
    assert isinstance(transport, RestTransport)
    client = transport._client
    files.allow(files.sent + PART)
    job_id = await apply(transport, apply_request(files, name))
    await until(transport, job_id, lambda job: job.current_bytes > 0)
    during = (await client.get("/")).json()
    files.allow(None)
    await finished(transport, job_id)
    after = (await client.get("/")).json()

    assert {name: job_id} == during["ProcessingModels"]
    assert {name: "Installation"} == during["TaskTypes"]
    assert {} == after["ProcessingModels"] == after["TaskTypes"]


async def test_events_over_rest(
    transports: dict[str, Transport], files: FileServer, name: str
) -> None:
    """Server-sent events carry their places; a browser that comes back gets what it missed."""
    transport = transports["rest"]
    assert isinstance(transport, RestTransport)
    job_id = await apply(transport, apply_request(files, name, size=64))
    await finished(transport, job_id)
    url = f"/models/jobs/{job_id}/watch"
    accept = {"accept": "text/event-stream"}
    first = await transport._client.get(url, headers=accept)
    place = re.search(r"^id: (\S+)$", first.text, re.MULTILINE)
    assert place
    again = await transport._client.get(url, headers={**accept, "last-event-id": place[1]})

    assert '"completed"' in first.text
    assert '"job":null' in again.text
