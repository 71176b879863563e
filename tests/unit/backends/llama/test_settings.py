"""What a model is loaded with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from localplane.localai import backend_pb2
from localplane_backends.llama.settings import NOT_SUPPORTED, SettingsError, read


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.touch()
    return path


def options(file: Path, **fields: Any) -> backend_pb2.ModelOptions:
    return backend_pb2.ModelOptions(Model=file.name, ModelFile=str(file), **fields)


class TestRead:
    def test_defaults(self, file: Path) -> None:
        """Generation has one thread, prompts have all cores, and batches can be cancelled soon."""
        settings = read(options(file), cores=8)

        assert (1, 8) == (settings.generation_threads, settings.prompt_threads)
        assert (4096, 1, 128) == (
            settings.context_tokens,
            settings.slots,
            settings.batch_tokens,
        )
        assert (0, "f16", "f16", "auto", "NONE", 0) == (
            settings.prompt_cache_mib,
            settings.cache_type_key,
            settings.cache_type_value,
            settings.flash_attention,
            settings.load_mode,
            settings.gpu_layers,
        )

    def test_threads(self, file: Path) -> None:
        """Threads are for both, unless generation has an option of its own."""
        both = read(options(file, Threads=4), cores=8)
        own = read(options(file, Threads=4, Options=["generation_threads:2"]), cores=8)

        assert (4, 4) == (both.generation_threads, both.prompt_threads)
        assert (2, 4) == (own.generation_threads, own.prompt_threads)

    def test_embeddings(self, file: Path) -> None:
        """A text to embed is one batch, as large as the slot's part of the context."""
        settings = read(options(file, Embeddings=True, ContextSize=1024, Options=["parallel:2"]))

        assert (512, "mean") == (settings.batch_tokens, settings.pooling)

    def test_own_options(self, file: Path) -> None:
        """The options of this backend are read, spaces or not."""
        settings = read(options(file, Options=["parallel: 3", "cache_ram:64", "pooling:cls"]))

        assert (3, 64, "cls") == (settings.slots, settings.prompt_cache_mib, settings.pooling)

    def test_engine_settings(self, file: Path) -> None:
        """What the protocol names is handed on."""
        settings = read(
            options(
                file,
                MMap=True,
                MLock=True,
                FlashAttention="on",
                CacheTypeKey="Q8_0",
                CacheTypeValue="q4_0",
                NGPULayers=99,
                NBatch=512,
                Seed=7,
                RopeScaling="yarn",
            )
        )

        assert ("MMAP_MLOCK", "enabled", "q8_0", "q4_0", 99, 512, 7, "yarn") == (
            settings.load_mode,
            settings.flash_attention,
            settings.cache_type_key,
            settings.cache_type_value,
            settings.gpu_layers,
            settings.batch_tokens,
            settings.seed,
            settings.rope_scaling,
        )

    def test_file_in_the_models_folder(self, file: Path) -> None:
        """Without a path of its own, the model is looked for in the models' folder."""
        wanted = backend_pb2.ModelOptions(Model=file.name, ModelPath=str(file.parent))

        assert file == read(wanted).file

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"Options": ["nope:1"]}, 'unknown option "nope"; known are cache_ram, generation_thr'),
            ({"Options": ["parallel"]}, 'option "parallel" cannot be ""'),
            ({"Options": ["parallel:0"]}, 'option "parallel" cannot be "0"'),
            ({"Options": ["pooling:max"]}, 'option "pooling" cannot be "max"'),
            ({"Options": ["cache_ram:-1"]}, 'option "cache_ram" cannot be "-1"'),
            ({"ContextSize": -1}, "ContextSize must be positive, not -1"),
            ({"NBatch": -1}, "NBatch must be positive, not -1"),
            ({"Threads": -1}, "Threads must be positive, not -1"),
            ({"CacheTypeKey": "q3"}, 'CacheTypeKey cannot be "q3"; known are f32, f16'),
            ({"FlashAttention": "x"}, 'FlashAttention cannot be "x"; known are auto, on'),
            ({"RopeScaling": "x"}, 'RopeScaling cannot be "x"; known are none, linear, yarn'),
        ],
    )
    def test_wrong(self, file: Path, fields: dict[str, Any], message: str) -> None:
        """What is wrong is named, never ignored."""
        with pytest.raises(SettingsError) as caught:
            read(options(file, **fields))

        assert str(caught.value).startswith(message)

    @pytest.mark.parametrize("name", NOT_SUPPORTED)
    def test_not_supported(self, file: Path, name: str) -> None:
        """A field that this backend does not act on is refused when it is set."""
        field = backend_pb2.ModelOptions.DESCRIPTOR.fields_by_name[name]
        value: Any = {field.TYPE_STRING: "x", field.TYPE_BOOL: True}.get(field.type, 1)
        if field.message_type is not None:
            value = backend_pb2.GrammarTrigger(word="x")
        wanted = options(file, **{name: [value] if field.is_repeated else value})

        with pytest.raises(SettingsError, match=f"^{name} is not supported$"):
            read(wanted)

    def test_no_file(self, tmp_path: Path) -> None:
        """A file that is not there is named."""
        with pytest.raises(SettingsError, match=r"no such model file: .*/gone.gguf"):
            read(options(tmp_path / "gone.gguf"))

    def test_no_model(self) -> None:
        """A model must be named."""
        with pytest.raises(SettingsError, match="no model file given"):
            read(backend_pb2.ModelOptions())
