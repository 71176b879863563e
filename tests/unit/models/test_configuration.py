"""LocalAI's YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from localplane_server.models.configuration import (
    ConfigurationError,
    ModelConfig,
    Sampling,
    read_configuration,
)


def read(folder: Path, text: str) -> ModelConfig:
    path = folder / "m.yaml"
    path.write_text(text)
    return read_configuration(path, root=folder)


def test_a_whole_configuration(tmp_path: Path) -> None:
    """Every key that the service uses is taken; those it does not use are no error."""
    model = read(
        tmp_path,
        """
        name: chat
        backend: llama-cpp
        aliases: [gpt-4, a/b]
        description: a model
        context_size: 2048
        threads: 2
        f16: true
        embeddings: false
        gpu_layers: 0
        mmap: true
        options: ["parallel:2", use_jinja:true]
        stopwords: ["</s>"]
        known_usecases: [FLAG_X, chat]
        parameters:
          model: sub/weights.gguf
          temperature: 0.2
          top_p: 0.9
          top_k: 40
          max_tokens: 64
          seed: -1
        template: {chat: "{{.Input}}"}
        """,
    )

    assert (
        ModelConfig(
            name="chat",
            backend="llama-cpp",
            aliases=("gpt-4", "a/b"),
            file="sub/weights.gguf",
            config_file="m.yaml",
            context_size=2048,
            threads=2,
            f16=True,
            gpu_layers=0,
            mmap=True,
            options=("parallel:2", "use_jinja:true"),
            stop=("</s>",),
            use_cases=frozenset({"flag_x", "chat"}),
            description="a model",
            sampling=Sampling(temperature=0.2, top_p=0.9, top_k=40, max_tokens=64, seed=-1),
            engine=(("Seed", -1),),
        )
        == model
    )


def test_null_and_zero_mean_the_default(tmp_path: Path) -> None:
    """LocalAI's files write null or 0 where they mean that they do not say."""
    model = read(tmp_path, "name: m\ncontext_size: 0\nthreads:\nparameters: {max_tokens: 0}\n")

    assert (None, None, None) == (model.context_size, model.threads, model.sampling.max_tokens)


def test_a_number_as_name_is_its_text(tmp_path: Path) -> None:
    """YAML reads `name: 7` as a number; whoever wrote it means the name."""
    assert "7" == read(tmp_path, "name: 7").name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mapping"),
        ("- a", "mapping"),
        ("name: [", "not YAML"),
        ("backend: llama", "name is missing"),
        ("name: a\ncontext_size: many", "context_size"),
        ("name: a\nthreads: true", "threads"),
        ("name: a\nf16: 3", "f16"),
        ("name: a\nparameters: [1]", "parameters"),
        ("name: a\nparameters: {temperature: .nan}", "parameters.temperature"),
        ("name: a\nbackend: ../../bin/sh", "backend"),
        ("name: a\nbackend: /bin/sh", "backend"),
        ("name: a\nbackend: ..", "backend"),
        ("name: a\nbackend: .hidden", "backend"),
        ("name: a\nbackend: a/run.sh", "backend"),
        ("name: a\nbackend: a\\b", "backend"),
        ('name: a\nbackend: "llama\\0"', "backend"),
        ('name: a\nbackend: "llama\\n"', "backend"),
        ("name: a\nbackend: 'http://elsewhere:1'", "backend"),
        ("name: a\nbackend: elsewhere:50051", "backend"),
        ("name: a\nbackend: llama --addr 0.0.0.0:1", "backend"),
        ("name: a\nbackend: $(reboot)", "backend"),
        ("name: a\nbackend: -c", "backend"),
        (f"name: a\nbackend: {'b' * 129}", "backend"),
        ("name: a\nbackend: [llama]", "backend"),
        ("name: a\nparameters: {model: ../secret}", "leads out"),
        ("name: a\nparameters: {model: /etc/passwd}", "leads out"),
        ("name: !!python/object/apply:os.system [id]", "not YAML"),
        ("name: " + "x" * 256, "too long"),
        ("a: &a [1]\n" + "".join(f"k{n}: *a\n" for n in range(65)), "aliases"),
        ("[" * 5000, "nest"),
        ("[" * 40, "nested"),
        ("#" + "x" * (1024 * 1024), "larger"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    """The error names the key or the fault; nothing is run, nothing grows without bound."""
    with pytest.raises(ConfigurationError, match=message):
        read(tmp_path, text)


def test_not_text(tmp_path: Path) -> None:
    """Bytes that are no text are an error of the file."""
    path = tmp_path / "m.yaml"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_configuration(path, root=tmp_path)
