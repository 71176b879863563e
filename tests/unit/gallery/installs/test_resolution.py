"""From what is asked for to what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from localplane_server.errors import (
    DownloadFailedError,
    InvalidArgumentError,
    InvalidModelNameError,
    ModelNotInGalleryError,
)
from localplane_server.gallery.entry import GalleryEntry, GalleryFile
from localplane_server.gallery.installs.recipe import Recipe
from localplane_server.gallery.installs.request import InstallRequest
from localplane_server.gallery.installs.resolution import Resolver
from staged_source import StagedSource

BASE = """
name: base
description: of the configuration
license: mit
urls: https://example.org
config_file: |
  backend: llama
  context_size: 512
  stopwords: [a, b]
  parameters: {model: base.gguf, temperature: 0.9, top_k: 40}
  template: {chat: base-chat}
  unknown: {kept: [1]}
files:
  - {filename: base.gguf, uri: "https://host/base.gguf", sha256: ""}
prompt_templates:
  - {name: base-chat, content: "{{.Input}}"}
"""


class Entries:
    """A gallery in memory."""

    def __init__(self) -> None:
        self.entries: dict[str, GalleryEntry] = {}

    def add(self, name: str, **fields: Any) -> None:
        self.entries[name.lower()] = GalleryEntry(
            name=name, gallery="test", gallery_url="https://host/index.yaml", **fields
        )

    async def find(self, name: str) -> GalleryEntry:
        if (entry := self.at_hand(name)) is None:
            raise ModelNotInGalleryError(name)
        return entry

    def at_hand(self, name: str) -> GalleryEntry | None:
        return self.entries.get(name.rpartition("@")[2].lower())


@pytest.fixture
def entries() -> Entries:
    return Entries()


@pytest.fixture
def source(tmp_path: Path) -> StagedSource:
    source = StagedSource(tmp_path / "staging")
    source.offer("https://host/base.yaml", BASE.encode())
    return source


class Resolve:
    def __init__(self, entries: Entries, source: StagedSource) -> None:
        self.resolver = Resolver(entries, source)

    async def __call__(self, **content: Any) -> Recipe:
        return await self.resolver.resolve(InstallRequest.from_json(content))


@pytest.fixture
def resolve(entries: Entries, source: StagedSource) -> Resolve:
    return Resolve(entries, source)


def file(name: str) -> GalleryFile:
    return GalleryFile(filename=name, uri=f"https://host/{name}")


def names(recipe: Recipe) -> list[str]:
    return [one.filename for one in recipe.files]


class TestGallery:
    async def test_configuration_behind_url(self, entries: Entries, resolve: Resolve) -> None:
        """The configuration of the gallery, the entry's overrides and the request's are merged in this order."""
        entries.add(
            "Tiny",
            url="https://host/base.yaml",
            description="of the entry",
            overrides={"parameters": {"model": "tiny.gguf", "top_k": 0}, "f16": True},
            files=(file("tiny.gguf"),),
        )

        recipe = await resolve(
            id="test@tiny",
            overrides={"parameters": {"temperature": 0}, "f16": False, "stopwords": ["c"]},
        )

        assert "Tiny" == recipe.name
        assert recipe.configuration == {
            "name": "Tiny",
            "backend": "llama",
            "context_size": 512,
            "stopwords": ["c"],
            "parameters": {"model": "tiny.gguf", "temperature": 0, "top_k": 0},
            "template": {"chat": "base-chat"},
            "unknown": {"kept": [1]},
            "f16": False,
        }
        assert ["base-chat"] == [one.name for one in recipe.templates]
        assert "of the entry" == recipe.origin["description"]
        assert "mit" == recipe.origin["license"]

    async def test_order_of_files(self, entries: Entries, resolve: Resolve) -> None:
        """First the configuration's, then the request's, then the entry's."""
        entries.add("tiny", url="https://host/base.yaml", files=(file("entry.gguf"),))

        recipe = await resolve(
            id="tiny", files=[{"filename": "mine.gguf", "uri": "https://host/mine.gguf"}]
        )

        assert ["base.gguf", "mine.gguf", "entry.gguf"] == names(recipe)

    async def test_inline_configuration(self, entries: Entries, resolve: Resolve) -> None:
        """An entry without a URL has its configuration itself; what it has is not changed."""
        inline: dict[str, Any] = {"backend": "llama", "parameters": {"model": "x.gguf"}}
        entries.add("tiny", config_file=inline)

        recipe = await resolve(id="tiny", overrides={"parameters": {"top_k": 1}})

        assert recipe.configuration is not None
        assert {"model": "x.gguf", "top_k": 1} == recipe.configuration["parameters"]
        assert {"model": "x.gguf"} == inline["parameters"]

    async def test_only_overrides(self, entries: Entries, resolve: Resolve) -> None:
        """Overrides alone are a configuration."""
        entries.add("tiny", overrides={"backend": "llama"})

        assert {"name": "tiny", "backend": "llama"} == (await resolve(id="tiny")).configuration

    async def test_only_files(self, entries: Entries, resolve: Resolve) -> None:
        """Files alone come without a configuration."""
        entries.add("tiny", files=(file("x.gguf"),))

        recipe = await resolve(id="tiny")

        assert recipe.configuration is None
        assert ("._gallery_tiny.yaml",) == recipe.written

    async def test_nothing(self, entries: Entries, resolve: Resolve) -> None:
        """An entry that installs nothing is told as such, by its name."""
        entries.add("tiny")

        with pytest.raises(InvalidArgumentError, match="tiny' installs nothing"):
            await resolve(id="tiny")

    async def test_unknown(self, resolve: Resolve) -> None:
        """A model that no gallery has is told as such."""
        with pytest.raises(ModelNotInGalleryError):
            await resolve(id="test@none")

    async def test_unreachable(self, entries: Entries, resolve: Resolve) -> None:
        """A configuration that cannot be fetched is told with its cause."""
        entries.add("tiny", url="https://host/none.yaml")

        with pytest.raises(DownloadFailedError, match=r"none\.yaml"):
            await resolve(id="tiny")


class TestName:
    async def test_asked_for(self, entries: Entries, resolve: Resolve) -> None:
        """The name that is asked for wins over the entry's, the configuration's and that of all overrides."""
        entries.add("tiny", url="https://host/base.yaml", overrides={"name": "other"})

        recipe = await resolve(id="tiny", name="mine", overrides={"name": "another"})

        assert recipe.configuration is not None
        assert ("mine", "mine") == (recipe.name, recipe.configuration["name"])
        assert "mine" == yaml.safe_load(recipe.configuration_text or "")["name"]

    async def test_entry(self, entries: Entries, resolve: Resolve) -> None:
        """Without one it is the entry's, `/` written `__`, in the configuration, too."""
        entries.add("org/tiny", config_file={"name": "other", "backend": "llama"})

        recipe = await resolve(id="org/tiny")

        assert recipe.configuration is not None
        assert ("org__tiny", "org__tiny") == (recipe.name, recipe.configuration["name"])

    async def test_of_configuration(self, resolve: Resolve) -> None:
        """By URL it is the configuration's."""
        assert "base" == (await resolve(url="https://host/base.yaml")).name

    async def test_none(self, resolve: Resolve, source: StagedSource) -> None:
        """A configuration without a name cannot be installed unless one is given."""
        source.offer("https://host/x.yaml", b"backend: llama")

        with pytest.raises(InvalidModelNameError, match="name is required"):
            await resolve(config_url="https://host/x.yaml")
        assert "mine" == (await resolve(config_url="https://host/x.yaml", name="mine")).name


class TestVariant:
    @pytest.fixture(autouse=True)
    def builds(self, entries: Entries) -> None:
        entries.add(
            "tiny",
            variants=("tiny-q8", "tiny-f16"),
            overrides={"parameters": {"model": "q4.gguf"}},
            description="the model",
        )
        entries.add(
            "tiny-q8", overrides={"parameters": {"model": "q8.gguf"}}, files=(file("q8.gguf"),)
        )

    async def test_none(self, resolve: Resolve) -> None:
        """Without a variant it is the entry's own build."""
        assert [] == names(await resolve(id="tiny"))

    async def test_pinned(self, resolve: Resolve) -> None:
        """A pinned build is installed under the name of the model, and written down."""
        recipe = await resolve(id="tiny", variant="Tiny-Q8")

        assert recipe.configuration is not None
        assert "tiny" == recipe.name
        assert {"model": "q8.gguf"} == recipe.configuration["parameters"]
        assert ["q8.gguf"] == names(recipe)
        assert "the model" == recipe.origin["description"]
        assert "tiny-q8" == recipe.origin["resolved_variant"]

    async def test_itself(self, resolve: Resolve) -> None:
        """The entry itself is one of its builds."""
        assert [] == names(await resolve(id="tiny", variant="tiny"))

    async def test_unknown(self, resolve: Resolve) -> None:
        """Another one is refused, with those that there are."""
        with pytest.raises(InvalidArgumentError, match="tiny, tiny-q8, tiny-f16"):
            await resolve(id="tiny", variant="tiny-q2")

    async def test_missing(self, resolve: Resolve) -> None:
        """One that the gallery lists and does not have is told as such."""
        with pytest.raises(ModelNotInGalleryError, match="tiny-f16"):
            await resolve(id="tiny", variant="tiny-f16")


class TestOthers:
    async def test_config_url(self, resolve: Resolve, source: StagedSource) -> None:
        """A model's configuration itself is taken as it is, with the overrides."""
        source.offer("https://host/x.yaml", b"name: x\nbackend: llama\nfoo: {bar: [1, 2]}\n")

        recipe = await resolve(config_url="https://host/x.yaml", overrides={"f16": True})

        assert {"name": "x", "backend": "llama", "foo": {"bar": [1, 2]}, "f16": True} == (
            recipe.configuration
        )

    async def test_inline(self, resolve: Resolve, source: StagedSource) -> None:
        """A configuration in the request needs nothing else, and nothing is fetched."""
        recipe = await resolve(config_file={"name": "x", "backend": "llama"})

        assert {"name": "x", "backend": "llama"} == recipe.configuration
        assert [] == source.read_documents

    async def test_first_counts(self, entries: Entries, resolve: Resolve) -> None:
        """Of several things that say what to install the id counts first."""
        entries.add("tiny", overrides={"backend": "llama"})

        recipe = await resolve(
            id="tiny", url="https://host/none.yaml", config_url="https://host/none.yaml"
        )

        assert "tiny" == recipe.name


class TestHostile:
    @pytest.mark.parametrize(
        ("text", "cause"),
        [
            (b"<html><body>not found</body></html>", "not a mapping"),
            (b"[1, 2]", "not a mapping"),
            (b"a: b: c", "not YAML"),
            (b"\xff\xfe", "not UTF-8"),
            (b"", "not a mapping"),
            (b"name: x\nname: y\nconfig_file: 'backend: llama'", "twice"),
            (b"a: &a [x, x]\n" + b"b: [*a, " + b"*a, " * 100 + b"x]", "aliases"),
            (b"x: " + b"[" * 100 + b"]" * 100, "nested"),
            (b"x: !!python/object/apply:os.system [id]", "not YAML"),
            (b"name: x\nconfig_file: [1]", "no text"),
            (b"name: x\nconfig_file: '[1]'", "not a mapping"),
            (b"name: x\nconfig_file: 'backend: ../../run'", "backend"),
            (b"name: x\nconfig_file: 'parameters: {model: ../x}'", "leads out"),
            (b"name: x\nconfig_file: 'context_size: many'", "context_size"),
            (b"name: x\nfiles: [{filename: ../x, uri: 'https://h/x'}]", "elsewhere"),
            (b"name: x\nfiles: [{filename: /x, uri: 'https://h/x'}]", "absolute"),
            (b"name: x\nfiles: [{filename: y.yaml, uri: 'https://h/x'}]", "configuration"),
            (b"name: x\nprompt_templates: [{name: ../x, content: y}]", "elsewhere"),
            (b"name: x\nprompt_templates: [{name: x}]", "lacks its text"),
            (b"name: x\nprompt_templates: {}", "no list"),
            (b"name: ../x\nconfig_file: 'backend: llama'", "hidden|elsewhere"),
        ],
    )
    async def test_document(
        self, resolve: Resolve, source: StagedSource, text: bytes, cause: str
    ) -> None:
        """What a gallery refers to is refused when it cannot be used, with the cause."""
        source.offer("https://host/x.yaml", text)

        with pytest.raises(InvalidArgumentError, match=cause):
            await resolve(url="https://host/x.yaml")

    @pytest.mark.parametrize("content", [b"[]", b"\xff", b"config_file: [1]"])
    async def test_key_in_url(self, resolve: Resolve, source: StagedSource, content: bytes) -> None:
        """What is said of a URL leaves out its query, which can hold a key."""
        url = "https://host/x.yaml?token=secret"
        source.offer(url, content)

        with pytest.raises(InvalidArgumentError, match=r"https://host/x\.yaml") as caught:
            await resolve(url=url)

        assert "secret" not in f"{caught.value} {caught.value.metadata}"

    async def test_entry(self, entries: Entries, resolve: Resolve) -> None:
        """So is what the index itself says."""
        entries.add("tiny", overrides={"backend": "/bin/sh"})
        entries.add("files", overrides={"f16": True}, files=(file("../x"),))

        with pytest.raises(InvalidArgumentError, match="backend"):
            await resolve(id="tiny")
        with pytest.raises(InvalidArgumentError, match="elsewhere"):
            await resolve(id="files")

    async def test_two_files_of_one_name(self, entries: Entries, resolve: Resolve) -> None:
        """Two files cannot have one place, unless they are the same."""
        entries.add("same", files=(file("x"), file("x")))
        entries.add("two", files=(file("x"), GalleryFile(filename="x", uri="https://elsewhere/x")))

        assert ["x"] == names(await resolve(id="same"))
        with pytest.raises(InvalidArgumentError, match="two different files"):
            await resolve(id="two")

    async def test_conversion(self, entries: Entries, resolve: Resolve) -> None:
        """A conversion that is not known, or that nobody can verify, is refused."""
        entries.add("x", files=(GalleryFile(filename="x", uri="https://h/x", convert="run"),))

        with pytest.raises(InvalidArgumentError, match="no conversion run"):
            await resolve(id="x")


async def test_gallery_file(entries: Entries, resolve: Resolve) -> None:
    """The gallery file is LocalAI's, with what we add under one key of its own."""
    entries.add("tiny", url="https://host/base.yaml", description="of the entry")
    recipe = await resolve(id="tiny")

    content = yaml.safe_load(recipe.gallery_text(("base.gguf",)))

    assert "tiny" == content["name"]
    assert "of the entry" == content["description"]
    assert ["https://example.org"] == content["urls"]
    assert recipe.configuration == yaml.safe_load(content["config_file"])
    assert [{"filename": "base.gguf", "sha256": "", "uri": "https://host/base.gguf"}] == (
        content["files"]
    )
    assert [{"name": "base-chat", "content": "{{.Input}}"}] == content["prompt_templates"]
    assert {"installed": ["base.gguf"]} == content["localplane"]
