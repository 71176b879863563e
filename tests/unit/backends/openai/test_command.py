"""The arguments of commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from localplane.localai import backend_pb2
from localplane_backends.openai.command import CommandError, filled, values_for


def values(**fields: object) -> dict[str, str]:
    return values_for(backend_pb2.ModelOptions(**fields), port=81, key="")  # type: ignore[arg-type]


class TestFilled:
    def test_values(self, tmp_path: Path) -> None:
        """Placeholders become what the model's configuration says."""
        file = tmp_path / "m.gguf"
        file.touch()
        given = values(Model="m", ModelFile=str(file), ContextSize=9, NGPULayers=99)

        assert f"{file}:81:m" == filled("{model_file}:{port}:{model}", given)
        assert "9 99" == filled("{context_size} {gpu_layers}", given)

    def test_defaults(self) -> None:
        """What is not set becomes what the operator wrote behind the colon, which may be nothing."""
        assert "--ctx=4096 " == filled("--ctx={context_size:4096} {threads:}", values(Model="m"))
        assert "--ctx=8" == filled("--ctx={context_size:4096}", values(ContextSize=8))

    def test_other_braces(self) -> None:
        """JSON, and what else has braces, is left as it is."""
        text = '{"a": {"b": 1}} {} {A} ${HOME} {a b}'

        assert text == filled(text, values())

    @pytest.mark.parametrize("name", ["context_size", "model_file", "threads", "model"])
    def test_missing(self, name: str) -> None:
        """What is not set and has no default cannot be filled in."""
        with pytest.raises(CommandError, match="model"):
            filled(f"{{{name}}}", values(ModelFile="/nowhere/m.gguf"))

    def test_no_option_from_a_model(self) -> None:
        """A model's name cannot become an option of the command; behind one it is its value."""
        given = values(Model="--trust-remote-code")

        with pytest.raises(CommandError, match="cannot begin with a dash"):
            filled("{model}", given)
        assert "--model=--trust-remote-code" == filled("--model={model}", given)

    def test_key_of_ours(self) -> None:
        """A key is what it is, whatever it begins with."""
        given = values_for(backend_pb2.ModelOptions(), port=1, key="-k")

        assert "-k" == filled("{api_key}", given)
