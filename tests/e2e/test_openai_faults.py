"""The openai backend against a server that does everything wrong, and the secrets it must keep."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from backends.hostile_server import (
    HEAD_OF_JSON,
    HEAD_OF_STREAM,
    STREAM,
    as_error,
    as_json,
    chunked,
    event,
    event_stream,
    hostile,
    raw,
    then_silence,
    with_status,
)
from backends.openai_program import (
    NOTHING,
    SECONDS,
    against,
    backend,
    chat,
    text_of,
    until,
    until_state,
)
from backends.processes import deaf_port
from localplane.localai import backend_pb2

Code = grpc.StatusCode
STATUS = backend_pb2.StatusResponse
KEY = "sk-very-secret-key"
OLD_ERROR = b'error: {"message": "old style", "code": 400}\n\n'


def failure(code: int, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "code": code}}


BAD_ANSWERS = (
    (as_error(400, {"error": {"message": "too long"}}), Code.INVALID_ARGUMENT, "too long"),
    (as_error(422, {"detail": "no field"}), Code.INVALID_ARGUMENT, "no field"),
    (as_error(401, {"error": "bad key"}), Code.INTERNAL, "does not accept the key: bad key"),
    (as_error(404, {"error": {"message": "no model"}}), Code.NOT_FOUND, "no model"),
    (as_error(503, {"error": {"message": "Loading model"}}), Code.UNAVAILABLE, "Loading model"),
    (with_status("500 Oh", b"<html>oops</html>", kind="text/html"), Code.INTERNAL, "status 500"),
    (with_status("302 Found", b"", "Location: http://127.0.0.1:1/"), Code.INTERNAL, "not followed"),
    (with_status("200 OK", b"<html>", kind="text/html"), Code.INTERNAL, "text/html instead of"),
    (with_status("200 OK", b"\x1f\x8b", "Content-Encoding: gzip"), Code.INTERNAL, "compresses"),
    (with_status("200 OK", b"not json"), Code.INTERNAL, "not JSON"),
    (as_json([1]), Code.INTERNAL, "not an object"),
    (as_json({"choices": 3}), Code.INTERNAL, "shape of OpenAI's API"),
    (as_json({"choices": [{"message": {"content": 4}}]}), Code.INTERNAL, "shape of OpenAI's API"),
    (as_json({"usage": {"prompt_tokens": -1}}), Code.INTERNAL, "shape of OpenAI's API"),
    (as_json({"usage": {"prompt_tokens": 1 << 40}}), Code.INTERNAL, "shape of OpenAI's API"),
    (as_json({"choices": []}), Code.UNAVAILABLE, "in the middle of its answer"),
    (as_json({"error": {"message": "odd", "code": 400}}), Code.INVALID_ARGUMENT, "odd"),
    (raw(b"garbage\r\n\r\n"), Code.UNAVAILABLE, "broke off"),
    (raw(b""), Code.UNAVAILABLE, "broke off"),
    (raw(HEAD_OF_JSON + b"Content-Length: 99\r\n\r\n{"), Code.UNAVAILABLE, "broke off"),
)
"""Answers, and what is made of them."""
BROKEN_STREAMS = (
    (event_stream(*STREAM[:2]), Code.UNAVAILABLE, "in the middle of its answer"),
    (chunked(*STREAM[:2], ends=False), Code.UNAVAILABLE, "broke off"),
    (event_stream(STREAM[0], STREAM[1][:20]), Code.INTERNAL, "not JSON"),
    (event_stream(STREAM[0], b"data: {nonsense}\n\n"), Code.INTERNAL, "not JSON"),
    (event_stream(STREAM[0], b"data: [1]\n\n"), Code.INTERNAL, "not an object"),
    (event_stream(STREAM[0], event(failure(500, "out of memory"))), Code.INTERNAL, "out of memory"),
    (event_stream(STREAM[0], event(failure(503, "busy"))), Code.UNAVAILABLE, "busy"),
    (event_stream(STREAM[0], event({"error": "just text"})), Code.INTERNAL, "just text"),
    (event_stream(STREAM[0], OLD_ERROR), Code.INVALID_ARGUMENT, "old style"),
    (event_stream(STREAM[0], b"data: " + b"x" * (5 << 20)), Code.INTERNAL, "too large"),
    (event_stream(STREAM[0], b"data:\n" * (5 << 20)), Code.INTERNAL, "too large"),
)
"""Streams whose first piece is good, and what is made of the rest."""


class TestFaults:
    """Whatever a server does wrong is told in one sentence, with the right code."""

    @pytest.mark.parametrize("streams", [False, True], ids=["plain", "stream"])
    async def test_bad_answers(self, tmp_path: Path, *, streams: bool) -> None:
        """An answer that is none is an error, whether one in one piece or a stream was asked for."""
        async with against(tmp_path, {}) as (one, server):
            for answer, code, says in BAD_ANSWERS:
                server.answers["/v1/chat/completions"] = answer

                got, message = await one.failure(one.stream() if streams else one.chat())

                assert (code, "gpu: ") == (got, message[:5]), message
                assert says in message
            # It is as well as before.
            assert b"OK" == (await one.stub.Health(NOTHING, timeout=SECONDS)).message
            assert STATUS.READY == (await one.stub.Status(NOTHING, timeout=SECONDS)).state

    async def test_broken_streams(self, tmp_path: Path) -> None:
        """A stream that goes wrong in the middle passes on what came, then says so."""
        passed_on = set()
        async with against(tmp_path, {}) as (one, server):
            for answer, code, says in BROKEN_STREAMS:
                server.answers["/v1/chat/completions"] = answer
                texts: list[bytes] = []

                got, message = await one.failure(one.read(texts))

                assert code == got, message
                assert says in message
                # gRPC drops what was not read yet when a call ends with an error: on a busy machine, the first piece.
                passed_on |= {*texts[:1]}
        assert {b"a"} == passed_on

    async def test_too_many_requests(self, tmp_path: Path) -> None:
        """A server that wants to be left alone for a while is, with its own time."""
        busy = with_status("429 Too Many", b'{"error": {"message": "slow down"}}', "Retry-After: 7")
        async with against(tmp_path, {"chat": busy}) as (one, _):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await one.chat()

        assert (Code.RESOURCE_EXHAUSTED, "gpu: slow down") == (
            caught.value.code(),
            caught.value.details(),
        )
        assert "7" == dict(caught.value.trailing_metadata() or ())["x-retry-after"]

    async def test_silence(self, tmp_path: Path) -> None:
        """A server that falls silent is given up, before the answer and in the middle of it."""
        for answer in (then_silence(), then_silence(HEAD_OF_STREAM, STREAM[0])):
            async with against(tmp_path, {"chat": answer}, timeout=0.3) as (one, server):
                got, message = await one.failure(one.stream())
                await asyncio.wait_for(server.gone.wait(), SECONDS)

            assert Code.UNAVAILABLE is got
            assert "gpu: the server was silent for 0.3 s" == message

    @pytest.mark.parametrize("streams", [False, True], ids=["plain", "stream"])
    async def test_cancel(self, tmp_path: Path, *, streams: bool) -> None:
        """A caller that goes away takes the server's call along, at once."""
        answer = then_silence(HEAD_OF_STREAM, STREAM[0]) if streams else then_silence()
        async with against(tmp_path, {"chat": answer}) as (one, server):
            if streams:
                call = one.stub.PredictStream(chat("hi"), timeout=SECONDS)
                assert b"a" == (await call.read()).message
            else:
                call = one.stub.Predict(chat("hi"), timeout=SECONDS)
                await until(lambda: any("chat" in asked.path for asked in server.asked))
            assert STATUS.BUSY == (await one.stub.Status(NOTHING, timeout=SECONDS)).state
            server.gone.clear()

            call.cancel()

            await asyncio.wait_for(server.gone.wait(), 2.0)
            await until_state(one, STATUS.READY)

    async def test_nobody_there(self, tmp_path: Path) -> None:
        """A server that is not there fails the load; one that goes away fails the calls and the health."""
        with deaf_port() as port:
            async with backend(tmp_path, url=f"http://127.0.0.1:{port}") as one:
                result = await one.load()
            assert not result.success
            assert "gpu: cannot load far: the server cannot be reached: Connection refused" == (
                result.message
            )
        async with (
            hostile(chat=chunked(*STREAM)) as server,
            backend(tmp_path, url=server.url) as one,
        ):
            assert (await one.load()).success
            server.answers["/health"] = raw(b"")
            server.answers["/v1/chat/completions"] = raw(b"")

            code, _ = await one.failure(one.stub.Health(NOTHING, timeout=SECONDS))
            assert Code.UNAVAILABLE is code
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await one.chat()
            assert Code.UNAVAILABLE is caught.value.code()
            assert "x-retry-after" in dict(caught.value.trailing_metadata() or ())

    async def test_memory_is_bounded(self, tmp_path: Path) -> None:
        """An answer without an end is cut, and a caller that does not read stops the reading."""
        endless = b'{"choices": "' + b"x" * (1 << 20)

        async def pour(_asked: Any, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + endless)
            while True:
                await writer.drain()
                writer.write(b"x" * (1 << 20))

        async with against(tmp_path, {"chat": pour}) as (one, _):
            code, message = await one.failure(one.chat())
            rss = psutil.Process(one.program.process.pid).memory_info().rss

        assert (Code.INTERNAL, "gpu: the server's answer is too large") == (code, message)
        assert rss < 300 << 20


class TestSecrets:
    async def test_key(self, tmp_path: Path) -> None:
        """The key goes to the server and nowhere else: no error, log or argument has it."""
        leak = with_status("401 Unauthorized", f'{{"error": "unknown key {KEY}"}}'.encode())
        async with against(tmp_path, {"chat": leak}, key=KEY, headers={"x-team": "team-42"}) as (
            one,
            server,
        ):
            _, message = await one.failure(one.chat())
            arguments = psutil.Process(one.program.process.pid).cmdline()

            assert f"Bearer {KEY}" == server.last("/v1/chat/completions").key
            assert "team-42" == server.last("/v1/models").headers["x-team"]
            assert "gpu: the server does not accept the key: unknown key ***" == message
            assert KEY not in one.log
            assert KEY not in " ".join(arguments)

    async def test_key_file(self, tmp_path: Path) -> None:
        """A key in a file is read at each load; a file that others may read is refused."""
        file = tmp_path / "key"
        file.touch(0o600)
        file.write_text(f"{KEY}\n")
        async with against(tmp_path, {}, api_key_file=str(file)) as (one, server):
            assert f"Bearer {KEY}" == server.last("/v1/models").key

            file.write_text("another")
            assert (await one.load()).success
            assert "Bearer another" == server.last("/v1/models").key

            file.chmod(0o644)
            result = await one.load()
            assert (False, True) == (result.success, "others may read it" in result.message)

    async def test_redirect_keeps_the_key(self, tmp_path: Path) -> None:
        """A server that sends callers elsewhere gets no second request made, least of all with the key."""
        async with hostile() as other:
            away = with_status("307 Temporary", b"", f"Location: {other.url}/v1/chat/completions")
            async with against(tmp_path, {"chat": away}, key=KEY) as (one, _):
                code, _ = await one.failure(one.chat())

            assert Code.INTERNAL is code
            assert [] == other.asked

    async def test_no_proxy_of_the_environment(self, tmp_path: Path) -> None:
        """A proxy of the environment is not used: prompts go to the server itself."""
        async with hostile() as proxy, hostile(chat=chunked(*STREAM)) as server:
            variables = {"HTTP_PROXY": proxy.url, "http_proxy": proxy.url, "ALL_PROXY": proxy.url}
            async with backend(tmp_path, environment=variables, url=server.url) as one:
                assert (await one.load()).success
                assert "ab" == text_of(await one.stream())

            assert [] == proxy.asked

    async def test_proxy(self, tmp_path: Path) -> None:
        """A proxy that was set is used."""
        async with hostile() as proxy:
            async with backend(tmp_path, url="http://far.example:81", proxy=proxy.url) as one:
                result = await one.load()

            # This proxy knows no host but itself; that it was asked is enough.
            assert not result.success
            assert {"http://far.example:81/health"} <= {asked.path for asked in proxy.asked}


def certify(key: Path, certificate: Path) -> None:
    """Write a key, and a certificate for loopback that only itself vouches for."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate)),
            *("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )


async def test_certificates(tmp_path: Path) -> None:
    """A server whose certificate nobody vouches for gets no key; one that the operator vouches for does."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    await asyncio.to_thread(certify, key, certificate)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    async with hostile(tls=tls, chat=chunked(*STREAM)) as server:
        async with backend(tmp_path, key=KEY, url=server.url) as one:
            refused = await one.load()
        async with backend(tmp_path, key=KEY, url=server.url, ca_file=str(certificate)) as one:
            trusted = await one.load()
            answer = await one.stream()
        async with backend(tmp_path, url=server.url, ca_file=str(key)) as one:
            unusable = await one.load()

    assert not refused.success
    assert "its certificate is not trusted: self-signed certificate" in refused.message
    assert trusted.success
    assert "ab" == text_of(answer)
    assert {f"Bearer {KEY}"} == {asked.key for asked in server.asked}
    assert "the certificates in key.pem cannot be used" in unusable.message
