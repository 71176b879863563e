"""Galleries over every transport, with real indexes on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from contract.transports import CallError, RestTransport, Transport
from index_server import IndexServer, index_server
from localplane.v1 import gallery_pb2
from localplane.v1 import gallery_service_pb2 as pb
from localplane_server.app import App
from localplane_server.gallery_setting import GallerySetting

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("unharmed")]

INDEX = """
- &family
  name: alpha-q4
  url: github:owner/repo/alpha.yaml@master
  description: Alpha talks
  license: mit
  icon: https://host/alpha.png
  urls: [https://host/alpha]
  tags: [llm, gguf]
  size: 1GB
  last_checked: "2026-08-19"
  variants: [{model: alpha-q8}]
  overrides: {backend: llama-cpp, parameters: {model: a.gguf, temperature: 0.5}, f16: true, k: null}
  files: [{filename: a.gguf, sha256: aa, uri: 'https://host/a.gguf'}]
- !!merge <<: *family
  name: alpha-q8
  tags: [llm]
- name: tiny
  config_file: {backend: whisper}
- name: org/beta
- {name: bad, overrides: [1]}
"""
ALPHA = {
    "url": "github:owner/repo/alpha.yaml@master",
    "name": "alpha-q4",
    "description": "Alpha talks",
    "license": "mit",
    "icon": "https://host/alpha.png",
    "urls": ["https://host/alpha"],
    "tags": ["llm", "gguf"],
    "size": "1GB",
    "last_checked": "2026-08-19",
    "variants": [{"model": "alpha-q8"}],
    "overrides": {
        "backend": "llama-cpp",
        "parameters": {"model": "a.gguf", "temperature": 0.5},
        "f16": True,
        "k": None,
    },
    "files": [{"filename": "a.gguf", "sha256": "aa", "uri": "https://host/a.gguf"}],
    "backend": "llama-cpp",
    "installed": False,
}
NAMES = ["minilm", "smollm2", "alpha-q4", "alpha-q8", "org/beta", "tiny"]

SOON = 5.0
"""Seconds for what is promised within one."""

_servers: list[IndexServer] = []


@contextmanager
def prepare(_request: pytest.FixtureRequest, _data_dir: Path) -> Iterator[dict[str, Any]]:
    """Serve an index, and configure it as a gallery, beside one that is not there."""
    with index_server() as server:
        url = server.put("/index.yaml", INDEX, etag='"1"')
        _servers.append(server)
        yield {
            "galleries": (
                GallerySetting("first", url),
                GallerySetting("gone", f"{server.url}/gone.yaml"),
            ),
            "allow_private_hosts": ("127.0.0.1",),
        }
        _servers.remove(server)


@pytest.fixture
def server() -> IndexServer:
    """The server that the indexes are on."""
    return _servers[0]


@pytest.fixture
def http(transport: Transport) -> httpx.AsyncClient:
    """The client of a REST transport; tests of REST alone are skipped for the others."""
    if not isinstance(transport, RestTransport):
        pytest.skip("of REST alone")
    return transport._client


async def galleries(transport: Transport) -> list[gallery_pb2.Gallery]:
    answer = await transport.call("GalleryService.ListGalleries", pb.ListGalleriesRequest())
    return list(answer.galleries)


async def available(transport: Transport, **wanted: Any) -> list[gallery_pb2.GalleryModel]:
    answer = await transport.call(
        "GalleryService.ListAvailableModels", pb.ListAvailableModelsRequest(**wanted)
    )
    return list(answer.models)


async def read(transport: Transport, name: str) -> gallery_pb2.Gallery:
    """Wait until a gallery was read, or could not be."""
    while True:
        await available(transport)
        found = {gallery.name: gallery for gallery in await galleries(transport)}[name]
        if found.HasField("models") or found.error:
            return found
        await asyncio.sleep(0.01)


async def remove(transport: Transport, name: str) -> list[gallery_pb2.Gallery]:
    answer = await transport.call(
        "GalleryService.RemoveGallery", pb.RemoveGalleryRequest(name=name)
    )
    return list(answer.galleries)


async def add(transport: Transport, name: str, url: str, **more: Any) -> list[gallery_pb2.Gallery]:
    request = pb.AddGalleryRequest(name=name, url=url, **more)
    return list((await transport.call("GalleryService.AddGallery", request)).galleries)


class TestListGalleries:
    async def test_what_is_wrong(self, transport: Transport, server: IndexServer) -> None:
        """Each gallery with what it offers, what of it cannot be used, and why one cannot be read."""
        await read(transport, "gone")
        builtin, first, gone = await galleries(transport)

        assert ("builtin://localplane", "localplane") == (builtin.url, builtin.name)
        assert builtin.models >= 2
        assert not builtin.HasField("read_at")
        assert (4, f"{server.url}/index.yaml") == (first.models, first.source)
        assert first.HasField("read_at")
        assert not first.HasField("error")
        assert 1 == first.problem_count
        assert [("bad", 21)] == [(one.entry, one.line) for one in first.problems]
        assert "overrides is no mapping" in first.problems[0].message
        assert not gone.HasField("models")
        assert "404" in gone.error


class TestAddGallery:
    async def test_added_and_removed(self, transport: Transport, server: IndexServer) -> None:
        """It is behind the others and offers what it has; then it is gone."""
        url = server.put("/more.yaml", "- {name: gamma}\n")
        added = await add(transport, "more", url, mirrors=[f"{url}?mirror"])

        assert ["localplane", "first", "gone", "more"] == [one.name for one in added]
        assert (url, [f"{url}?mirror"]) == (added[-1].url, list(added[-1].mirrors))
        assert 1 == (await read(transport, "more")).models
        assert [*NAMES, "gamma"] == [model.name for model in await available(transport)]

        removed = await remove(transport, "MORE")
        assert ["localplane", "first", "gone"] == [one.name for one in removed]
        assert NAMES == [model.name for model in await available(transport)]

    @pytest.mark.parametrize("name", ["first", "FIRST", "localplane"])
    async def test_taken(self, transport: Transport, name: str) -> None:
        """A name is a gallery's alone, whatever the case."""
        url = "builtin://localplane" if name == "localplane" else "https://host/"
        with pytest.raises(CallError) as caught:
            await add(transport, name, url)

        assert ("ALREADY_EXISTS", {"gallery": name}) == (
            caught.value.reason,
            caught.value.metadata,
        )

    @pytest.mark.parametrize(
        ("name", "url", "reason"),
        [
            ("x", "https://10.0.0.1/index.yaml", "SOURCE_REFUSED"),
            ("x", "https://localhost/index.yaml", "SOURCE_REFUSED"),
            ("x", "https://[::1]/index.yaml", "SOURCE_REFUSED"),
            ("x", "https://169.254.169.254/latest/meta-data", "SOURCE_REFUSED"),
            ("x", "https://0.0.0.0/", "SOURCE_REFUSED"),
            ("x", "https://[::ffff:127.0.0.1]/", "SOURCE_REFUSED"),
            ("x", "http://192.168.1.1/", "SOURCE_REFUSED"),
            ("x", "file:///etc/passwd", "SOURCE_REFUSED"),
            ("x", "ftp://host/", "INVALID_ARGUMENT"),
            ("x", "https://user:secret@host/", "INVALID_ARGUMENT"),
            ("x", "https://host/a\nb", "INVALID_ARGUMENT"),
            ("x", "https://host/\x00", "INVALID_ARGUMENT"),
            ("x", f"https://host/{'x' * 100_000}", "INVALID_ARGUMENT"),
            ("x" * 65, "https://host/", "INVALID_ARGUMENT"),
            ("../x", "https://host/", "INVALID_ARGUMENT"),
            ("x", "", "INVALID_ARGUMENT"),
            ("", "https://host/", "INVALID_ARGUMENT"),
        ],
    )
    async def test_hostile(self, transport: Transport, name: str, url: str, reason: str) -> None:
        """What can only be wrong is refused at once with the reason, and nothing is added."""
        with pytest.raises(CallError) as caught:
            await add(transport, name, url)

        assert reason == caught.value.reason
        assert "secret" not in caught.value.message
        assert 3 == len(await galleries(transport))

    async def test_hostile_mirror(self, transport: Transport, server: IndexServer) -> None:
        """Mirrors are looked at like the URL itself."""
        with pytest.raises(CallError) as caught:
            await add(transport, "x", f"{server.url}/x", mirrors=["https://10.0.0.1/"])

        assert "SOURCE_REFUSED" == caught.value.reason

    async def test_no_index(self, transport: Transport, server: IndexServer) -> None:
        """What turns out to be none is told in the list, and costs the others nothing."""
        await add(transport, "page", server.put("/page.html", "<!doctype html><html></html>"))

        assert "web page" in (await read(transport, "page")).error
        assert NAMES == [model.name for model in await available(transport)]
        await remove(transport, "page")

    async def test_redirect_to_a_private_address(
        self, transport: Transport, server: IndexServer
    ) -> None:
        """A server that is allowed cannot lead to one that is not."""
        url = server.put("/away", b"", status=302, location="https://10.0.0.1/index.yaml")
        await add(transport, "away", url)

        assert "10.0.0.1" in (await read(transport, "away")).error
        await remove(transport, "away")


class TestRemoveGallery:
    async def test_unknown(self, transport: Transport) -> None:
        """What is not there cannot be removed."""
        with pytest.raises(CallError) as caught:
            await remove(transport, "nope")

        assert ("GALLERY_NOT_FOUND", {"gallery": "nope"}) == (
            caught.value.reason,
            caught.value.metadata,
        )


class TestListAvailableModels:
    async def test_one_that_does_not_answer(
        self, transport: Transport, server: IndexServer
    ) -> None:
        """It is waited for a moment, told to be read meanwhile, and there once it answers."""
        url = server.put("/slow.yaml", "- {name: slow}\n")
        server.pages["/slow.yaml"].is_open.clear()
        await read(transport, "gone")
        await add(transport, "slow", url)
        try:
            began = asyncio.get_running_loop().time()
            names = [model.name for model in await available(transport)]
            seconds = asyncio.get_running_loop().time() - began
            meanwhile = {one.name: one for one in await galleries(transport)}
            server.pages["/slow.yaml"].is_open.set()
            later = await read(transport, "slow")
            all_names = [model.name for model in await available(transport)]
        finally:
            server.pages["/slow.yaml"].is_open.set()
            await remove(transport, "slow")

        assert NAMES == names
        assert seconds < SOON
        assert (True, False) == (meanwhile["slow"].reading, meanwhile["first"].reading)
        assert not meanwhile["slow"].HasField("models")
        assert not meanwhile["slow"].HasField("error")
        assert 1 == later.models
        assert [*NAMES, "slow"] == all_names

    async def test_all(self, transport: Transport) -> None:
        """By gallery and name, each with its gallery; the one that is installed says so."""
        models = await available(transport)

        assert NAMES == [model.name for model in models]
        assert ["localplane"] * 2 + ["first"] * 4 == [model.gallery.name for model in models]
        assert ["tiny"] == [model.name for model in models if model.installed]

    @pytest.mark.parametrize(
        ("wanted", "names"),
        [
            ({"term": "ALPHA talks"}, ["alpha-q4", "alpha-q8"]),
            ({"tag": "GGUF", "term": "alpha"}, ["alpha-q4"]),
            ({"backend": "whisper"}, ["tiny"]),
            ({"backend": "llama-cpp"}, ["alpha-q4", "alpha-q8"]),
            ({"installed": True}, ["tiny"]),
            ({"installed": False, "term": "e"}, ["minilm", "smollm2", "org/beta"]),
            ({"term": "nothing of the kind"}, []),
        ],
    )
    async def test_filters(
        self, transport: Transport, wanted: dict[str, Any], names: list[str]
    ) -> None:
        """All that is asked for must be true."""
        assert names == [model.name for model in await available(transport, **wanted)]

    async def test_views(self, transport: Transport) -> None:
        """The basic view leaves out files, configuration and overrides."""
        full = (await available(transport, term="alpha-q4", view=pb.GALLERY_MODEL_VIEW_FULL))[0]
        basic = (await available(transport, term="alpha-q4", view=pb.GALLERY_MODEL_VIEW_BASIC))[0]
        usual = (await available(transport, term="alpha-q4"))[0]

        assert full == usual
        # A copy: what comes through the channel without a wire belongs to all.
        full = gallery_pb2.GalleryModel.FromString(full.SerializeToString())
        assert {"backend", "parameters", "f16", "k"} == set(full.overrides.fields)
        for field in ("files", "overrides"):
            full.ClearField(field)
        assert full == basic

    async def test_pages(self, transport: Transport) -> None:
        """All models, each once."""
        first = await available(transport, page_size=4)
        assert NAMES[:4] == [model.name for model in first]

    @pytest.mark.parametrize(
        "wanted", [{"page_size": -1}, {"page_token": "?"}, {"term": "x" * 1025}]
    )
    async def test_bad_arguments(self, transport: Transport, wanted: dict[str, Any]) -> None:
        """What cannot be asked is refused with the name of the field."""
        with pytest.raises(CallError) as caught:
            await available(transport, **wanted)

        assert "INVALID_ARGUMENT" == caught.value.reason
        assert next(iter(wanted)) == caught.value.metadata["field"]

    async def test_installed_from_one_moment_to_the_next(
        self, transport: Transport, models_folder: Path
    ) -> None:
        """It is what the models folder says now, whatever was answered before."""
        file = models_folder / "org__beta.yaml"
        await available(transport)
        try:
            file.write_text(yaml.safe_dump({"name": "beta-here", "backend": "fake"}))
            installed = [one.name for one in await available(transport) if one.installed]
            assert ["org/beta", "tiny"] == installed
        finally:
            file.unlink()
        assert ["tiny"] == [one.name for one in await available(transport) if one.installed]


class TestRest:
    async def test_galleries(self, http: httpx.AsyncClient, server: IndexServer) -> None:
        """Bare lists, with LocalAI's keys; the list after the change."""
        listed = await http.get("/models/galleries")
        assert "application/json" == listed.headers["content-type"]
        assert {"url": f"{server.url}/index.yaml", "name": "first", "mirrors": []}.items() <= (
            listed.json()[1].items()
        )

        body = {"name": "rest", "url": f"{server.url}/rest.yaml", "surprise": 1}
        added = await http.post("/models/galleries", json=body)
        assert 200 == added.status_code
        assert ["localplane", "first", "gone", "rest"] == [one["name"] for one in added.json()]
        assert 409 == (await http.post("/models/galleries", json=body)).status_code

        removed = await http.request("DELETE", "/models/galleries", json={"name": "rest"})
        assert ["localplane", "first", "gone"] == [one["name"] for one in removed.json()]
        again = await http.request("DELETE", "/models/galleries", json={"name": "rest"})
        assert 404 == again.status_code
        assert 400 == (await http.request("DELETE", "/models/galleries")).status_code

    async def test_none(self, http: httpx.AsyncClient) -> None:
        """Without any gallery the lists are empty, and no null."""
        before = (await http.get("/models/galleries")).json()
        try:
            for gallery in before:
                answer = await http.request(
                    "DELETE", "/models/galleries", json={"name": gallery["name"]}
                )
                assert 200 == answer.status_code
            assert b"[]" == (await http.get("/models/galleries")).content
            assert b"[]" == (await http.get("/models/available")).content
        finally:
            for gallery in before:
                body = {"name": gallery["name"], "url": gallery["url"]}
                (await http.post("/models/galleries", json=body)).raise_for_status()

    async def test_model(self, http: httpx.AsyncClient, server: IndexServer) -> None:
        """A model has LocalAI's keys, and is whole; what is not said is left out."""
        listed = (await http.get("/models/available")).json()
        models = {model["name"]: model for model in listed}

        gallery = {"url": f"{server.url}/index.yaml", "name": "first"}
        assert {**ALPHA, "gallery": gallery} == models["alpha-q4"]
        assert {
            "name": "org/beta",
            "urls": [],
            "tags": [],
            "files": [],
            "variants": [],
            "gallery": gallery,
            "installed": False,
        } == models["org/beta"]
        assert {"backend": "whisper"} == models["tiny"]["config_file"]

    async def test_query(self, http: httpx.AsyncClient) -> None:
        """Words of the query mean what the fields do."""
        answer = await http.get("/models/available?term=alpha&tag=gguf&installed=false&view=basic")

        assert ["alpha-q4"] == [model["name"] for model in answer.json()]
        assert "overrides" not in answer.json()[0]
        assert 400 == (await http.get("/models/available?view=huge")).status_code
        assert 400 == (await http.get("/models/available?installed=perhaps")).status_code

    async def test_pages(self, http: httpx.AsyncClient) -> None:
        """The next page is in the headers, and the last one has none."""
        url, seen = "/models/available?page_size=4&view=basic&installed=false", []
        answer = await http.get(url)
        token = answer.headers["x-next-page-token"]
        seen += answer.json()
        link, _, relation = answer.headers["link"].partition("; ")
        assert 'rel="next"' == relation
        assert link.startswith(f"<{http.base_url}".rstrip("/"))
        for following in (link.strip("<>"), f"{url}&page_token={token}"):
            answer = await http.get(following)
            assert ["org/beta"] == [model["name"] for model in answer.json()]
            assert "link" not in answer.headers
            assert "x-next-page-token" not in answer.headers
        seen += answer.json()

        assert [name for name in NAMES if name != "tiny"] == [model["name"] for model in seen]

    async def test_tag(self, http: httpx.AsyncClient, models_folder: Path) -> None:
        """Whoever has the answer is told so, until it is another one."""
        answer = await http.get("/models/available")
        tag = answer.headers["etag"]
        assert answer.content == (await http.get("/models/available")).content
        for tags in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            same = await http.get("/models/available", headers={"if-none-match": tags})
            assert (304, b"", tag) == (same.status_code, same.content, same.headers["etag"])
        for odd in (b'"other"', b"", b"\xff"):
            whole = await http.get("/models/available", headers={b"if-none-match": odd})
            assert (200, answer.content) == (whole.status_code, whole.content)
        other = await http.get("/models/available?term=alpha", headers={"if-none-match": tag})
        assert 200 == other.status_code
        assert tag != other.headers["etag"]

        file = models_folder / "alpha-q8.yaml"
        try:
            file.write_text("name: alpha-q8\nbackend: fake\n")
            changed = await http.get("/models/available", headers={"if-none-match": tag})
            assert 200 == changed.status_code
            assert tag != changed.headers["etag"]
            assert ["alpha-q8", "tiny"] == [
                model["name"] for model in changed.json() if model["installed"]
            ]
        finally:
            file.unlink()

    async def test_tag_of_one_who_asks_first(self, http: httpx.AsyncClient) -> None:
        """A tag from another gateway, or from before a restart, holds, and is no empty answer for the next one."""
        path = "/models/available?term=alpha&page_size=1&backend=llama-cpp"
        tag = (await http.get(path)).headers["etag"]
        more = f"{path}&surprise={tag.strip(chr(34))}"
        assert 304 == (await http.get(more, headers={"if-none-match": tag})).status_code
        assert ["alpha-q4"] == [model["name"] for model in (await http.get(more)).json()]

    async def test_head(self, http: httpx.AsyncClient) -> None:
        """HEAD tells tag and size."""
        answer = await http.get("/models/available")
        head = await http.head("/models/available")

        assert b"" == head.content
        for name in ("etag", "content-length", "content-type"):
            assert answer.headers[name] == head.headers[name]


async def test_typed_over_grpc(app: App) -> None:
    """Callers of gRPC get messages, the same ones until something changes."""
    call = app.channel.unary_unary("/localplane.v1.GalleryService/ListAvailableModels")
    first = await call(pb.ListAvailableModelsRequest())

    assert first is await call(pb.ListAvailableModelsRequest())
    assert NAMES == [model.name for model in first.models]
