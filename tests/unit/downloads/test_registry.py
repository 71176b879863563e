"""Files out of registries of containers: chosen by name, checked by digest, with tokens."""

from __future__ import annotations

import hashlib
import time
from collections import deque

import pytest

from file_server import Fault, FileServer
from localplane_server.downloads.addresses import AddressPolicy
from localplane_server.downloads.downloader import Downloader
from localplane_server.downloads.endpoints import Endpoints
from localplane_server.downloads.sources import preferring
from localplane_server.errors import (
    DigestMismatchError,
    DownloadFailedError,
    SourceRefusedError,
)
from registry_server import RegistryServer
from unit.downloads.conftest import Make

WEIGHTS = bytes(range(256)) * 4096
OCTETS = "application/octet-stream"
OLLAMA = "application/vnd.ollama.image."


@pytest.fixture
def registry(server: FileServer) -> RegistryServer:
    """A registry that wants tokens."""
    return RegistryServer(server, token="t")


@pytest.mark.parametrize("has_index", [True, False])
async def test_only_layer(
    downloader: Downloader, registry: RegistryServer, *, has_index: bool
) -> None:
    """An artifact with one layer is that file, with the name that the layer has."""
    layers = [(OCTETS, WEIGHTS, "a/m.gguf")]
    registry.push("o/m", "v1", layers, has_index=has_index)
    staged = await downloader.fetch(f"oci://{registry.host}/o/m:v1")

    assert WEIGHTS == staged.path.read_bytes()
    assert "m.gguf" == staged.file_name
    (asked,) = registry.token_requests
    assert "/token?service=here&scope=repository:x:pull" == asked.path
    assert "authorization" not in asked.headers


async def test_by_digest(downloader: Downloader, registry: RegistryServer) -> None:
    """An artifact can be named by its digest, and its facts known before."""
    digest = registry.push("o/m", "v1", [("application/vnd.oci.image.layer.v1.tar+gzip", b"x", "")])
    facts = await downloader.facts(f"oci://{registry.host}/o/m@{digest}")

    assert (1, "m.tar.gz", hashlib.sha256(b"x").hexdigest()) == (
        facts.size_bytes,
        facts.file_name,
        facts.sha256,
    )


async def test_manifest_is_checked(
    downloader: Downloader, server: FileServer, registry: RegistryServer
) -> None:
    """A manifest that does not have the digest it is named by is not believed."""
    registry.push("o/m", "v1", [(OCTETS, WEIGHTS, "m")])
    wrong = "sha256:" + "1" * 64
    routes = server.routes
    routes[f"/v2/o/m/manifests/{wrong}"] = routes["/v2/o/m/manifests/v1"]

    with pytest.raises(DownloadFailedError, match="does not have the digest"):
        await downloader.fetch(f"oci://{registry.host}/o/m@{wrong}")


async def test_layer_is_checked(
    downloader: Downloader, server: FileServer, registry: RegistryServer
) -> None:
    """So is a layer."""
    registry.push("o/m", "v1", [(OCTETS, WEIGHTS, "m")])
    server.files[registry.blob_path("o/m", WEIGHTS)].content = WEIGHTS[::-1]

    with pytest.raises(DigestMismatchError):
        await downloader.fetch(f"oci://{registry.host}/o/m:v1")


async def test_layer_that_is_not_meant(downloader: Downloader, registry: RegistryServer) -> None:
    """A digest that is not that of the layer ends it before anything is fetched."""
    registry.push("o/m", "v1", [(OCTETS, WEIGHTS, "m")])

    with pytest.raises(DigestMismatchError):
        await downloader.fetch(f"oci://{registry.host}/o/m:v1", sha256="0" * 64)


async def test_several_layers(downloader: Downloader, registry: RegistryServer) -> None:
    """Of several layers one is named, and who names none is told the names."""
    registry.push("o/m", "v1", [(OCTETS, b"a", "a.gguf"), (OCTETS, b"b", "b.gguf")])

    with pytest.raises(SourceRefusedError, match=r"a\.gguf, b\.gguf"):
        await downloader.fetch(f"oci://{registry.host}/o/m:v1")
    staged = await downloader.fetch(f"oci://{registry.host}/o/m:v1#b.gguf")
    assert b"b" == staged.path.read_bytes()


async def test_named_by_its_last_part(downloader: Downloader, registry: RegistryServer) -> None:
    """A title that is a path may be named by its last part, as long as that means one of them."""
    layers = [(OCTETS, b"a", "x/a.gguf"), (OCTETS, b"b", "y/b"), (OCTETS, b"c", "z/b")]
    registry.push("o/m", "v1", layers)
    uri = f"oci://{registry.host}/o/m:v1"

    assert b"a" == (await downloader.fetch(f"{uri}#a.gguf")).path.read_bytes()
    assert b"c" == (await downloader.fetch(f"{uri}#z/b")).path.read_bytes()
    for name in ("b", "none"):
        with pytest.raises(SourceRefusedError, match=rf"not one file {name}, but x/a\.gguf, y/b"):
            await downloader.fetch(f"{uri}#{name}")


@pytest.mark.parametrize(
    "kind",
    [
        OLLAMA + "model",
        "application/vnd.docker.ai.gguf.v3",
        "application/vnd.cncf.model.weight.v1.raw",
        "application/vnd.cncf.model.weight.v1.gguf",
        "application/x-gguf; version=3",
    ],
)
async def test_weights_by_kind(downloader: Downloader, registry: RegistryServer, kind: str) -> None:
    """The only layer that is weights, as its kind says, is the file that is meant."""
    others = [("application/vnd.docker.ai.license", b"free", ""), (OCTETS, b"read me", "README")]
    registry.push("o/m", "v1", [*others, (kind, WEIGHTS, "")])
    registry.push("o/m", "v2", [*others, (kind, WEIGHTS, ""), (kind, b"more", "")])
    uri = f"oci://{registry.host}/o/m"

    assert WEIGHTS == (await downloader.fetch(f"{uri}:v1")).path.read_bytes()
    with pytest.raises(SourceRefusedError, match="several files; name one"):
        await downloader.fetch(f"{uri}:v2")


async def test_preferred(downloader: Downloader, registry: RegistryServer) -> None:
    """A file that is called like what it is to be is meant, before kinds are looked at; others stay as they are."""
    layers = [
        ("application/vnd.docker.ai.gguf.v3", WEIGHTS, "m.gguf"),
        (OCTETS, b"projector", "in/mmproj.gguf"),
    ]
    registry.push("o/m", "v1", layers)
    uri = f"oci://{registry.host}/o/m:v1"

    async def content(name: str) -> bytes:
        return (await downloader.fetch(preferring(uri, name))).path.read_bytes()

    assert b"projector" == await content("mmproj.gguf")
    assert WEIGHTS == await content("m.gguf")
    assert WEIGHTS == await content("something-else.gguf")


async def test_many_layers(downloader: Downloader, registry: RegistryServer) -> None:
    """Of very many names the first are told, and how many more there are."""
    registry.push("o/m", "v1", [(OCTETS, b"x%d" % one, f"f{one}") for one in range(25)])

    with pytest.raises(SourceRefusedError, match=r"f0, f1, .* f19 and 5 more"):
        await downloader.fetch(f"oci://{registry.host}/o/m:v1")


async def test_ollama(make: Make, server: FileServer, registry: RegistryServer) -> None:
    """Of a model of Ollama, the layer with the weights is the file."""
    layers = [(OLLAMA + "model", WEIGHTS, ""), (OLLAMA + "license", b"free", "")]
    registry.push("library/m", "1b", layers)
    server.routes["/v2/library/m/manifests/bad"] = lambda _asked: (200, {}, b"[]")
    downloader = make(endpoints=Endpoints(ollama=server.url))
    staged = await downloader.fetch("ollama://m:1b")

    assert (WEIGHTS, "m.gguf") == (staged.path.read_bytes(), staged.file_name)
    with pytest.raises(DownloadFailedError, match="cannot be read"):
        await downloader.fetch("ollama://m:bad")


async def test_token_that_expires(
    downloader: Downloader, server: FileServer, registry: RegistryServer
) -> None:
    """A token that is refused in the middle is replaced by another, and the download goes on."""
    registry.push("o/m", "v1", [(OCTETS, WEIGHTS, "m")])
    served = server.files[registry.blob_path("o/m", WEIGHTS)]
    served.faults = deque([Fault(cut_after=500_000), Fault(status=401)])
    staged = await downloader.fetch(f"oci://{registry.host}/o/m:v1")

    assert WEIGHTS == staged.path.read_bytes()
    assert 2 == len(registry.token_requests)


async def test_token_stays_with_its_registry(
    make: Make, server: FileServer, registry: RegistryServer
) -> None:
    """A registry that sends to another host for the layer does not send its token along."""
    registry.push("o/m", "v1", [(OCTETS, WEIGHTS, "m")])
    path = registry.blob_path("o/m", WEIGHTS)
    server.put("/cdn", WEIGHTS)
    del server.files[path]
    server.redirect(path, f"http://localhost:{server.port}/cdn")

    downloader = make(policy=AddressPolicy.of(["127.0.0.1", "localhost"]))
    await downloader.fetch(f"oci://{registry.host}/o/m:v1")

    (asked,) = server.fetched("/cdn")
    assert "authorization" not in asked.headers
    assert "authorization" in server.fetched(path)[0].headers


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Basic realm=here",
        "Bearer",
        'Bearer realm="http://10.0.0.1/token"',
        # Not to be read in a time that grows with its square.
        "Bearer " + "a" * 60_000,
    ],
)
async def test_other_challenges(downloader: Downloader, server: FileServer, challenge: str) -> None:
    """A registry that wants something else is told of, and a forbidden place is not asked for a token."""
    server.routes["/v2/"] = lambda _asked: (401, {"WWW-Authenticate": challenge}, b"")

    began = time.monotonic()
    with pytest.raises((DownloadFailedError, SourceRefusedError)):
        await downloader.fetch(f"oci://127.0.0.1:{server.port}/o/m")
    assert time.monotonic() - began < 10
