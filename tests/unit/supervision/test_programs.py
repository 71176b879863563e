"""What names mean, and that nothing can be named but what is registered."""

from __future__ import annotations

from pathlib import Path

import pytest

from localplane_server.setting_values import Endpoint
from localplane_server.supervision.installed import InstalledBackends
from localplane_server.supervision.programs import (
    BackendMetadata,
    BackendProgram,
    BackendPrograms,
    BackendSource,
    ExternalServer,
    RegisteredBackend,
    shipped_programs,
)

HOSTILE = [
    *("..", ".", "/bin/sh", "../../bin/sh", "./run.sh", "llama/../../bin/sh", "llama\0", "\0"),
    *("llama\n", " llama", "llama ", "http://elsewhere:1", "file:///bin/sh", "h:1", "unix:/s", ""),
    *("a\\b", "-c", "$(reboot)", "llama;reboot", "llama --addr x", "run.sh", "python"),
]


def program(name: str, *aliases: str, source: BackendSource) -> BackendProgram:
    return BackendProgram(name=name, argv=(f"/{name}",), aliases=aliases, source=source)


def installed(name: str, *aliases: str) -> BackendProgram:
    return program(name, *aliases, source=BackendSource.INSTALLED)


def registry(*given: RegisteredBackend) -> BackendPrograms:
    return BackendPrograms([*shipped_programs().all(), *given])


def meaning(programs: BackendPrograms, name: str) -> tuple[str, str, BackendSource]:
    choice = programs.get(name)
    assert choice is not None
    return choice.backend.name, choice.model_type, choice.backend.source


class TestNames:
    @pytest.mark.parametrize("name", ["llama", "llama-cpp", "llama.cpp", "go-llama", "Llama-CPP"])
    def test_shipped(self, name: str) -> None:
        """Our own backend answers to its name and to LocalAI's."""
        assert ("llama", "", BackendSource.SHIPPED) == meaning(registry(), name)

    @pytest.mark.parametrize(
        ("alias", "model_type"),
        [
            ("transformers", ""),
            ("sentencetransformers", "SentenceTransformer"),
            ("huggingface-embeddings", "SentenceTransformer"),
            ("mamba", "Mamba"),
            ("transformers-musicgen", "MusicgenForConditionalGeneration"),
        ],
    )
    def test_names_that_ask_for_a_kind_of_model(self, alias: str, model_type: str) -> None:
        """LocalAI's old names mean a backend and the kind of model that it is to load."""
        programs = registry(installed("transformers"))

        assert ("transformers", model_type, BackendSource.INSTALLED) == meaning(programs, alias)

    def test_no_alias_without_its_backend(self) -> None:
        """An alias of LocalAI's means nothing where the backend is not there."""
        assert registry().get("sentencetransformers") is None

    def test_name_before_alias(self) -> None:
        """LocalAI's own llama-cpp is meant by its name where somebody brought it; ours keeps its own."""
        programs = registry(installed("llama-cpp"))

        assert ("llama-cpp", "", BackendSource.INSTALLED) == meaning(programs, "llama-cpp")
        assert ("llama-cpp", "", BackendSource.INSTALLED) == meaning(programs, "go-llama")
        assert ("llama", "", BackendSource.SHIPPED) == meaning(programs, "llama")
        assert [("llama.cpp",), ("go-llama",)] == [one.aliases for one in programs.all()]

    def test_alias_of_what_was_brought_before_ours(self) -> None:
        """The same goes for an alias that an installation wrote."""
        programs = registry(installed("cpu-llama-cpp", "llama-cpp"))

        assert ("cpu-llama-cpp", "", BackendSource.INSTALLED) == meaning(programs, "llama-cpp")
        assert () == programs.problems

    def test_two_with_one_alias(self) -> None:
        """The first by name has it, and the other is told of."""
        programs = registry(installed("cpu-x", "x"), installed("cuda-x", "x"))

        assert "cpu-x" == meaning(programs, "x")[0]
        assert [("cuda-x", "its alias x means cpu-x, which is used")] == list(programs.problems)

    def test_alias_that_is_a_name(self) -> None:
        """Where a backend has the alias of another for its name, as LocalAI's meta backends do, nothing is wrong."""
        programs = registry(installed("x"), installed("cpu-x", "x"))

        assert "x" == meaning(programs, "x")[0]
        assert () == programs.problems

    def test_all_names(self) -> None:
        """Each once, sorted."""
        server = ExternalServer(name="far", address=Endpoint("h", 1))
        programs = registry(server, installed("local-store"))
        expected = ["embedded-store", "far", "go-llama", "llama", "llama-cpp", "llama.cpp"]

        assert [*expected, "local-store"] == programs.names()


class TestNothingElse:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_is_no_backend(self, name: str) -> None:
        """Whatever else a configuration names is no backend: names are looked up, and never become a path."""
        programs = registry(installed("transformers"))

        assert programs.get(name) is None


class TestFolder:
    def add(self, root: Path, name: str) -> None:
        (root / name).mkdir(parents=True)
        (root / name / "run.sh").write_text("#!/bin/sh\n")
        (root / name / "run.sh").chmod(0o755)

    def test_given_before_installed(self, tmp_path: Path) -> None:
        """What lies in the folder takes the name of nothing that ships or that the operator named."""
        for name in ("far", "llama", "mine"):
            self.add(tmp_path, name)
        server = ExternalServer(name="far", address=Endpoint("h", 1))
        programs = BackendPrograms([*shipped_programs().all(), server], InstalledBackends(tmp_path))

        assert [BackendSource.EXTERNAL, BackendSource.SHIPPED, BackendSource.INSTALLED] == [
            one.source for one in programs.all()
        ]
        assert [
            ("far", "has the name of the external backend, which is used"),
            ("llama", "has the name of the shipped backend, which is used"),
        ] == list(programs.problems)

    def test_is_found_without_a_restart(self, tmp_path: Path) -> None:
        """A load finds what came a moment ago, and not what went."""
        programs = BackendPrograms([], InstalledBackends(tmp_path))
        before = programs.get("new")
        self.add(tmp_path, "new")
        found = programs.get("new")
        (tmp_path / "new" / "run.sh").unlink()

        assert before is None
        assert found is not None
        assert programs.get("new") is None
        assert [("new", "has no run.sh")] == list(programs.problems)

    def test_reload(self, tmp_path: Path) -> None:
        """So does a listing once it is asked to read again."""
        programs = BackendPrograms([], InstalledBackends(tmp_path))
        self.add(tmp_path, "new")
        programs.reload()

        assert ["new"] == programs.names()


def test_metadata_is_kept() -> None:
    """What an installation wrote stays with the backend whatever its names are."""
    metadata = BackendMetadata(alias="x", gallery_url="https://g.example")
    one = BackendProgram(name="a", argv=("/a",), aliases=("x",), metadata=metadata)

    [shown] = BackendPrograms([one]).all()
    assert isinstance(shown, BackendProgram)
    assert (metadata, ("x",)) == (shown.metadata, shown.aliases)
