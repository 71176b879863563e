"""The llama backend as a program, with the tiny model and, where it is at hand, with a real one.

One module, longer than others: its tests share one process that has the model loaded.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from backends.processes import LLAMA, Running, running, wait_until
from localplane.localai import backend_pb2, backend_pb2_grpc

pytest.importorskip("xllamacpp", reason="the extra llama is not installed")

SECONDS = 60.0
PROTO = Path(__file__).parents[2] / "proto" / "localplane" / "localai" / "backend.proto"
NOTHING = backend_pb2.HealthMessage()
STATUS = backend_pb2.StatusResponse
TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
                    "required": ["city"],
                },
            },
        }
    ]
)


class Llama:
    """A running llama backend and a connection to it."""

    def __init__(self, program: Running, temporary: Path) -> None:
        self.program = program
        self.temporary = temporary
        self.channel = grpc.insecure_channel(program.address)
        self.stub = backend_pb2_grpc.BackendStub(self.channel)
        health = self.stub.Health(NOTHING, wait_for_ready=True, timeout=SECONDS)
        assert b"OK" == health.message

    def load(self, file: Path, **fields: Any) -> backend_pb2.Result:
        wanted = backend_pb2.ModelOptions(Model=file.name, ModelFile=str(file), MMap=True, **fields)
        return self.stub.LoadModel(wanted, timeout=SECONDS)

    def predict(self, prompt: str = "x", **fields: Any) -> backend_pb2.Reply:
        wanted = backend_pb2.PredictOptions(Prompt=prompt, **{"Tokens": 5, **fields})
        return self.stub.Predict(wanted, timeout=SECONDS)

    def stream(self, **fields: Any) -> Any:
        return self.stub.PredictStream(backend_pb2.PredictOptions(**fields), timeout=SECONDS)

    def state(self) -> int:
        return self.stub.Status(NOTHING, timeout=SECONDS).state

    def tokens(self, text: str) -> list[int]:
        return list(self.stub.TokenizeString(backend_pb2.PredictOptions(Prompt=text)).tokens)


def started(folder: Path) -> Iterator[Llama]:
    temporary = folder / "tmp"
    temporary.mkdir()
    with running(LLAMA, folder, TMPDIR=str(temporary)) as program:
        llama = Llama(program, temporary)
        yield llama
        llama.channel.close()


@pytest.fixture
def llama() -> Iterator[Llama]:
    """A backend without a model."""
    # Not pytest's folder: its name is too long for a unix socket.
    with tempfile.TemporaryDirectory() as folder:
        yield from started(Path(folder))


@pytest.fixture(scope="module")
def shared() -> Iterator[Llama]:
    """One backend for the tests that leave it as it was."""
    with tempfile.TemporaryDirectory() as folder:
        yield from started(Path(folder))


@pytest.fixture
def tiny(shared: Llama, tiny_gguf: Path) -> Llama:
    """A backend with the tiny model."""
    if shared.state() == STATUS.UNINITIALIZED:
        assert shared.load(tiny_gguf).success
    return shared


@pytest.fixture(scope="module")
def real_program(smollm2: Path) -> Iterator[Llama]:
    with tempfile.TemporaryDirectory() as folder:
        for llama in started(Path(folder)):
            assert llama.load(smollm2, ContextSize=2048).success
            yield llama


def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details() or ""


def test_plain_client(llama: Llama, tiny_gguf: Path, tmp_path: Path) -> None:
    """A client written only from backend.proto is answered."""
    out = (f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}")
    protoc = (sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO.parent}")
    subprocess.run([*protoc, *out, PROTO.name], check=True)
    client = Path(__file__).with_name("plain_client.py")

    result = subprocess.run(
        [sys.executable, str(client), str(tmp_path), llama.program.address, str(tiny_gguf)],
        capture_output=True,
        text=True,
        check=True,
    )

    answers = json.loads(result.stdout)
    assert answers["pieces"] == answers["whole"] != ""
    assert ("OK", True, "hello", STATUS.READY, []) == (
        answers["health"],
        answers["loaded"],
        answers["text"],
        answers["state"],
        answers["ours"],
    )


class TestLoad:
    def test_engine_comes_after_health(self, llama: Llama, tiny_gguf: Path) -> None:
        """The engine's library is not loaded before there is something to load with it."""
        maps = Path(f"/proc/{llama.program.process.pid}/maps")
        before = maps.read_text(encoding="utf-8")
        assert llama.load(tiny_gguf).success

        assert "xllamacpp" not in before
        assert "xllamacpp" in maps.read_text(encoding="utf-8")

    def test_no_model(self, llama: Llama) -> None:
        """Calls before a load are refused; Status and Free are not."""
        not_loaded = (grpc.StatusCode.FAILED_PRECONDITION, "llama: model not loaded")

        assert not_loaded == failure(llama.predict)
        assert not_loaded == failure(lambda: list(llama.stream(Prompt="x")))
        assert not_loaded == failure(lambda: llama.tokens("x"))
        assert not_loaded == failure(lambda: llama.stub.GetMetrics(backend_pb2.MetricsRequest()))
        assert STATUS.UNINITIALIZED == llama.state()
        assert llama.stub.Free(NOTHING).success

    @pytest.mark.parametrize(
        ("content", "cause"),
        [
            (b"", "failed to read magic"),
            (b"not a model at all" * 100, "invalid magic characters"),
            (b"GGUF\x63\x00\x00\x00" + bytes(100), "this GGUF file is version 99"),
        ],
    )
    def test_not_a_model(self, llama: Llama, tmp_path: Path, content: bytes, cause: str) -> None:
        """A file that is no model fails with the engine's own cause."""
        file = tmp_path / "broken.gguf"
        file.write_bytes(content)

        result = llama.load(file)

        assert not result.success
        assert result.message.startswith("llama: cannot load broken.gguf: ")
        assert cause in result.message

    def test_cut_short_then_whole(self, llama: Llama, tiny_gguf: Path, tmp_path: Path) -> None:
        """A file that was cut short says so, and the next load works in the same process."""
        file = tmp_path / "short.gguf"
        file.write_bytes(tiny_gguf.read_bytes()[:200_000])

        result = llama.load(file)

        assert not result.success
        assert "is not within the file bounds, model is corrupted or incomplete" in result.message
        assert llama.load(tiny_gguf).success
        assert llama.predict().tokens == 5

    def test_unknown_option(self, llama: Llama, tiny_gguf: Path) -> None:
        """An option that is not known is an error that names it."""
        result = llama.load(tiny_gguf, Options=["paralel:2"])

        assert not result.success
        assert 'unknown option "paralel"' in result.message

    def test_health_while_loading(self, llama: Llama, smollm2: Path) -> None:
        """A backend that is loading answers Health and Status."""
        wanted = backend_pb2.ModelOptions(Model="m", ModelFile=str(smollm2), ContextSize=8192)
        loading = llama.stub.LoadModel.future(wanted, timeout=SECONDS)
        answered = 0
        while not loading.done():
            assert b"OK" == llama.stub.Health(NOTHING, timeout=SECONDS).message
            assert llama.state() in {STATUS.UNINITIALIZED, STATUS.READY}
            answered += 1

        assert loading.result().success
        # The load takes hundreds of milliseconds, an answer less than ten.
        assert answered > 10

    def test_caller_goes_away(self, llama: Llama, tiny_gguf: Path) -> None:
        """A load whose caller has gone away is not lost, and nothing is left of it after Free."""
        wanted = backend_pb2.ModelOptions(Model="m", ModelFile=str(tiny_gguf))
        loading = llama.stub.LoadModel.future(wanted, timeout=SECONDS)
        wait_until(lambda: bool(list(llama.temporary.iterdir())), "the load")
        loading.cancel()

        wait_until(lambda: llama.state() == STATUS.READY, "the model")
        assert llama.stub.Free(NOTHING, timeout=SECONDS).success
        assert [] == list(llama.temporary.iterdir())

    def test_again(self, llama: Llama, tiny_gguf: Path) -> None:
        """A second load takes the place of the first and leaves nothing of it."""
        assert llama.load(tiny_gguf).success
        assert llama.load(tiny_gguf, ContextSize=512).success

        assert 1 == len(list(llama.temporary.iterdir()))
        code, message = failure(lambda: llama.predict("a " * 600))
        assert grpc.StatusCode.INVALID_ARGUMENT == code
        assert "exceeds the available context size (512 tokens)" in message

    def test_private_listener(self, tiny: Llama) -> None:
        """The engine listens nowhere but on a socket that only this user can reach."""
        (folder,) = tiny.temporary.iterdir()
        inodes = {
            str(entry.readlink())
            for entry in Path(f"/proc/{tiny.program.process.pid}/fd").iterdir()
            if entry.is_symlink()
        }
        tables = "".join(
            Path(f"/proc/net/{name}").read_text(encoding="utf-8") for name in ("tcp", "tcp6")
        )
        listening = [
            line.split()[1].rpartition(":")[2]
            for line in tables.splitlines()
            if " 0A " in line and f"socket:[{line.split()[9]}]" in inodes
        ]

        assert 0o700 == folder.stat().st_mode & 0o777
        assert {int(tiny.program.address.rpartition(":")[2])} == {int(p, 16) for p in listening}


class TestPredict:
    def test_greedy(self, tiny: Llama) -> None:
        """Temperature 0 is greedy: the same answer each time, whole or in pieces."""
        first = tiny.predict(Tokens=40)
        pieces = list(tiny.stream(Prompt="x", Tokens=40))

        assert first.message == tiny.predict(Tokens=40).message
        assert first.message == b"".join(piece.message for piece in pieces)
        assert (40, 1) == (first.tokens, first.prompt_tokens)
        assert (40, 1) == (pieces[-1].tokens, pieces[-1].prompt_tokens)
        assert pieces[-1].timing_token_generation > 0

    def test_seed(self, tiny: Llama) -> None:
        """A seed makes a random answer repeatable; another seed makes another answer."""
        answers = [
            tiny.predict(Tokens=30, Temperature=1.5, Seed=seed).message for seed in (1, 1, 2)
        ]

        assert answers[0] == answers[1] != answers[2]

    def test_finish_reason(self, tiny: Llama) -> None:
        """Why an answer ended is told behind it."""
        call = tiny.stream(Prompt="x", Tokens=3)
        list(call)
        wanted = backend_pb2.PredictOptions(Prompt="x", Tokens=40, StopPrompts=["objects"])
        reply, other = tiny.stub.Predict.with_call(wanted)

        assert "length" == dict(call.trailing_metadata())["x-finish-reason"]
        assert "stop" == dict(other.trailing_metadata())["x-finish-reason"]
        assert b"objects" not in reply.message

    def test_chat(self, tiny: Llama) -> None:
        """A chat goes through the model's template and is answered taken apart."""
        messages = [backend_pb2.Message(role="user", content="hello")]
        reply = tiny.predict("", UseTokenizerTemplate=True, Messages=messages)
        template = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"

        assert len(tiny.tokens(template)) == reply.prompt_tokens
        assert reply.message == tiny.predict(template).message
        assert reply.message.decode() == "".join(part.content for part in reply.chat_deltas)

    @pytest.mark.parametrize("choice", ['"required"', '"auto"'])
    def test_tools(self, tiny: Llama, choice: str) -> None:
        """A call to a tool comes out as such, in pieces that join to valid arguments."""
        mark, newline = tiny.tokens("<tool_call>\n")
        # The model talks noise: the bias makes it begin a call, the grammar of the tools the rest.
        call = tiny.stream(
            UseTokenizerTemplate=True,
            Messages=[backend_pb2.Message(role="user", content="how is the weather?")],
            Tools=TOOLS,
            ToolChoice=choice,
            LogitBias=json.dumps({str(mark): 100, str(newline): 90}),
            PresencePenalty=60,
            Repeat=1,
            Tokens=200,
        )
        pieces = [
            piece for reply in call for part in reply.chat_deltas for piece in part.tool_calls
        ]
        first = [piece for piece in pieces if piece.index == 0]

        assert ("weather", True) == (first[0].name, bool(first[0].id))
        arguments = json.loads("".join(piece.arguments for piece in first))
        assert arguments["city"] in {"Paris", "Rome"}

    def test_schema(self, tiny: Llama) -> None:
        """A schema is kept to, in completions and in chats."""
        form = {
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"enum": ["Paris", "Rome"]}},
        }
        metadata = {"response_format": json.dumps(form)}
        chat = {
            "UseTokenizerTemplate": True,
            "Messages": [backend_pb2.Message(role="user", content="where?")],
        }

        whole = tiny.predict("where?", Tokens=50, Metadata=metadata)
        chatted = tiny.predict("", Tokens=50, Metadata=metadata, **chat)

        assert json.loads(whole.message) in {"Paris", "Rome"}
        assert json.loads(chatted.message) in {"Paris", "Rome"}

    def test_grammar(self, tiny: Llama) -> None:
        """A grammar is kept to."""
        assert b"yes" == tiny.predict(Tokens=50, Grammar='root ::= "yes"').message

    def test_characters_stay_whole(self, tiny: Llama) -> None:
        """Characters of several tokens come out as they went in."""
        text = "é😀日本"

        reply = tiny.predict(Tokens=50, Grammar=f'root ::= "{text}"')
        pieces = list(tiny.stream(Prompt="x", Tokens=50, Grammar=f'root ::= "{text}"'))

        assert text == reply.message.decode()
        assert text == "".join(piece.message.decode() for piece in pieces)

    def test_logprobs(self, tiny: Llama) -> None:
        """Log probabilities come when asked for, one for each token that ends a character."""
        reply = tiny.predict(Tokens=3, Logprobs=1, TopLogprobs=2, Grammar="root ::= [a-z]*")

        assert [2, 2, 2] == [
            len(token["top_logprobs"]) for token in json.loads(reply.logprobs)["content"]
        ]

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({"Prompt": "a " * 5000}, "exceeds the available context size (2048 tokens)"),
            ({"Grammar": "root ::= ("}, "failed to parse grammar"),
            ({"Images": ["x"]}, "Images are not supported"),
            (
                {
                    "UseTokenizerTemplate": True,
                    "Messages": [backend_pb2.Message(role="user", content="x")],
                    "Tools": '[{"type": 7}]',
                },
                "type",
            ),
            (
                # The engine quotes all of them, which is more than fits the header of a message.
                {
                    "UseTokenizerTemplate": True,
                    "Messages": [backend_pb2.Message(role="user", content="x")],
                    "Tools": json.dumps([{"type": 7, "junk": "x" * 100_000}]),
                },
                "type",
            ),
        ],
    )
    def test_wrong(self, tiny: Llama, fields: dict[str, Any], text: str) -> None:
        """A call that the engine cannot understand is the caller's mistake, and says why."""
        code, message = failure(lambda: list(tiny.stream(**{"Prompt": "x", "Tokens": 3, **fields})))

        assert grpc.StatusCode.INVALID_ARGUMENT == code
        assert message.startswith("llama: ")
        assert text in message

    def test_other_model(self, tiny: Llama) -> None:
        """A caller that means another model is told so; one that means this one is served."""
        mismatch = (grpc.StatusCode.NOT_FOUND, "model identity mismatch")

        assert mismatch == failure(lambda: tiny.predict(ModelIdentity="other.gguf"))
        assert 5 == tiny.predict(ModelIdentity="tiny.gguf").tokens

    def test_many_at_once(self, tiny: Llama) -> None:
        """More calls than slots wait for each other and all get their answer."""
        expected = tiny.predict(Tokens=20).message
        wanted = backend_pb2.PredictOptions(Prompt="x", Tokens=20)
        calls = [tiny.stub.Predict.future(wanted, timeout=SECONDS) for _ in range(12)]

        assert {expected} == {call.result().message for call in calls}

    def test_two_slots(self, llama: Llama, tiny_gguf: Path) -> None:
        """With two slots, two streams advance together."""
        assert llama.load(tiny_gguf, Options=["parallel:2"]).success
        streams = [llama.stream(Prompt=text, Tokens=800, IgnoreEOS=True) for text in ("x", "y")]
        both = threading.Barrier(2, timeout=SECONDS)

        def read(stream: Any) -> int:
            next(stream)
            # Passed only if the other stream has begun before this one has ended.
            both.wait()
            return [reply.tokens for reply in stream][-1]  # type: ignore[no-any-return]

        results: list[int] = []
        threads = [
            threading.Thread(target=lambda stream=stream: results.append(read(stream)))
            for stream in streams
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [800, 800] == results
        metrics = llama.stub.GetMetrics(backend_pb2.MetricsRequest())
        assert (True, 800) == (metrics.slot_id in {0, 1}, metrics.tokens_generated)


class TestCancel:
    def test_frees_the_slot(self, llama: Llama, tiny_gguf: Path) -> None:
        """A cancelled stream frees its slot for the next call."""
        assert llama.load(tiny_gguf).success
        stream = llama.stream(Prompt="x", Tokens=2000, IgnoreEOS=True, Grammar=ENDLESS)
        next(stream)
        assert STATUS.BUSY == llama.state()

        stream.cancel()

        wait_until(lambda: llama.state() == STATUS.READY, "the slot")
        assert 5 == llama.predict().tokens

    def test_waiting_call(self, llama: Llama, tiny_gguf: Path) -> None:
        """A call that waits for a slot can be cancelled; the one that has it goes on."""
        assert llama.load(tiny_gguf).success
        stream = llama.stream(Prompt="x", Tokens=2000, IgnoreEOS=True, Grammar=ENDLESS)
        next(stream)
        waiting = llama.stub.Predict.future(backend_pb2.PredictOptions(Prompt="y", Tokens=1))

        waiting.cancel()

        assert next(stream).tokens > 1
        stream.cancel()
        assert 5 == llama.predict().tokens

    def test_free_cuts(self, llama: Llama, tiny_gguf: Path) -> None:
        """Freeing the model ends the calls that use it, and says so."""
        assert llama.load(tiny_gguf).success
        stream = llama.stream(Prompt="x", Tokens=2000, IgnoreEOS=True, Grammar=ENDLESS)
        next(stream)

        assert llama.stub.Free(NOTHING, timeout=SECONDS).success

        assert (grpc.StatusCode.UNAVAILABLE, "llama: the model was freed") == failure(
            lambda: list(stream)
        )
        assert STATUS.UNINITIALIZED == llama.state()
        assert [] == list(llama.temporary.iterdir())


ENDLESS = 'root ::= ("a" | "b")*'
"""Keeps the tiny model from ending, and slows it enough to be caught at work."""


class TestTokens:
    def test_round_trip(self, tiny: Llama) -> None:
        """Every text comes back from its tokens."""
        text = "def f(x):\n\treturn 'é😀' # " + " " * 50 + "\x00\x01 日本語\r\n"

        tokens = tiny.tokens(text)
        request = backend_pb2.DetokenizeRequest(tokens=tokens)

        assert text == tiny.stub.Detokenize(request).content
        assert len(tokens) < len(text.encode())

    def test_control_tokens(self, tiny: Llama) -> None:
        """A control token written out is one token."""
        assert 1 == len(tiny.tokens("<|im_end|>"))

    @pytest.mark.parametrize("token", [-1, 770, 2**31 - 1])
    def test_no_such_token(self, tiny: Llama, token: int) -> None:
        """A token that is not in the vocabulary is the caller's mistake."""
        request = backend_pb2.DetokenizeRequest(tokens=[token])

        assert (
            grpc.StatusCode.INVALID_ARGUMENT,
            "llama: there is no such token in the vocabulary",
        ) == failure(lambda: tiny.stub.Detokenize(request))


class TestEmbedding:
    def test_embeds(self, llama: Llama, tiny_gguf: Path) -> None:
        """A text, or its tokens, become one normalised vector."""
        assert llama.load(tiny_gguf, Embeddings=True).success
        tokens = llama.tokens("hello")

        text = llama.stub.Embedding(backend_pb2.PredictOptions(Embeddings="hello"))
        same = llama.stub.Embedding(backend_pb2.PredictOptions(EmbeddingTokens=tokens))

        assert (64, len(tokens)) == (text.dim, text.prompt_tokens)
        assert list(text.embeddings) == pytest.approx(list(same.embeddings))
        assert pytest.approx(1) == sum(value * value for value in text.embeddings)

    def test_too_long(self, llama: Llama, tiny_gguf: Path) -> None:
        """A text that does not fit is the caller's mistake."""
        assert llama.load(tiny_gguf, Embeddings=True).success
        request = backend_pb2.PredictOptions(Embeddings="a b " * 600)

        code, message = failure(lambda: llama.stub.Embedding(request))

        assert grpc.StatusCode.INVALID_ARGUMENT == code
        assert "too large" in message

    def test_not_for_it(self, tiny: Llama) -> None:
        """A model that was not loaded for embeddings does not embed."""
        request = backend_pb2.PredictOptions(Embeddings="x")

        code, _ = failure(lambda: tiny.stub.Embedding(request))

        assert grpc.StatusCode.UNIMPLEMENTED == code


class TestFigures:
    def test_memory(self, tiny: Llama, tiny_gguf: Path) -> None:
        """The memory is taken apart: the weights are as large as in the file, and nothing is 0."""
        memory = tiny.stub.Status(NOTHING).memory
        parts = dict(memory.breakdown)

        assert {"weights", "kv_cache", "compute"} == parts.keys()
        assert 0 < tiny_gguf.stat().st_size - parts["weights"] < 30_000
        # 4096 tokens, 2 layers, keys and values of 32 numbers of 2 bytes.
        assert 4096 * 2 * 2 * 32 * 2 == parts["kv_cache"]
        assert memory.total == sum(parts.values())

    def test_cache_types(self, llama: Llama, tiny_gguf: Path) -> None:
        """A wider number format takes the memory that it should."""
        assert llama.load(tiny_gguf, CacheTypeKey="f32", CacheTypeValue="f32").success

        parts = llama.stub.Status(NOTHING).memory.breakdown
        assert 4096 * 2 * 2 * 32 * 4 == parts["kv_cache"]

    def test_metrics(self, tiny: Llama) -> None:
        """The metrics tell of the last prediction and keep the prompt to themselves."""
        tiny.predict("a quite new prompt", Tokens=7)

        metrics = tiny.stub.GetMetrics(backend_pb2.MetricsRequest())

        assert (0, 7, "") == (
            metrics.slot_id,
            metrics.tokens_generated,
            metrics.prompt_json_for_slot,
        )
        assert metrics.tokens_per_second > 0
        assert metrics.prompt_tokens_processed > 0

    def test_metrics_of_one_call(self, llama: Llama, tiny_gguf: Path) -> None:
        """A call that was cancelled can be asked for by name: how far it came, and in which slot."""
        assert llama.load(tiny_gguf, Options=["parallel:2"]).success
        stream = llama.stream(
            Prompt="x", Tokens=2000, IgnoreEOS=True, Grammar=ENDLESS, CorrelationId="cut"
        )
        seen = [next(stream).tokens for _ in range(5)]
        stream.cancel()
        whole = llama.stub.PredictStream(
            backend_pb2.PredictOptions(Prompt="y", Tokens=3, CorrelationId="whole")
        )
        pieces = [reply.tokens for reply in whole]

        cut, named = llama.stub.GetMetrics.with_call(
            backend_pb2.MetricsRequest(), metadata=(("x-correlation-id", "cut"),), timeout=SECONDS
        )
        latest = llama.stub.GetMetrics(backend_pb2.MetricsRequest())
        end = dict(whole.trailing_metadata())

        assert sorted(set(seen)) == seen
        assert seen[-1] <= cut.tokens_generated < 2000
        assert "cut" == dict(named.trailing_metadata())["x-correlation-id"]
        assert (
            str(cut.prompt_tokens_processed) == dict(named.trailing_metadata())["x-prompt-tokens"]
        )
        assert 3 == pieces[-1] == latest.tokens_generated
        assert str(latest.slot_id) == end["x-slot-id"]
        assert str(latest.prompt_tokens_processed) == end["x-prompt-tokens-processed"]


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_signal(self, llama: Llama, tiny_gguf: Path, number: int) -> None:
        """A signal in the middle of an answer ends the program with 0 and leaves no file."""
        assert llama.load(tiny_gguf).success
        stream = llama.stream(Prompt="x", Tokens=2000, IgnoreEOS=True, Grammar=ENDLESS)
        next(stream)

        llama.program.process.send_signal(number)

        assert 0 == llama.program.process.wait(SECONDS)
        assert [] == list(llama.temporary.iterdir())


class TestRealModel:
    def test_knows_paris(self, real_program: Llama) -> None:
        """The real model completes a fact, greedily."""
        reply = real_program.predict("The capital of France is", Tokens=4)

        assert b" Paris" in reply.message

    def test_chats(self, real_program: Llama) -> None:
        """The real model answers a chat and ends by itself."""
        call = real_program.stream(
            UseTokenizerTemplate=True,
            Messages=[backend_pb2.Message(role="user", content="What is 2+2?")],
            Tokens=200,
        )
        text = b"".join(reply.message for reply in call).decode()

        assert "4" in text
        assert "stop" == dict(call.trailing_metadata())["x-finish-reason"]

    def test_no_tools(self, real_program: Llama) -> None:
        """A model whose template knows no tools is not asked to call one in vain."""
        code, message = failure(
            lambda: real_program.predict(
                "",
                UseTokenizerTemplate=True,
                Messages=[backend_pb2.Message(role="user", content="how is the weather?")],
                Tools=TOOLS,
                ToolChoice='"required"',
            )
        )

        assert grpc.StatusCode.INVALID_ARGUMENT == code
        assert "its chat template has none" in message

    def test_cancelled_prompt(self, real_program: Llama) -> None:
        """A long prompt that nobody waits for any more is given up between batches."""
        prompt = " ".join(str(number) for number in range(400))
        stream = real_program.stream(Prompt=prompt, Tokens=5)
        wait_until(lambda: real_program.state() == STATUS.BUSY, "the prompt")

        stream.cancel()

        wait_until(lambda: real_program.state() == STATUS.READY, "the slot")
        metrics = real_program.stub.GetMetrics(backend_pb2.MetricsRequest())
        assert metrics.prompt_tokens_processed < len(real_program.tokens(prompt))
