"""Deleting models from a folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from localplane_server.errors import InstallFailedError, InvalidModelNameError, ModelNotFoundError
from localplane_server.gallery.installs.deletion import Kept, Removed
from workshop import Workshop, packed


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that nobody may touch."""
    path = tmp_path / "outside"
    path.write_text("untouched")
    return path


def content(path: Path) -> str:
    return path.read_text()


async def delete(workshop: Workshop, name: str) -> Removed:
    return await workshop.remover.delete(name, workshop.told.append)


def configure(workshop: Workshop, file: str, text: str) -> None:
    (workshop.root / file).write_text(text)
    workshop.catalog.reload()


class TestDelete:
    async def test_everything(self, workshop: Workshop) -> None:
        """All that an installation wrote is gone, with what came out of archives, and its size is told."""
        workshop.source.offer(
            "https://host/base.yaml",
            b"name: v\nconfig_file: 'backend: llama'\nprompt_templates: [{name: chat, content: x}]",
        )
        await workshop.install(
            url="https://host/base.yaml",
            files=[
                workshop.file("voices/v.tar.gz", packed({"v.onnx": b"x" * 100, "sub/y": b"y"})),
                workshop.file("weights.gguf", b"GGUF"),
            ],
        )
        sizes = sum((workshop.root / name).stat().st_size for name in workshop.files())

        done = await delete(workshop, "v")

        assert [] == list(workshop.root.iterdir())
        assert [] == workshop.models()
        assert sizes == done.freed_bytes
        assert "voices/sub/y" in done.removed
        assert done.freed_memory_bytes is None

    async def test_loaded(self, workshop: Workshop) -> None:
        """A model that is loaded is unloaded before anything of it goes."""
        await workshop.install(**workshop.model("tiny"))
        workshop.loaded.models["tiny"] = 1000
        unload = workshop.loaded.unload
        seen: list[list[str]] = []

        async def watched(model: str) -> int | None:
            seen.append(workshop.files())
            return await unload(model)

        workshop.loaded.unload = watched  # type: ignore[method-assign]

        done = await delete(workshop, "tiny")

        assert 1000 == done.freed_memory_bytes
        assert "tiny.yaml" in seen[0]
        assert [] == seen[1]

    async def test_loaded_again(self, workshop: Workshop) -> None:
        """A model that a call loads meanwhile is unloaded again once no call can."""
        await workshop.install(**workshop.model("tiny"))
        make = workshop.changes.make

        async def loaded_meanwhile(describe: Any, *, model: str) -> None:
            workshop.loaded.models["tiny"] = 7
            await make(describe, model=model)

        workshop.changes.make = loaded_meanwhile  # type: ignore[method-assign]

        assert 7 == (await delete(workshop, "tiny")).freed_memory_bytes
        assert {} == workshop.loaded.models

    async def test_not_unloaded_again(
        self, workshop: Workshop, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A model whose files are gone is deleted, even if it cannot be unloaded once more."""
        await workshop.install(**workshop.model("tiny"))
        unload = workshop.loaded.unload

        async def failing(model: str) -> int | None:
            if not workshop.models():
                raise RuntimeError
            return await unload(model)

        workshop.loaded.unload = failing  # type: ignore[method-assign]

        assert "tiny.gguf" in (await delete(workshop, "tiny")).removed
        assert "cannot be unloaded" in caplog.text

    async def test_written_by_hand(self, workshop: Workshop) -> None:
        """A model that was never installed goes with the weights and the projector that it names."""
        for name in ("x.gguf", "p.gguf", "other.bin"):
            (workshop.root / name).write_text("GGUF")
        configure(
            workshop,
            "mine.yml",
            "name: mine\nbackend: llama\nmmproj: p.gguf\nparameters: {model: ./x.gguf}\n",
        )

        done = await delete(workshop, "mine")

        assert ["other.bin"] == workshop.files()
        assert ("mine.yml", "p.gguf", "x.gguf") == done.removed

    async def test_missing_files(self, workshop: Workshop) -> None:
        """Files that are gone already are no error."""
        await workshop.install(**workshop.model("tiny"))
        (workshop.root / "tiny.gguf").unlink()

        await delete(workshop, "tiny")

        assert [] == workshop.files()

    async def test_broken_configuration(self, workshop: Workshop) -> None:
        """A model whose configuration became unreadable can be deleted."""
        await workshop.install(**workshop.model("tiny"))
        configure(workshop, "tiny.yaml", "{{{")

        await delete(workshop, "tiny")

        assert [] == workshop.files()


class TestName:
    async def test_unknown(self, workshop: Workshop) -> None:
        """A model that there is not is told as such."""
        with pytest.raises(ModelNotFoundError):
            await delete(workshop, "none")

    async def test_twice(self, workshop: Workshop) -> None:
        """One that was deleted is not there any more."""
        await workshop.install(**workshop.model("tiny"))
        await delete(workshop, "tiny")

        with pytest.raises(ModelNotFoundError):
            await delete(workshop, "tiny")

    @pytest.mark.parametrize("name", ["org/tiny", "org__tiny"])
    async def test_slash(self, workshop: Workshop, name: str) -> None:
        """A name with a slash is meant by either way of writing it."""
        request = workshop.model("tiny")
        await workshop.install(**{**request, "name": "org/tiny"})

        await delete(workshop, name)

        assert [] == workshop.files()

    @pytest.mark.parametrize("name", ["file", "served/as"])
    async def test_file_and_name(self, workshop: Workshop, name: str) -> None:
        """A configuration is meant by the name of its model and by that of its file."""
        configure(workshop, "file.yaml", "name: served/as\nbackend: llama\n")
        workshop.loaded.models["served/as"] = 1

        done = await delete(workshop, name)

        assert "served/as" == done.name
        assert [] == workshop.files()
        assert ["served/as"] == workshop.loaded.unloaded

    async def test_alias(self, workshop: Workshop) -> None:
        """An alias is no name to delete by."""
        configure(workshop, "x.yaml", "name: x\nbackend: llama\naliases: [y]\n")

        with pytest.raises(ModelNotFoundError):
            await delete(workshop, "y")

    @pytest.mark.parametrize("name", ["loose.gguf", "sub/loose.gguf"])
    async def test_loose_file(self, workshop: Workshop, name: str) -> None:
        """A model file without a configuration goes by its path."""
        (workshop.root / "sub").mkdir()
        for one in ("loose.gguf", "sub/loose.gguf"):
            (workshop.root / one).write_bytes(b"GGUF")

        done = await delete(workshop, name)

        assert (name,) == done.removed
        assert 1 == len(workshop.files())

    async def test_file_of_a_model(self, workshop: Workshop) -> None:
        """A file that a configuration uses is no model of its own."""
        await workshop.install(**workshop.model("tiny"))

        with pytest.raises(ModelNotFoundError):
            await delete(workshop, "tiny.gguf")

    @pytest.mark.parametrize("name", ["", " ", ".", "..", "a\0", "\ud800", "x" * 300, "a\\b"])
    async def test_hostile(self, workshop: Workshop, name: str) -> None:
        """What cannot be a name is refused."""
        with pytest.raises(InvalidModelNameError):
            await delete(workshop, name)

    @pytest.mark.parametrize("name", ["x/../../outside", "/etc/passwd", "x//y", "sub/.hidden"])
    async def test_paths(self, workshop: Workshop, name: str, outside: Path) -> None:
        """What leads elsewhere is no model."""
        with pytest.raises(ModelNotFoundError):
            await delete(workshop, name)

        assert "untouched" == content(outside)


class TestShared:
    async def test_weights(self, workshop: Workshop) -> None:
        """Weights that two models use go with the last of them."""
        await workshop.install(**workshop.model("tiny"))
        configure(workshop, "other.yaml", "name: other\nparameters: {model: tiny.gguf}\n")

        first = await delete(workshop, "tiny")

        assert (Kept("tiny.gguf", ("other",)),) == first.kept
        assert ["other.yaml", "tiny.gguf"] == workshop.files()
        await delete(workshop, "other")
        assert [] == workshop.files()

    @pytest.mark.parametrize(
        "text",
        [
            "mmproj: shared.bin",
            "draft_model: shared.bin",
            "lora_adapters: [x, shared.bin]",
            "tts: {audio_path: shared.bin}",
            "options: ['tokens:shared.bin']",
            "download_files: [{filename: shared.bin, uri: 'https://h/x'}]",
            "parameters: {tokenizer: ./shared.bin}",
            "new_key: {deep: [{er: shared.bin}]}",
            "{{{ broken, yet it says shared.bin",
        ],
    )
    async def test_configurations(self, workshop: Workshop, text: str) -> None:
        """A file stays whichever key of another configuration names it, also of one that cannot be read."""
        request = workshop.model("tiny")
        request["files"].append(workshop.file("shared.bin", b"x"))
        await workshop.install(**request)
        configure(workshop, "other.yaml", f"name: other\n{text}\n" if "{{{" not in text else text)

        done = await delete(workshop, "tiny")

        assert (Kept("shared.bin", ("other",)),) == done.kept
        assert "shared.bin" in workshop.files()

    async def test_folder(self, workshop: Workshop) -> None:
        """A file stays if another model is the folder that it is in."""
        request = workshop.model("tiny")
        request["files"].append(workshop.file("folder/x.bin", b"x"))
        await workshop.install(**request)
        configure(workshop, "other.yaml", "name: other\nparameters: {model: folder}\n")

        assert "folder/x.bin" == (await delete(workshop, "tiny")).kept[0].path

    async def test_template(self, workshop: Workshop) -> None:
        """A prompt template stays if another configuration uses it."""
        workshop.source.offer(
            "https://host/base.yaml", b"name: v\nprompt_templates: [{name: chat, content: x}]"
        )
        await workshop.install(url="https://host/base.yaml", overrides={"f16": True})
        configure(workshop, "other.yaml", "name: other\ntemplate: {chat: chat}\n")

        await delete(workshop, "v")

        assert "chat.tmpl" in workshop.files()

    async def test_installed_files(self, workshop: Workshop) -> None:
        """A file stays if another installation brought it as well, be it out of an archive."""
        for name in ("a", "b"):
            file = workshop.file(f"{name}.tar.gz", packed({"shared.json": b"{}", name: b"x"}))
            await workshop.install(config_file={"name": name}, files=[file])

        assert (Kept("shared.json", ("b",)),) == (await delete(workshop, "a")).kept
        await delete(workshop, "b")
        assert [] == workshop.files()


class TestHostile:
    async def test_gallery_file(self, workshop: Workshop, outside: Path) -> None:
        """Paths in a gallery file that lead elsewhere are left alone, and so are configurations of others."""
        configure(workshop, "other.yaml", "name: other\nbackend: llama\n")
        (workshop.root / "._gallery_x.yaml").write_text(
            "files:\n"
            f"- {{filename: ../outside}}\n- {{filename: {outside}}}\n- {{filename: other.yaml}}\n"
            "- {filename: a/../../outside}\n"
            "prompt_templates: [{name: ../outside}]\n"
            "localplane: {installed: ['../outside', '.localplane', 7]}\n"
        )

        done = await delete(workshop, "x")

        assert ("._gallery_x.yaml",) == done.removed
        assert "untouched" == content(outside)
        assert ["other.yaml"] == workshop.files()

    async def test_configuration(self, workshop: Workshop, outside: Path) -> None:
        """So are those in a configuration."""
        configure(workshop, "x.yaml", "name: x\nmmproj: ../outside\nmodel: ../outside\n")

        await delete(workshop, "x")

        assert "untouched" == content(outside)

    async def test_links(self, workshop: Workshop, tmp_path: Path, outside: Path) -> None:
        """A link goes itself, and what is behind a folder that is a link is left alone."""
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "y.gguf").write_text("untouched")
        (workshop.root / "sub").symlink_to(folder)
        (workshop.root / "x.gguf").symlink_to(outside)
        configure(workshop, "x.yaml", "name: x\nmmproj: sub/y.gguf\nparameters: {model: x.gguf}\n")

        done = await delete(workshop, "x")

        assert ("x.gguf", "x.yaml") == done.removed
        assert "untouched" == content(outside)
        assert "untouched" == content(folder / "y.gguf")

    async def test_folder(self, workshop: Workshop) -> None:
        """A folder is not removed, whatever is in it."""
        (workshop.root / "weights").mkdir()
        (workshop.root / "weights" / "x").touch()
        configure(workshop, "x.yaml", "name: x\nparameters: {model: weights}\n")

        await delete(workshop, "x")

        assert ["weights/x"] == workshop.files()


async def test_disk(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fails, everything is as it was."""
    await workshop.install(**workshop.model("tiny"))
    before = workshop.files()
    rename = os.rename

    def failing(source: str, target: str, **options: Any) -> None:
        if source == "tiny.gguf":
            raise OSError(errno.EIO, "the disk fails")
        rename(source, target, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing)
        with pytest.raises(InstallFailedError, match="the disk fails"):
            await delete(workshop, "tiny")

    assert before == workshop.files()
    assert ["tiny"] == workshop.models()
