"""Models of sentences, converted, embed what the published ones do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openai
import pytest

from bert_checkpoint import converted, write_checkpoint
from bert_reference import BertReference, Floats, cosine, read_vectors
from served import Served, served, wait_until

pytest.importorskip("xllamacpp", reason="the extra llama is not installed")

LEAST_COSINE = 0.999
VECTORS = read_vectors()


@dataclass(frozen=True)
class Embedding:
    """A service with one model that embeds."""

    service: Served
    client: openai.OpenAI
    model: str

    def embed(self, *texts: str) -> list[list[float]]:
        answer = self.client.embeddings.create(model=self.model, input=[*texts])
        return [one.embedding for one in answer.data]


def serving(folder: Path, model: str) -> Iterator[Embedding]:
    with (
        served(folder=folder) as service,
        openai.OpenAI(base_url=f"http://{service.http}/v1", api_key="none") as client,
    ):
        yield Embedding(service, client, model)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedding]:
    """A service with the tiny model."""
    models = tmp_path_factory.mktemp("home") / "data" / "models"
    models.mkdir(parents=True)
    (models / "sentences.gguf").write_bytes(converted())
    (models / "sentences.yaml").write_text(
        "{name: sentences, backend: llama, context_size: 64, embeddings: true,"
        " parameters: {model: sentences.gguf}}"
    )
    yield from serving(models.parent, "sentences")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Iterator[Embedding]:
    """A service with the real model, installed from the built-in gallery; its file is there already."""
    models = tmp_path_factory.mktemp("home") / "data" / "models"
    models.mkdir(parents=True)
    shutil.copy(minilm, models / "all-MiniLM-L6-v2-f16.gguf")
    for embedding in serving(models.parent, "minilm"):
        install(embedding.service, "localplane@minilm")
        yield embedding


def install(service: Served, model: str) -> None:
    job = service.post("/models/apply", id=model).json()
    path = f"/models/jobs/{job['uuid']}"
    wait_until(lambda: bool(service.get(path).json()["processed"]))
    assert not service.get(path).json()["error"]


class TestTiny:
    def test_vectors(self, tiny: Embedding, tmp_path: Path) -> None:
        """The engine finds the vectors that a plain computation finds in the published files."""
        write_checkpoint(tmp_path)
        reference = BertReference(tmp_path)
        texts = ["hello", "cats.", "Hello CATS café [cat] zzz", "unknown 漢 8"]

        found = tiny.embed(*texts)

        assert [] == [
            text
            for text, vector in zip(texts, found, strict=True)
            if cosine(vector, reference.embed(text)) < LEAST_COSINE
        ]
        # Had the tokens not mattered, this would say nothing.
        assert cosine(found[0], found[1]) < LEAST_COSINE

    def test_tokens(self, tiny: Embedding, tmp_path: Path) -> None:
        """Words fall into the same pieces; what begins and ends a text is counted and not shown."""
        write_checkpoint(tmp_path)
        text = "Hello cats, naïve."
        expected = BertReference(tmp_path).tokens(text)
        answer = tiny.client.embeddings.create(model=tiny.model, input=text)

        split = tiny.service.post("/v1/tokenize", model=tiny.model, content=text).json()
        assert expected[1:-1] == split["tokens"]
        assert len(expected) == answer.usage.prompt_tokens


class TestReal:
    @pytest.mark.parametrize("text", list(VECTORS), ids=lambda text: text[:20].strip())
    def test_vectors(self, real: Embedding, text: str) -> None:
        """Texts of all sorts are where the published model puts them, and the vectors have length one."""
        vector = np.array(real.embed(text)[0])

        assert (384,) == vector.shape
        assert pytest.approx(1, abs=1e-4) == np.linalg.norm(vector)
        assert cosine(vector, VECTORS[text]) >= LEAST_COSINE

    def test_many_at_once(self, real: Embedding) -> None:
        """Each text of a list is embedded as if it were alone, and comes in its place."""
        found = real.embed(*VECTORS)

        expected: list[Floats] = list(VECTORS.values())
        assert LEAST_COSINE <= min(map(cosine, found, expected))

    def test_meaning(self, real: Embedding) -> None:
        """Sentences of one meaning are near each other, others are not."""
        eating, meal, market = real.embed(*list(VECTORS)[:3])

        assert cosine(eating, meal) > 0.6
        assert cosine(eating, market) < 0.1

    def test_formats(self, real: Embedding) -> None:
        """Numbers and base64, which OpenAI's client asks for by itself, are the same."""
        plain = real.client.embeddings.create(
            model="minilm", input="hello", encoding_format="float"
        )

        assert pytest.approx(real.embed("hello")[0], abs=1e-6) == plain.data[0].embedding

    def test_too_long(self, real: Embedding) -> None:
        """A text that does not fit is refused and not cut."""
        with pytest.raises(openai.BadRequestError, match="602 tokens"):
            real.embed("word " * 600)

    def test_is_found_without_a_name(self, real: Embedding) -> None:
        """It is what embeds when no model is named, and it does not chat."""
        embedded = real.service.post("/v1/embeddings", input="hello")
        message = {"role": "user", "content": "hello"}
        chat = real.service.post("/v1/chat/completions", messages=[message])

        assert (200, 400) == (embedded.status_code, chat.status_code)
        assert "minilm" == embedded.json()["model"]
