"""What URIs stand for, and what is no URI of a file."""

from __future__ import annotations

import pytest

from localplane_server.downloads.endpoints import Endpoints
from localplane_server.downloads.sources import (
    FileSource,
    PackageSource,
    RegistrySource,
    Source,
    WebSource,
    parse_source,
    preferring,
)
from localplane_server.errors import SettingsError, SourceRefusedError

HUB = "https://huggingface.co"
RAW = "https://raw.githubusercontent.com"
OLLAMA = "https://registry.ollama.ai"
DOCKER = "https://registry-1.docker.io"
DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("uri", "source"),
    [
        ("https://host/a/m%20m.gguf?x=1", WebSource("https://host/a/m%20m.gguf?x=1", "m m.gguf")),
        ("http://host/", WebSource("http://host/", "")),
        ("file:///a/b%20c", FileSource("/a/b c")),
        ("file://localhost/a", FileSource("/a")),
        ("huggingface://o/r/m.gguf", WebSource(f"{HUB}/o/r/resolve/main/m.gguf", "m.gguf")),
        ("hf://o/r/a/b/m.gguf", WebSource(f"{HUB}/o/r/resolve/main/a/b/m.gguf", "m.gguf")),
        ("hf://o/r/m.gguf@v1", WebSource(f"{HUB}/o/r/resolve/v1/m.gguf", "m.gguf")),
        ("hf://o/r/m@refs/pr/1", WebSource(f"{HUB}/o/r/resolve/refs%2Fpr%2F1/m", "m")),
        ("hf.co/o/r/m m", WebSource(f"{HUB}/o/r/resolve/main/m%20m", "m m")),
        ("github:o/r/a/i.yaml@b", WebSource(f"{RAW}/o/r/b/a/i.yaml", "i.yaml")),
        ("github://o/r/i.yaml", WebSource(f"{RAW}/o/r/main/i.yaml", "i.yaml")),
        ("github:o/r/i.yaml@feat/x", WebSource(f"{RAW}/o/r/feat/x/i.yaml", "i.yaml")),
        ("oci://ghcr.io/o/m:v1", RegistrySource("https://ghcr.io", "o/m", "v1")),
        ("oci://host:5000/m", RegistrySource("https://host:5000", "m", "latest")),
        ("quay.io/o/m@" + DIGEST, RegistrySource("https://quay.io", "o/m", DIGEST)),
        ("docker.io/m:1#a.gguf", RegistrySource(DOCKER, "library/m", "1", "a.gguf")),
        ("oci://o/m", RegistrySource(DOCKER, "o/m", "latest")),
        ("oci://o/m#?a%3F", RegistrySource(DOCKER, "o/m", "latest", preferred="a?")),
        ("ollama://m:1b", RegistrySource(OLLAMA, "library/m", "1b", is_ollama=True)),
        ("ollama://u/m", RegistrySource(OLLAMA, "u/m", "latest", is_ollama=True)),
        ("ollama://host.net/u/m:t", RegistrySource("https://host.net", "u/m", "t", is_ollama=True)),
        ("pypi://a-b==1.0.post1/a_b/m.gguf", PackageSource("a-b", "1.0.post1", "a_b/m.gguf")),
    ],
)
def test_sources(uri: str, source: Source) -> None:
    """Every kind of source, with and without what may be left out."""
    assert source == parse_source(uri, Endpoints())


@pytest.mark.parametrize(
    ("uri", "preferring_it"),
    [
        ("oci://ghcr.io/o/m", "oci://ghcr.io/o/m#?a%20%23.gguf"),
        (" quay.io/o/m:1 ", "quay.io/o/m:1#?a%20%23.gguf"),
        ("oci://o/m#b", "oci://o/m#b"),
        ("https://host/m", "https://host/m"),
        ("ollama://m", "ollama://m"),
    ],
)
def test_preferring(uri: str, preferring_it: str) -> None:
    """A name is preferred where there may be several files and none is named."""
    assert preferring_it == preferring(uri, "a #.gguf")


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "m.gguf",
        "/etc/passwd",
        "ftp://host/m",
        "data:text/plain,m",
        "file://",
        "file:///a\0b",
        "hf://o/m",
        "hf://o/r/",
        "hf://o/r/../../other/m",
        "hf://o/r/%2e%2e/m",
        "hf://o/r/a%2Fb",
        "hf://../../m",
        "github:o/r",
        "github:o/r/../../x/m",
        "github:o/r/m@../../x",
        "oci://ghcr.io/",
        "oci://ghcr.io/Upper/m",
        "oci://ghcr.io/" + "a-" * 200 + "a",
        "oci://ghcr.io/a/../b",
        "oci://ghcr.io/m:ta g",
        "oci://ghcr.io/m@sha256:12",
        "ollama://",
        "ollama://m:?",
        "pypi://a/m",
        "pypi://a==1.0",
        "pypi://a==1.0/",
        "pypi://a>=1.0/m",
        "pypi://-x==1.0/m",
        "https://host/" + "m" * 5000,
        "https://host/a\nb",
    ],
)
def test_refused(uri: str) -> None:
    """What is no URI of a file, lacks a part, or would leave its place is refused."""
    with pytest.raises(SourceRefusedError, match=r"^cannot download "):
        parse_source(uri, Endpoints())


class TestEndpoints:
    """The hub is where the environment says."""

    @pytest.mark.parametrize(
        ("environment", "hub"),
        [
            ({}, HUB),
            ({"HF_ENDPOINT": "https://c/"}, "https://c"),
            ({"HF": "b.net", "HF_ENDPOINT": "https://c"}, "https://b.net"),
            ({"HF_MIRROR": "https://a", "HF": "b", "HF_ENDPOINT": "c"}, "https://a"),
            ({"HF_MIRROR": " "}, HUB),
        ],
    )
    def test_hub(self, environment: dict[str, str], hub: str) -> None:
        """A mirror counts more than the short name, and that more than the long one."""
        assert hub == Endpoints.from_environment(environment).hugging_face

    def test_token(self) -> None:
        """The hub's token is for the hub alone, and for its own scheme and port."""
        keys = Endpoints().credentials({"HF_TOKEN": "t"})

        assert "Bearer t" == keys.authorization(f"{HUB}/o/r")
        assert "Bearer t" == keys.authorization("https://huggingface.co:443/o/r")
        for other in ("http://huggingface.co/", "https://cdn.huggingface.co/", f"{HUB}:444/", RAW):
            assert keys.authorization(other) is None
        assert "t" not in repr(keys).replace("Credentials", "")

    @pytest.mark.parametrize("token", ["secret\nkey", "secret\u20ac"])
    def test_token_that_is_none(self, token: str) -> None:
        """A token that no header can hold ends the start, and is not told."""
        with pytest.raises(SettingsError, match="HF_TOKEN") as caught:
            Endpoints().credentials({"HF_TOKEN": token})
        assert "secret" not in str(caught.value)

    def test_endpoint_that_is_none(self) -> None:
        """An endpoint that a token cannot be for ends the start, too."""
        with pytest.raises(SettingsError, match="endpoint"):
            Endpoints(hugging_face="https://host:port").credentials({"HF_TOKEN": "t"})
