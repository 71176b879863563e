"""A service whose models are served by another service."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import psutil
import pytest

from served import Served, served, wait_until

pytest.importorskip("xllamacpp", reason="the extra llama is not installed")

KEY = "key-of-the-far-service"
VARIABLE = "KEY_OF_ANOTHER_SERVICE"


class Chain(NamedTuple):
    """Two services."""

    near: Served
    """The one that is called."""
    far: Served
    """The one behind it."""

    def ask_far(self, path: str, **body: Any) -> Any:
        """Ask the service behind, past the other."""
        headers = {"Authorization": f"Bearer {KEY}"}
        url = f"http://{self.far.http}{path}"
        return httpx.post(url, json=body, headers=headers, timeout=30).raise_for_status().json()


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Iterator[Chain]:
    """Two services for the tests that leave them as they were."""
    with chained(tmp_path_factory.mktemp("chain"), tiny_gguf) as chain:
        yield chain


@contextlib.contextmanager
def chained(folder: Path, tiny_gguf: Path) -> Iterator[Chain]:
    """Run a service that wants a key, and one in front of it that has the key in its environment."""
    for name in ("far", "near"):
        (folder / name / "models").mkdir(parents=True)
    far_models, near_models = folder / "far" / "models", folder / "near" / "models"
    shutil.copy(tiny_gguf, far_models / "tiny.gguf")
    (far_models / "tiny.yaml").write_text("name: tiny\nparameters: {model: tiny.gguf}")
    (far_models / "vec.yaml").write_text(
        "name: vec\nembeddings: true\nparameters: {model: tiny.gguf}"
    )
    for name, of_far in (("hello", "tiny"), ("vectors", "vec"), ("wrong", "nobody")):
        (near_models / f"{name}.yaml").write_text(
            f"name: {name}\nbackend: upstream\nparameters: {{model: {of_far}}}"
        )
    keys = folder / "keys"
    keys.touch(0o600)
    keys.write_text(f"{KEY} user\n")
    settings = folder / "settings.yaml"
    with served("--api-key-file", str(keys), folder=folder / "far") as far:
        upstream = {"url": f"http://{far.http}/v1", "api_key_env": VARIABLE}
        settings.write_text(json.dumps({"openai_backends": {"upstream": upstream}}))
        with served("--config", str(settings), folder=folder / "near", **{VARIABLE: KEY}) as near:
            yield Chain(near, far)


def test_answers_are_the_same(chain: Chain) -> None:
    """OpenAI's own client gets from one service what the other says, at the same cost."""
    message: Any = {"role": "user", "content": "hello"}
    own = chain.ask_far(
        "/v1/chat/completions", model="tiny", messages=[message], max_tokens=9, temperature=0
    )
    with openai.OpenAI(base_url=f"http://{chain.near.http}/v1", api_key="unused") as client:
        whole = client.chat.completions.create(
            model="hello", messages=[message], max_tokens=9, temperature=0
        )
        chunks = list(
            client.chat.completions.create(
                model="hello",
                messages=[message],
                max_tokens=9,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        vector = client.embeddings.create(model="vectors", input="x")

    text = own["choices"][0]["message"]["content"]
    assert text == whole.choices[0].message.content
    assert text == "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert whole.usage is not None
    assert own["usage"]["completion_tokens"] == whole.usage.completion_tokens == 9
    assert own["usage"]["prompt_tokens"] == whole.usage.prompt_tokens
    assert chunks[-1].usage is not None
    assert (9, whole.usage.prompt_tokens) == (
        chunks[-1].usage.completion_tokens,
        chunks[-1].usage.prompt_tokens,
    )
    assert chain.ask_far("/v1/embeddings", model="vec", input="x")["data"][0][
        "embedding"
    ] == pytest.approx(vector.data[0].embedding, abs=1e-6)


def test_tokens(chain: Chain) -> None:
    """The other service tokenizes too."""
    split = chain.near.post("/v1/tokenize", model="hello", content="héllo").json()
    joined = chain.near.post("/v1/detokenize", model="hello", tokens=split["tokens"]).json()

    assert chain.ask_far("/v1/tokenize", model="tiny", content="héllo")["tokens"] == split["tokens"]
    assert "héllo" == joined["content"]


def test_no_such_model(chain: Chain) -> None:
    """A model that the other does not have does not load, and those that it has are named."""
    error = chain.near.post("/backend/load", model="wrong").json()["error"]

    assert "LOAD_FAILED" == error["reason"]
    assert "the server has no model nobody; it has tiny, vec" in error["message"]


def test_key_is_seen_nowhere(chain: Chain) -> None:
    """Neither logs nor arguments, nor the environment of the other backends, have the key."""
    shutil.copy(chain_models(chain.far) / "tiny.gguf", chain_models(chain.near) / "own.gguf")
    chain.near.load("hello")
    own = chain.near.load("own.gguf")

    logs = [chain.near.log, *(chain_models(chain.near).parent / "logs").glob("*.log")]
    assert 3 <= len(logs)
    assert not [log for log in logs if KEY in log.read_text(errors="replace")]
    assert not [one for one in chain.near.tree if KEY in " ".join(one.cmdline())]
    assert VARIABLE not in own.environ()
    assert KEY not in own.environ().values()


def test_other_service_goes_away(tmp_path: Path, tiny_gguf: Path) -> None:
    """While it is stopped calls are refused with a time to come again, and the backend lives on."""
    with chained(tmp_path, tiny_gguf) as chain:
        check_refusals(chain)


def check_refusals(chain: Chain) -> None:
    """Stop the service behind, and call the other."""
    pid = chain.near.load("hello").pid
    far = psutil.Process(chain.far.process.pid)
    body = {"model": "hello", "prompt": "x", "max_tokens": 1}
    chain.near.post("/v1/completions", **body).raise_for_status()
    chain.far.process.terminate()
    wait_until(lambda: chain.far.process.poll() is not None)

    answer = chain.near.post("/v1/completions", **body)

    assert (503, "BACKEND_UNAVAILABLE") == (answer.status_code, answer.json()["error"]["reason"])
    assert answer.headers["retry-after"]
    assert answer.elapsed.total_seconds() < 3
    assert "cannot be reached" in answer.json()["error"]["message"]
    assert pid == chain.near.load("hello").pid
    assert not far.is_running()


def chain_models(service: Served) -> Path:
    """Return the models folder of a service."""
    return service.log.with_suffix("") / "models"
