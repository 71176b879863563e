"""Models of servers with OpenAI's API that the operator registered, over every transport."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.processes import COMMAND, deaf_port, llama_server
from contract.test_inference_service import chat, fails, stream
from contract.transports import Transport
from localplane.v1 import inference_service_pb2 as pb
from localplane.v1 import token_metrics_service_pb2, tokenizer_service_pb2
from localplane_server.config import load_settings

pytest.importorskip("xllamacpp", reason="the extra llama is not installed")

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY_OF_SERVER = "sk-of-the-server"
KEY_VARIABLE = "KEY_OF_THE_FAR_SERVER"
MODELS = {
    "far": "backend: far\nparameters: {model: tiny.gguf}",
    "near": "backend: near\ncontext_size: 512\nparameters: {model: tiny.gguf}",
    "far-vectors": "backend: near-vectors\nembeddings: true\nparameters: {model: tiny.gguf}",
    "moody": "backend: moody",
    "nowhere": "backend: nowhere",
}
URL: dict[str, str] = {}


class Moody(BaseHTTPRequestHandler):
    """A server that lists a model and answers each chat with the status that it asks for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Be well, and have one model."""
        self._answer(200, {"data": [{"id": "only"}]})

    def do_POST(self) -> None:
        """Refuse."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._answer(int(body["messages"][-1]["content"]), {"error": {"message": "not now"}})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the base class
        """Stay silent."""

    def _answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def prepare(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[dict[str, Any]]:
    """Run the servers, and register them."""
    for name, text in MODELS.items():
        (data_dir / "models" / f"{name}.yaml").write_text(f"name: {name}\n{text}\n")
    tiny = request.getfixturevalue("tiny_gguf")
    moody = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    threading.Thread(target=moody.serve_forever, daemon=True).start()
    os.environ[KEY_VARIABLE] = KEY_OF_SERVER
    with llama_server(tiny, data_dir, LLAMA_API_KEY=KEY_OF_SERVER) as url, deaf_port() as deaf:
        URL["far"] = url
        file = data_dir / "settings.yaml"
        registered = {
            "far": {"url": url, "api_key_env": KEY_VARIABLE},
            "near": {"command": list(COMMAND), "env": {"LLAMA_API_KEY": "{api_key}"}},
            "near-vectors": {"command": [*COMMAND, "--embeddings"]},
            "moody": f"http://127.0.0.1:{moody.server_port}",
            "nowhere": f"http://127.0.0.1:{deaf}",
        }
        file.write_text(json.dumps({"openai_backends": registered}))
        yield {"openai_backends": load_settings({}, {}, file).openai_backends}
    moody.shutdown()
    moody.server_close()
    del os.environ[KEY_VARIABLE]


def directly(path: str, **body: Any) -> Any:
    """Ask the far server itself."""
    headers = {"Authorization": f"Bearer {KEY_OF_SERVER}"}
    answer = httpx.post(URL["far"] + path, json=body, headers=headers, timeout=30)
    return answer.raise_for_status().json()


@pytest.mark.parametrize("model", ["far", "near"])
class TestAnswers:
    async def test_chat(self, transport: Transport, model: str) -> None:
        """Whole and in pieces, the answer and its cost are the server's own."""
        options = {"max_tokens": 12, "temperature": 0, "stream_options": {"include_usage": True}}
        request = chat(model, "hello", **options)
        own = directly(
            "/v1/chat/completions",
            messages=[{"role": "user", "content": "hello"}],
            max_tokens=12,
            temperature=0,
        )
        whole = await transport.call("InferenceService.Chat", request)
        chunks = await stream(transport, "ChatStream", request)

        text = own["choices"][0]["message"]["content"]
        cost = (own["usage"]["prompt_tokens"], own["usage"]["completion_tokens"])
        assert text == whole.choices[0].message.content
        assert text == "".join(c.choices[0].delta.content for c in chunks if c.choices)
        assert cost == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
        assert whole.usage == chunks[-1].usage
        assert own["choices"][0]["finish_reason"] == whole.choices[0].finish_reason

    async def test_completion(self, transport: Transport, model: str) -> None:
        """So it is with texts."""
        own = directly("/v1/completions", prompt="once", max_tokens=9, temperature=0)
        request = pb.CompleteRequest(model=model, prompt=["once"], max_tokens=9, temperature=0)
        whole = await transport.call("InferenceService.Complete", request)
        chunks = await stream(transport, "CompleteStream", request)

        assert own["choices"][0]["text"] == whole.choices[0].text
        assert own["choices"][0]["text"] == "".join(c.choices[0].text for c in chunks if c.choices)
        assert own["usage"]["completion_tokens"] == whole.usage.completion_tokens

    async def test_token_metrics(self, transport: Transport, model: str) -> None:
        """The tokens that are accounted for are those that the server counted, to the token."""

        async def total() -> Any:
            asked = token_metrics_service_pb2.GetTokenMetricsRequest(model=model)
            return (await transport.call("TokenMetricsService.GetTokenMetrics", asked)).total

        await transport.call("InferenceService.Chat", chat(model, "x", max_tokens=1))
        before = await total()
        whole = await transport.call("InferenceService.Chat", chat(model, "hello", max_tokens=7))
        chunks = await stream(
            transport,
            "ChatStream",
            chat(model, "hello", max_tokens=9, stream_options={"include_usage": True}),
        )
        after = await total()

        usages = (whole.usage, chunks[-1].usage)
        assert sum(one.completion_tokens for one in usages) == (
            after.completion_tokens - before.completion_tokens
        )
        assert sum(one.prompt_tokens for one in usages) == (
            after.prompt_tokens - before.prompt_tokens
        )
        assert before.estimated == after.estimated

    async def test_tokens(self, transport: Transport, model: str) -> None:
        """A server that tokenizes does it for the service too."""
        text = "héllo wörld"
        split = await transport.call(
            "TokenizerService.Tokenize",
            tokenizer_service_pb2.TokenizeRequest(model=model, content=text),
        )
        joined = await transport.call(
            "TokenizerService.Detokenize",
            tokenizer_service_pb2.DetokenizeRequest(model=model, tokens=split.tokens),
        )

        assert directly("/tokenize", content=text)["tokens"] == list(split.tokens)
        assert text == joined.content

    async def test_refused(self, transport: Transport, model: str) -> None:
        """What the server refuses is refused in its words."""
        error = await fails(transport, "Chat", chat(model, "x" * 20000))

        assert "INVALID_ARGUMENT" == error.reason
        assert "exceeds the available context size" in error.message

    async def test_no_embeddings(self, transport: Transport, model: str) -> None:
        """A server that does not embed does not support it."""
        error = await fails(transport, "Embed", pb.EmbedRequest(model=model, input=["x"]))

        assert "NOT_SUPPORTED_BY_BACKEND" == error.reason


async def test_embeddings(transport: Transport) -> None:
    """A server that embeds has the tokens of each text counted."""
    request = pb.EmbedRequest(model="far-vectors", input=["a b", "c"])
    answer = await transport.call("InferenceService.Embed", request)

    assert 2 == len(answer.data)
    assert len(answer.data[0].embedding) == len(answer.data[1].embedding) > 0
    assert answer.usage.prompt_tokens > 0


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (429, "TOO_MANY_REQUESTS"),
        (503, "BACKEND_UNAVAILABLE"),
        (400, "INVALID_ARGUMENT"),
        (401, "BACKEND_FAILED"),
        (500, "BACKEND_FAILED"),
    ],
)
async def test_errors_of_servers(transport: Transport, status: int, reason: str) -> None:
    """An error of the server has a reason of ours, also where a stream was asked for."""
    error = await fails(transport, "Chat", chat("moody", str(status)))
    with pytest.raises(Exception, match=reason):
        await stream(transport, "ChatStream", chat("moody", str(status)))

    assert reason == error.reason
    assert "not now" in error.message


async def test_when_to_come_again(transports: dict[str, Transport]) -> None:
    """The server's own time to wait is passed on."""
    rest: Any = transports["rest"]
    body = {"model": "moody", "messages": [{"role": "user", "content": "429"}]}
    answer = await rest._client.post("/v1/chat/completions", json=body)

    assert (429, "7") == (answer.status_code, answer.headers["retry-after"])


async def test_nobody_there(transport: Transport) -> None:
    """A server that cannot be reached fails the load, and says so; so does the pause after several such loads."""
    error = await fails(transport, "Chat", chat("nowhere", "x"))

    # Over the other transports it has failed before.
    assert error.reason in ("LOAD_FAILED", "LOAD_COOLDOWN", "BACKEND_GONE")
    assert "the server cannot be reached: Connection refused" in error.message
