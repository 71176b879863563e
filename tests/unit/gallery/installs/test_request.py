"""What somebody asks to be installed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localplane_server.errors import InvalidArgumentError
from localplane_server.gallery.entry import GalleryEntry
from localplane_server.gallery.installs.request import InstallRequest

FULL: dict[str, Any] = {
    "id": "localai@tiny",
    "url": "https://host/tiny.yaml",
    "config_url": "https://host/config.yaml",
    "name": "mine",
    "variant": "tiny-q8",
    "overrides": {"parameters": {"temperature": 0}, "f16": False, "description": None},
    "files": [{"filename": "a/b.gguf", "uri": "hf://a/b/c.gguf", "sha256": "ab" * 32}],
    "config_file": {"backend": "llama", "parameters": {"model": "x.gguf"}},
}


class TestJson:
    def test_both_ways(self) -> None:
        """A request survives being written down."""
        request = InstallRequest.from_json(FULL)
        written = json.loads(json.dumps(request.to_json()))

        assert request == InstallRequest.from_json(written)
        assert FULL == written

    def test_least(self) -> None:
        """What is not given is not written."""
        assert {"id": "tiny"} == InstallRequest.from_json({"id": "tiny", "files": None}).to_json()

    def test_unknown_keys(self) -> None:
        """Keys that LocalAI's clients send and that mean nothing here are ignored."""
        request = InstallRequest.from_json({"id": "tiny", "tags": ["x"], "gallery": {}, "icon": 7})

        assert InstallRequest(id="tiny") == request

    def test_no_conversions(self) -> None:
        """A file of a request is fetched as it is, whatever else is said of it."""
        file = {"filename": "x", "uri": "https://h/x", "convert": "bert-gguf", "sources": []}

        assert "" == InstallRequest.from_json({"id": "x", "files": [file]}).files[0].convert


class TestCheck:
    def test_nothing(self) -> None:
        """A request that does not say what to install is refused."""
        with pytest.raises(
            InvalidArgumentError, match="one of id, url, config_url and config_file"
        ):
            InstallRequest.from_json({"name": "x", "files": []})

    @pytest.mark.parametrize(
        ("field", "content"),
        [
            ("id", {"id": 7}),
            ("id", {"id": "a\nb"}),
            ("id", {"id": "\ud800"}),
            ("id", {"id": "x" * 5000}),
            ("url", {"url": "https://host/a b"}),
            ("config_url", {"config_url": "https://host/\0"}),
            ("name", {"id": "x", "name": "../x\\"}),
            ("name", {"id": "x", "name": "a\\b"}),
            ("variant", {"url": "https://h/x", "variant": "y"}),
            ("overrides", {"id": "x", "overrides": []}),
            ("overrides.backend", {"id": "x", "overrides": {"backend": "/bin/sh"}}),
            ("overrides.backend", {"id": "x", "overrides": {"backend": "../../run.sh"}}),
            ("overrides", {"id": "x", "overrides": {"parameters": {"model": "../x"}}}),
            ("overrides", {"id": "x", "overrides": {"parameters": {"model": "/etc/passwd"}}}),
            ("overrides", {"id": "x", "overrides": {"mmproj": "a/../../x"}}),
            ("overrides", {"id": "x", "overrides": {"draft_model": "..\\x"}}),
            ("overrides", {"id": "x", "overrides": {"lora_adapters": ["ok", "../x"]}}),
            ("overrides", {"id": "x", "overrides": {"tts": {"audio_path": "/x"}}}),
            (
                "overrides.download_files[0].filename",
                {"id": "x", "overrides": {"download_files": [{"filename": "../x"}]}},
            ),
            ("config_file", {"config_file": "name: x"}),
            ("config_file.backend", {"config_file": {"backend": "a/b"}}),
            ("files", {"id": "x", "files": {}}),
            ("files[0]", {"id": "x", "files": ["x"]}),
            ("files[0].uri", {"id": "x", "files": [{"filename": "x"}]}),
            ("files[0].filename", {"id": "x", "files": [{"uri": "https://h/x"}]}),
            ("files[0].filename", {"id": "x", "files": [{"filename": 1, "uri": "https://h/x"}]}),
            (
                "files[0].filename",
                {"id": "x", "files": [{"filename": "../x", "uri": "https://h/x"}]},
            ),
            (
                "files[0].sha256",
                {"id": "x", "files": [{"filename": "x", "uri": "https://h/x", "sha256": "1"}]},
            ),
        ],
    )
    def test_wrong(self, field: str, content: dict[str, Any]) -> None:
        """Each field that cannot be used is refused, and told by its name."""
        with pytest.raises(InvalidArgumentError) as caught:
            InstallRequest.from_json(content)

        assert field == caught.value.field

    def test_deep(self) -> None:
        """Settings nested without end are refused, and nothing recurses into them."""
        deep: Any = {}
        for _ in range(100_000):
            deep = {"x": deep}

        with pytest.raises(InvalidArgumentError, match="nested"):
            InstallRequest(id="x", overrides=deep)

    def test_large(self) -> None:
        """Settings that would not fit into a configuration are refused."""
        with pytest.raises(InvalidArgumentError, match="larger"):
            InstallRequest(id="x", overrides={"x": "y" * 1_000_000})

    def test_many_files(self) -> None:
        """More files than any model has are refused."""
        files = [{"filename": f"f{n}", "uri": "https://h/x"} for n in range(1001)]

        with pytest.raises(InvalidArgumentError, match="more than"):
            InstallRequest.from_json({"id": "x", "files": files})


@pytest.mark.parametrize(
    ("content", "target"),
    [
        ({"id": "localai@Org/Tiny"}, "org__tiny"),
        ({"id": "Tiny", "name": "mine"}, "mine"),
        ({"config_file": {"name": "own/model"}}, "own__model"),
        ({"url": "https://host/x.yaml"}, "https://host/x.yaml"),
        ({"config_url": "https://host/x.yaml?token=secret"}, "https://host/x.yaml"),
    ],
)
def test_target(content: dict[str, Any], target: str) -> None:
    """Requests for one model have one target, so that there is one job for them."""
    assert target == InstallRequest.from_json(content).target


ENTRY = GalleryEntry(name="Org/Tiny", gallery="localai")


class TestIdentity:
    @pytest.mark.parametrize(
        "content",
        [
            {"id": "localai@org/tiny"},
            {"id": "ORG__TINY"},
            {"id": "LocalAI@Org/Tiny", "name": "Org__Tiny"},
            {"id": "org/tiny", "name": "Org/Tiny", "url": "https://host/ignored.yaml"},
            {"id": "org/tiny", "config_file": {"name": "ignored"}},
        ],
    )
    def test_same(self, content: dict[str, Any]) -> None:
        """Whatever names the entry and the name that it has anyway is one, as is what else would be ignored."""
        plain = InstallRequest.from_json({"id": "org/tiny"})

        assert plain.identity(ENTRY) == InstallRequest.from_json(content).identity(ENTRY)

    @pytest.mark.parametrize(
        "content",
        [
            {"id": "org/tiny", "name": "mine"},
            {"id": "org/tiny", "name": "org/tiny"},
            {"id": "org/tiny", "variant": "q8"},
            {"id": "org/tiny", "overrides": {"threads": 1}},
            {"id": "org/tiny", "files": [{"filename": "a", "uri": "https://host/a"}]},
            {"url": "https://host/tiny.yaml"},
        ],
    )
    def test_another(self, content: dict[str, Any]) -> None:
        """What would come to something else is another one: names of models differ in case."""
        plain = InstallRequest.from_json({"id": "org/tiny"})

        assert plain.identity(ENTRY) != InstallRequest.from_json(content).identity(ENTRY)

    def test_unknown_entry(self) -> None:
        """As long as nobody knows what is meant, only the spelling does not count."""
        one, same, other = (
            InstallRequest(id=name).identity(None)
            for name in ("a@Org/Tiny", "A@org__tiny", "Org/Tiny")
        )

        assert one == same != other

    def test_configuration(self) -> None:
        """A model without a gallery is what its configuration says, under the name that it would have."""
        configuration = {"name": "own/model", "backend": "llama"}
        plain = InstallRequest(config_file=configuration)

        assert plain.identity(None) == (
            InstallRequest(name="own__model", config_file=configuration).identity(None)
        )
        assert plain.identity(None) != InstallRequest(config_url="https://host/x").identity(None)
