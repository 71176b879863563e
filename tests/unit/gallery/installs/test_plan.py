"""What an installation would come to."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localplane_server.errors import (
    AlreadyExistsError,
    ModelNotInGalleryError,
    SourceRefusedError,
)
from localplane_server.gallery.checkpoints.gguf import Kind, number, string
from localplane_server.gallery.entry import GalleryFile
from localplane_server.gallery.installs.plan import BackendPresence, FilePresence, Plan, Planner
from localplane_server.gallery.installs.request import InstallRequest
from localplane_server.scheduling.limits import PROGRAM_BYTES
from localplane_server.supervision.programs import BackendProgram, BackendPrograms
from workshop import Workshop

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
        return self.workshop.source.contents[uri][:most_bytes]


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

    async def test_converted(self, workshop: Workshop, plan: Callable[..., Any]) -> None:
        """Of a file that is made, what it is made of is fetched."""
        names = ("model.safetensors", "config.json", "vocab.txt")
        sources = tuple(
            GalleryFile(filename=name, uri=f"https://host/{name}", size_bytes=10) for name in names
        )
        workshop.gallery.add(
            "x",
            overrides={"backend": "llama"},
            files=(
                GalleryFile(
                    filename="x.gguf",
                    uri="https://host/x",
                    sha256="ab" * 32,
                    size_bytes=7,
                    convert="bert-gguf",
                    sources=sources,
                ),
            ),
        )
        workshop.source.offer("https://host/x", HEADER)

        found = await plan(id="x")

        assert (7, 30) == (found.total_bytes, found.fetch_bytes)

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
