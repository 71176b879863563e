"""Hostile names in every field that becomes a path or chooses a program: nothing outside the root is touched."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

import file_server
from file_server import FileServer
from served import Served, served, wait_until

pytestmark = pytest.mark.faults

SECRET = "of nobody's business"
PARENTS = [
    "../outside/x",
    "a/../../outside/x",
    "..",
    "a/../../../outside/x",
    "..\\outside\\x",
    "a\\..\\x",
]
ABSOLUTE = ["/etc/passwd", "//etc/passwd", "\\etc\\passwd"]
UNWRITABLE = ["x\0y", "x\ny", "x\x1by", "x" * 300, "a/" * 50 + "x", "", " ", "\x7f"]
HIDDEN = [".x", "a/.x", ".localplane/x/journal.json", "._gallery_victim.yaml"]
NAMES = [*PARENTS, *ABSOLUTE, *UNWRITABLE, *HIDDEN]
FLAT_NAMES = [one for one in NAMES if one and ("/" not in one or one.startswith("."))]
"""Those that do not become good ones by having underscores for slashes."""
BACKENDS = [*PARENTS, *ABSOLUTE, "x\0y", "./run.sh", "a/run.sh", "127.0.0.1:50051", "a b"]


class Stage:
    """A service, what it must not touch, and a server of what strangers offer."""

    def __init__(self, service: Served, folder: Path, files: FileServer) -> None:
        self.service = service
        self.files = files
        self.models = folder / "models"
        self.outside = folder.parent / "outside"
        self.before = self.picture()

    def picture(self) -> dict[str, str]:
        """Return all files that nothing here may change: those outside, and those of the victim."""
        kept = [*self.outside.rglob("*"), *self.models.glob("*victim*")]
        return {str(path): path.read_text() for path in kept if path.is_file()}

    def untouched(self) -> None:
        """Check that what must not be touched is not, and that nothing is installed that is not whole."""
        assert self.before == self.picture()
        strangers = {
            path.name
            for path in self.models.iterdir()
            if "victim" not in path.name and not path.is_symlink()
        }
        assert set() == strangers

    def file(self, filename: str, content: bytes = b"x") -> dict[str, str]:
        served = self.files.put("/x", content)
        return {"filename": filename, "uri": f"{self.files.url}/x", "sha256": served.sha256}

    def document(self, text: str) -> str:
        self.files.put("/x.yaml", text.encode(), kind="application/yaml")
        return f"{self.files.url}/x.yaml"

    def refused(self, **request: Any) -> dict[str, Any]:
        """Apply a request that is refused at once, or whose job fails; return what is said of it."""
        answer = self.service.post("/models/apply", **request)
        if answer.is_success:
            job = self.finished(answer)
            assert job["error"], job
            self.untouched()
            return job
        assert 400 == answer.status_code, answer.text
        self.untouched()
        error: dict[str, Any] = answer.json()["error"]
        return error

    def finished(self, answer: httpx.Response) -> dict[str, Any]:
        path = f"/models/jobs/{answer.json()['uuid']}"
        wait_until(lambda: bool(self.service.get(path).json()["processed"]))
        job: dict[str, Any] = self.service.get(path).json()
        return job


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A service with one model, the victim, and links that somebody planted."""
    folder = tmp_path_factory.mktemp("paths") / "data"
    models = folder / "models"
    outside = folder.parent / "outside"
    models.mkdir(parents=True)
    outside.mkdir()
    (outside / "x").write_text(SECRET)
    (outside / "run.sh").write_text(f"#!/bin/sh\ntouch {outside}/was-run\n")
    (outside / "run.sh").chmod(0o755)
    (models / "victim.yaml").write_text("name: victim\nbackend: llama\n")
    (models / "victim.gguf").write_text("GGUF victim")
    (models / "planted").symlink_to(outside)
    (models / "planted-file").symlink_to(outside / "x")
    with (
        file_server.serving() as files,
        served(
            *("--allow-private-hosts", "127.0.0.1", "--galleries", "[]"), folder=folder
        ) as service,
    ):
        yield Stage(service, folder, files)


def reason(told: dict[str, Any]) -> str:
    return str(told.get("reason") or told.get("error_reason"))


class TestInstall:
    @pytest.mark.parametrize("name", [*NAMES, "victim.yaml", "y.yml"])
    def test_file(self, stage: Stage, name: str) -> None:
        """The name of a file that is to be installed."""
        told = stage.refused(config_file={"name": "x"}, files=[stage.file(name)])

        assert "INVALID_ARGUMENT" == reason(told)

    @pytest.mark.parametrize("name", FLAT_NAMES)
    def test_name(self, stage: Stage, name: str) -> None:
        """The name of the model."""
        told = stage.refused(name=name, config_file={"backend": "llama"})

        assert "INVALID_MODEL_NAME" == reason(told)

    @pytest.mark.parametrize("name", ["/etc/passwd", "a/../../outside/x"])
    def test_name_with_slashes(self, stage: Stage, name: str) -> None:
        """A name with slashes is a file name without any, and goes again under the same name."""
        job = stage.finished(
            stage.service.post("/models/apply", name=name, config_file={"backend": "llama"})
        )
        assert not job["error"], job
        assert stage.before == stage.picture()

        job = stage.finished(stage.service.post(f"/models/delete/{quote(name, safe='')}"))

        assert not job["error"], job
        stage.untouched()

    @pytest.mark.parametrize("name", NAMES)
    def test_document(self, stage: Stage, name: str) -> None:
        """Names in a document that a request refers to: of a file, of a template, of the model."""
        written = json.dumps(name)
        source = stage.file("x")
        entry = f"{{filename: {written}, uri: '{source['uri']}'}}"
        for text in (
            f"name: x\nconfig_file: 'backend: llama'\nfiles: [{entry}]\n",
            f"name: x\nconfig_file: 'backend: llama'\nprompt_templates: [{{name: {written}, content: x}}]\n",
        ):
            if name in ("", " ") and "templates" in text:
                continue
            told = stage.refused(url=stage.document(text))
            assert "INVALID_ARGUMENT" == reason(told), text

    @pytest.mark.parametrize("path", [*PARENTS, *ABSOLUTE, "x\0y"])
    @pytest.mark.parametrize(
        "settings",
        [
            lambda path: {"parameters": {"model": path}},
            lambda path: {"mmproj": path},
            lambda path: {"draft_model": path},
            lambda path: {"lora_adapter": path},
            lambda path: {"lora_adapters": ["fine", path]},
            lambda path: {"lora_base": path},
            lambda path: {"tts": {"audio_path": path}},
            lambda path: {"download_files": [{"filename": path, "uri": "https://h/x"}]},
        ],
    )
    def test_settings(self, stage: Stage, path: str, settings: Any) -> None:
        """Paths in a configuration, in the overrides of a request and in the configuration itself."""
        if "\\" in path and path.startswith("a"):
            path = "..\\x"
        for request in (
            {"config_file": {"name": "x", **settings(path)}},
            {"config_file": {"name": "x"}, "overrides": settings(path)},
        ):
            assert "INVALID_ARGUMENT" == reason(stage.refused(**request))

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_backend(self, stage: Stage, backend: str) -> None:
        """A backend is a name, and never a program."""
        for request in (
            {"config_file": {"name": "x", "backend": backend}},
            {"config_file": {"name": "x"}, "overrides": {"backend": backend}},
        ):
            assert "INVALID_ARGUMENT" == reason(stage.refused(**request))
        assert not (stage.outside / "was-run").exists()

    def test_existing_program(self, stage: Stage) -> None:
        """Not even if there is such a program."""
        told = stage.refused(config_file={"name": "x", "backend": str(stage.outside / "run.sh")})

        assert "INVALID_ARGUMENT" == reason(told)

    @pytest.mark.parametrize(
        "uri", ["file:///etc/passwd", "file://../outside/x", "file:outside/x", "/etc/passwd"]
    )
    def test_source(self, stage: Stage, uri: str) -> None:
        """A file of this machine, from outside of the models folder, in every field that takes a URL."""
        for request in (
            {"config_file": {"name": "x"}, "files": [{"filename": "x", "uri": uri}]},
            {"url": uri},
            {"config_url": uri},
        ):
            assert "SOURCE_REFUSED" == reason(stage.refused(**request))

    def test_linked_source(self, stage: Stage) -> None:
        """Nor through a link that somebody planted in the models folder."""
        for name in ("planted-file", "planted/x"):
            uri = f"file://{stage.models / name}"
            told = stage.refused(config_file={"name": "x"}, files=[{"filename": "x", "uri": uri}])
            assert reason(told) in ("SOURCE_REFUSED", "DOWNLOAD_FAILED")


class TestPlanted:
    def test_folder(self, stage: Stage) -> None:
        """A file is not written through a folder that is a link."""
        told = stage.refused(config_file={"name": "x"}, files=[stage.file("planted/new", b"new")])

        assert "INSTALL_FAILED" == reason(told)
        assert not (stage.outside / "new").exists()

    def test_file(self, stage: Stage) -> None:
        """A link in the place of a file is replaced itself, and removed with the model."""
        job = stage.finished(
            stage.service.post(
                "/models/apply",
                config_file={"name": "x", "parameters": {"model": "planted-file"}},
                files=[stage.file("planted-file", b"new")],
            )
        )
        assert not job["error"], job
        assert b"new" == (stage.models / "planted-file").read_bytes()
        assert stage.before == stage.picture()

        stage.finished(stage.service.post("/models/delete/x"))

        stage.untouched()

    def test_hidden_folder(self, stage: Stage) -> None:
        """Not even the folder in which changes are prepared can be made to lead elsewhere."""
        (stage.models / ".localplane").symlink_to(stage.outside)
        try:
            answer = stage.service.post("/models/apply", config_file={"name": "x"})
            assert stage.finished(answer)["error"]
        finally:
            (stage.models / ".localplane").unlink()
        stage.untouched()


class TestArchives:
    def tar(self, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
        output = io.BytesIO()
        with tarfile.open(fileobj=output, mode="w:gz") as archive:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = 1 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"x"))
            if kind == tarfile.SYMTYPE:
                through = tarfile.TarInfo(f"{name}/through")
                through.size = 1
                archive.addfile(through, io.BytesIO(b"x"))
        return output.getvalue()

    def zip(self, name: str) -> bytes:
        output = io.BytesIO()
        with zipfile.ZipFile(output, "w") as archive:
            archive.writestr(name, "x")
        return output.getvalue()

    @pytest.mark.parametrize(
        "name", ["../outside/x", "/etc/passwd", "a/../../../outside/x", "victim.yaml"]
    )
    @pytest.mark.parametrize("kind", ["tar.gz", "zip"])
    def test_names(self, stage: Stage, name: str, kind: str) -> None:
        """Names in archives that lead elsewhere, or would be another model's configuration."""
        content = self.zip(name) if kind == "zip" else self.tar(name)

        told = stage.refused(config_file={"name": "x"}, files=[stage.file(f"x.{kind}", content)])

        assert "ARCHIVE_REFUSED" == reason(told)

    @pytest.mark.parametrize(
        "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
    )
    def test_links(self, stage: Stage, kind: bytes) -> None:
        """Links out of archives, with files behind them, and devices."""
        content = self.tar("sub", kind, str(stage.outside))

        told = stage.refused(config_file={"name": "x"}, files=[stage.file("x.tar.gz", content)])

        assert "ARCHIVE_REFUSED" == reason(told)


class TestDelete:
    @pytest.mark.parametrize("name", NAMES)
    def test_name(self, stage: Stage, name: str) -> None:
        """The name of a model that is to be deleted."""
        answer = stage.service.post(f"/models/delete/{quote(name, safe='')}")

        if answer.is_success:
            assert stage.finished(answer)["error_reason"] in (
                "MODEL_NOT_FOUND",
                "INVALID_MODEL_NAME",
            )
        else:
            assert answer.status_code in (400, 404, 405)
        stage.untouched()

    @pytest.mark.parametrize("path", [*PARENTS, *ABSOLUTE, "planted/x"])
    def test_recorded(self, stage: Stage, path: str) -> None:
        """Paths that somebody wrote into the record of an installation, or into a configuration."""
        written = json.dumps(path)
        (stage.models / "._gallery_x.yaml").write_text(
            f"files: [{{filename: {written}}}]\nlocalplane: {{installed: [{written}]}}\n"
            f"prompt_templates: [{{name: {written}}}]\n"
        )
        (stage.models / "x.yaml").write_text(
            f"name: x\nmmproj: {written}\nparameters: {{model: {written}}}\n"
        )

        job = stage.finished(stage.service.post("/models/delete/x"))

        assert not job["error"], job
        stage.untouched()

    def test_victim_stays(self, stage: Stage) -> None:
        """After all of this the victim is there, and its file too."""
        stage.untouched()
        assert SECRET == (stage.outside / "x").read_text()
        assert os.path.lexists(stage.models / "victim.gguf")
