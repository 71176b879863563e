"""The command line against a service, as people and programs use it.

One module, longer than others: its tests share one service, whose start takes longer than most of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from localplane_server.cli.session import INTERRUPTED
from served import LOCALPLANE, Served, served, wait_until

PATIENCE_SECONDS = 60.0
ENDLESS = ("--temperature", "0")
"""With this the tiny model talks on until its context is full."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Path:
    """A data directory with a tiny model, once for short talks and once for long ones."""
    models = tmp_path_factory.mktemp("home") / "data" / "models"
    models.mkdir(parents=True)
    shutil.copy(tiny_gguf, models / "tiny.gguf")
    for name, context in (("tiny", 512), ("talker", 2048)):
        text = f"name: {name}\nbackend: llama\ncontext_size: {context}\nparameters: {{model: tiny.gguf}}\n"
        (models / f"{name}.yaml").write_text(text)
    return models.parent


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Served]:
    """A service on that directory."""
    with served(folder=folder) as service:
        yield service


def environment(service: Served) -> dict[str, str]:
    return {**os.environ, "LOCALPLANE_GRPC": service.grpc, "TERM": "xterm"}


def run(service: Served, *arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
    """Call the program as a script would: no terminal."""
    return subprocess.run(
        [*LOCALPLANE, *arguments],
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
        env=environment(service),
    )


def document(service: Served, *arguments: str) -> Any:
    """Call the program for its JSON."""
    done = run(service, *arguments, "--json")
    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout)


TAKE_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execv(sys.argv[1], sys.argv[1:])\n"
)
"""Becomes the program that follows, once Ctrl-C on the terminal reaches it."""


class Terminal:
    """The program on a terminal of its own, for as long as the context is open."""

    def __init__(self, service: Served, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *LOCALPLANE, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(service),
            start_new_session=True,
        )
        os.close(theirs)
        os.set_blocking(self._ours, False)
        self.shown = ""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._ours, text.encode())

    def read(self) -> str:
        """Return all that was shown so far."""
        with contextlib.suppress(OSError):  # nothing yet, or nobody any more
            while chunk := os.read(self._ours, 65536):
                self.shown += chunk.decode("utf-8", "replace")
        return self.shown

    def wait_for(self, text: str, count: int = 1) -> None:
        """Return once a text was shown that often."""
        wait_until(lambda: self.read().count(text) >= count, PATIENCE_SECONDS)

    def end(self) -> int:
        """Wait for the end and return the exit code."""
        # Whoever fills a terminal that nobody reads waits.
        wait_until(lambda: self.read() != "" and self.process.poll() is not None, PATIENCE_SECONDS)
        self.read()
        return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


class TestWatch:
    def test_lines_of_json(self, service: Served) -> None:
        """A program gets one object a line, as REST has them, and can go on behind any of them."""
        service.post("/backend/shutdown", model="tiny")  # another test may have loaded it
        watch = [*LOCALPLANE, "backend", "watch", "tiny", "--json"]
        with subprocess.Popen(
            watch, stdout=subprocess.PIPE, text=True, env=environment(service)
        ) as process:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())
            service.load("tiny")
            message = first
            while [one["state"] for one in message["backends"]] != ["ready"]:
                message = json.loads(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            code = process.wait(PATIENCE_SECONDS)
        service.post("/backend/shutdown", model="tiny")
        again = run(
            service, *watch[len(LOCALPLANE) :], "--after", message["revision"], "--timeout", "2s"
        )

        assert ("snapshot", INTERRUPTED) == (first["kind"], code)
        changes, error = [json.loads(line) for line in again.stdout.splitlines()]
        assert ("changes", ["tiny"]) == (changes["kind"], changes["removed"])
        assert (6, "DEADLINE_EXCEEDED") == (again.returncode, error["error"]["reason"])

    def test_for_people(self, service: Served) -> None:
        """A heading, and a line for every change."""
        service.post("/backend/shutdown", model="talker")  # another test may have loaded it
        with Terminal(service, "backend", "watch", "talker") as terminal:
            terminal.wait_for("no backend runs")
            service.load("talker")
            terminal.wait_for("ready")
            service.post("/backend/shutdown", model="talker")
            terminal.wait_for("stopped")
            terminal.type("\x03")
            code = terminal.end()

        lines = terminal.shown.splitlines()
        assert ["TIME", "MODEL", "STATE", "PID", "MEMORY", "CPU", "CALLS"] == lines[0].split()
        assert any("MiB" in line or " talker  ready" in line for line in lines)
        assert INTERRUPTED == code

    def test_status(self, service: Served) -> None:
        """The status goes on too: the service, and a table of its backends that stays where it is."""
        service.post("/backend/shutdown", model="talker")  # another test may have loaded it
        with Terminal(service, "status", "--watch") as terminal:
            terminal.wait_for("Localplane ")
            service.load("talker")
            terminal.wait_for("talker  llama    ready")
            terminal.type("\x03")
            code = terminal.end()

        assert "A\r\x1b[J" in terminal.shown
        assert INTERRUPTED == code

    def test_bad_revision(self, service: Served) -> None:
        """What is no revision is the caller's mistake."""
        done = run(service, "backend", "watch", "--after", "yesterday")

        assert 1 == done.returncode
        assert "after_revision" in done.stderr


class TestDocuments:
    """`--json` gives what REST answers."""

    def test_models(self, service: Served) -> None:
        """Lists and single models."""
        assert service.get("/v1/models").json() == document(service, "models", "served")
        assert service.get("/api/models/tiny").json() == document(service, "models", "show", "tiny")

    def test_backends(self, service: Served) -> None:
        """What can be started, and what runs, but for figures that change from call to call."""
        service.load("tiny")

        assert service.get("/backends").json() == document(service, "backend", "installed")
        over_rest = service.get("/api/backends").json()["backends"]
        listed = document(service, "backend", "list")["backends"]
        assert [(one["model"], one["pid"]) for one in over_rest] == [
            (one["model"], one["pid"]) for one in listed
        ]
        assert over_rest[0].keys() == listed[0].keys()
        monitored = document(service, "backend", "monitor", "tiny")
        assert service.get("/backend/monitor", model="tiny").json().keys() == monitored.keys()
        assert 2 == monitored["state"]

    def test_chat(self, service: Served) -> None:
        """A whole answer, the same for the same seed, as REST gives it."""
        question = {"role": "user", "content": "hello you"}
        over_rest = service.post(
            "/v1/chat/completions", model="tiny", messages=[question], max_tokens=4, temperature=0
        ).json()
        options = ("--max-tokens", "4", "--temperature", "0")
        answer = document(service, "chat", "tiny", "hello", "you", *options)

        assert (over_rest["choices"], over_rest["usage"]) == (answer["choices"], answer["usage"])
        assert over_rest.keys() == answer.keys()

    def test_tokens(self, service: Served) -> None:
        """Tokens of a text."""
        over_rest = service.post("/v1/tokenize", model="tiny", content="hello").json()

        assert over_rest == document(service, "tokenize", "tiny", "hello")

    def test_token_metrics(self, service: Served) -> None:
        """Tokens of all models and of one; asking for them loads nothing."""
        run(service, "backend", "stop", "tiny", "--force")

        of_one = document(service, "tokens", "tiny")
        of_all = document(service, "tokens")

        assert service.get("/tokenMetrics", model="tiny").json() == of_one
        over_rest = service.get("/api/token-metrics").json()
        assert over_rest["models"] == _without_windows(of_all, over_rest)
        assert over_rest["epoch"] == of_all["epoch"]
        assert "tiny" not in _loaded(service)

    def test_status(self, service: Served) -> None:
        """Several answers of REST in one document."""
        found = document(service, "status")

        assert (service.grpc, True, None) == (found["grpc"], found["ready"], found["message"])
        assert service.get("/version").json()["version"] == found["version"]
        assert service.get("/system").json() == found["system"]
        assert service.get("/v1/models").json()["data"] == found["models"]

    @pytest.mark.parametrize(
        ("arguments", "path", "query", "code"),
        [
            (("backend", "monitor", "nobody"), "/backend/monitor", {"model": "nobody"}, 5),
            (("models", "show", "nobody"), "/api/models/nobody", {}, 5),
            (("models", "served", "--filter", "("), "/v1/models", {"filter": "("}, 1),
            (("tokens", "nobody"), "/tokenMetrics", {"model": "nobody"}, 5),
        ],
    )
    def test_errors(
        self,
        service: Served,
        arguments: tuple[str, ...],
        path: str,
        query: dict[str, str],
        code: int,
    ) -> None:
        """An error is REST's too, status and all, and the exit code says its kind."""
        done = run(service, *arguments, "--json")
        error = json.loads(done.stdout)["error"]

        assert code == done.returncode
        assert {**service.get(path, **query).json()["error"], "retry_after": None} == error


class TestForPeople:
    def test_life_of_a_backend(self, service: Served) -> None:
        """Loaded, watched, stopped, gone."""
        loaded = run(service, "backend", "load", "tiny")
        listed = run(service, "backend", "list")
        monitored = run(service, "backend", "monitor", "tiny")
        stopped = run(service, "backend", "stop", "tiny", "--grace", "1")
        gone = run(service, "backend", "stop", "tiny", "--force")

        assert "model loaded: tiny\n" == loaded.stdout
        assert ["tiny", "llama", "ready"] == next(
            line.split()[:3] for line in listed.stdout.splitlines() if line.startswith("tiny ")
        )
        assert "ready" == _facts(monitored.stdout)["state"]
        assert stopped.stdout.startswith("model stopped: tiny, after ")
        assert (5, "") == (gone.returncode, gone.stdout)
        assert "Error: backend tiny is not currently loaded" in gone.stderr

    def test_stop_of_all(self, service: Served) -> None:
        """Each is told of; without any there is nothing to do."""
        run(service, "backend", "load", "tiny")
        stopped = run(service, "backend", "stop", "--all", "--force")
        again = json.loads(run(service, "backend", "stop", "--all", "--json").stdout)

        assert "stopped\n" in stopped.stdout
        assert any(line.startswith("tiny:") for line in stopped.stdout.splitlines())
        assert {"message": "0 models stopped", "backends": []} == again

    def test_load_without_waiting(self, service: Served) -> None:
        """The answer comes at once, the model later."""
        done = run(service, "backend", "load", "talker", "--no-wait")

        assert "model is loading: talker\n" == done.stdout
        wait_until(lambda: "ready" in run(service, "models", "show", "talker").stdout)

    def test_models(self, service: Served) -> None:
        """Served models with their backends; files that they use only when asked for."""
        some = run(service, "models", "served").stdout
        every = run(service, "models", "served", "--all", "--filter", "gguf").stdout
        shown = _facts(run(service, "models", "show", "tiny").stdout)

        assert ["MODEL", "talker", "tiny"] == [line.split()[0] for line in some.splitlines()]
        assert ["MODEL", "tiny.gguf"] == [line.split()[0] for line in every.splitlines()]
        assert ("llama", "tiny.yaml") == (shown["backend"], shown["configuration"])

    def test_installed_and_status(self, service: Served) -> None:
        """Tables and one line."""
        installed = run(service, "backend", "installed").stdout.splitlines()
        assert ["llama", "shipped", "ready"] in [line.split()[:3] for line in installed]
        assert run(service, "status").stdout.endswith(f" at {service.grpc}: ready\n") or (
            f" at {service.grpc}: ready\n" in run(service, "status").stdout
        )

    def test_token_metrics(self, service: Served) -> None:
        """A table of what was asked, and more about one model."""
        run(service, "chat", "tiny", "hello", "--max-tokens", "3", "--temperature", "0")

        every = run(service, "tokens").stdout.splitlines()
        one = run(service, "tokens", "tiny").stdout

        assert ["MODEL", "TIME", "CALLS", "PROMPT", "GENERATED"] == every[0].split()[:5]
        assert "tiny" in [line.partition(" ")[0] for line in every]
        assert every[-1].startswith("totals count since ")
        assert "3 generated, " in _facts(one)["last"]
        assert "talker" not in one

    def test_tokens_there_and_back(self, service: Served) -> None:
        """What one direction prints the other takes, text after text."""
        tokens = run(service, "tokenize", "tiny", "-", said="hello you").stdout
        text = run(service, "tokenize", "tiny", "--decode", said=tokens).stdout

        assert all(word.isdigit() for word in tokens.split())
        assert "hello you\n" == text.removeprefix(" ")

    def test_chat_from_a_pipe(self, service: Served) -> None:
        """Without a terminal the prompt is read, and nothing but the answer is written."""
        options = ("--max-tokens", "4", "--temperature", "0")
        told = run(service, "chat", "tiny", "hello you", *options)
        read = run(service, "chat", "tiny", *options, said="hello you")
        whole = document(service, "chat", "tiny", "hello you", *options)

        assert (0, "") == (read.returncode, read.stderr)
        assert told.stdout == read.stdout
        assert whole["choices"][0]["message"]["content"] == read.stdout.removesuffix("\n")

    def test_interrupted_chat(self, service: Served) -> None:
        """Ctrl-C ends a single answer and the program, and the service stops generating."""
        with subprocess.Popen(
            [*LOCALPLANE, "chat", "talker", "hello", *ENDLESS],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(service),
        ) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE_SECONDS)

        assert (130, b"") == (process.returncode, errors)
        wait_until(lambda: _in_flight(service, "talker") == 0)

    def test_deadline(self, service: Served) -> None:
        """An answer that takes too long ends with what to do about it."""
        done = run(service, "chat", "talker", "hello", *ENDLESS, "--timeout", "100ms")

        assert 6 == done.returncode
        assert "Give it longer with --timeout." in done.stderr


class TestConversation:
    def test_ctrl_c_ends_the_answer_only(self, service: Served) -> None:
        """Another question can be asked after it, and Ctrl-D ends the program."""
        with Terminal(service, "chat", "talker", *ENDLESS) as terminal:
            terminal.wait_for(">>> ")
            terminal.type("hello\n")
            wait_until(lambda: _in_flight(service, "talker") == 1)

            terminal.type("\x03")

            terminal.wait_for(">>> ", count=2)
            wait_until(lambda: _in_flight(service, "talker") == 0)
            terminal.type("/nonsense\n")
            terminal.wait_for("/clear forgets what was said.", count=2)
            terminal.wait_for(">>> ", count=3)
            terminal.type("half a line\x03")
            terminal.wait_for(">>> ", count=4)
            terminal.type("\x04")
            assert 0 == terminal.end()

    def test_remembers(self, service: Served) -> None:
        """What was said goes with the next question: in the end it is too long, until it is forgotten."""
        beginning = ("--system", "x " * 150, "--max-tokens", "2")
        with Terminal(service, "chat", "tiny", *beginning) as terminal:
            terminal.wait_for(">>> ")
            asked = 0
            while "Error:" not in terminal.read():
                asked += 1
                terminal.type("and so on\n")
                terminal.wait_for(">>> ", count=asked + 1)
                assert 30 > asked
            assert 1 < asked

            for number, line in enumerate(("/clear", "and so on"), start=asked + 2):
                terminal.type(f"{line}\n")
                terminal.wait_for(">>> ", count=number)
            assert 1 == terminal.read().count("Error:")
            terminal.type("\x04")
            assert 0 == terminal.end()

    def test_unknown_model(self, service: Served) -> None:
        """Nobody types a line to a model that is not there."""
        with Terminal(service, "chat", "nobody") as terminal:
            assert 5 == terminal.end()

            assert 'model "nobody" not found' in terminal.shown
            assert ">>> " not in terminal.shown

    def test_needs_a_prompt_for_json(self, service: Served) -> None:
        """A conversation is no document."""
        with Terminal(service, "chat", "tiny", "--json") as terminal:
            assert 2 == terminal.end()

            assert "--json needs a PROMPT" in terminal.shown


class TestKeys:
    def test_codes_and_ways(self, tmp_path: Path) -> None:
        """No key and a small key are refused with what to do; the service's own file opens all."""
        keys = tmp_path / "keys"
        keys.touch(0o600)
        keys.write_text("boss\nguest user\n")
        guest = tmp_path / "guest"
        guest.write_text("guest\n")
        with served("--api-key-file", str(keys), folder=tmp_path / "data") as service:
            none = run(service, "backend", "list")
            small = run(service, "backend", "list", "--api-key-file", str(guest))
            good = run(service, "backend", "list", "--api-key-file", str(keys))
            allowed = run(service, "models", "served", "--api-key-file", str(guest))

        assert [4, 4, 0, 0] == [one.returncode for one in (none, small, good, allowed)]
        assert "Give the key with --api-key-file" in none.stderr
        assert "needs a key of the role admin" in small.stderr
        assert ("no backend runs\n", "no models\n") == (good.stdout, allowed.stdout)


class TestDoctor:
    def test_of_a_running_service(self, service: Served, folder: Path) -> None:
        """It finds the service, its directory and its ports, and nothing to mend."""
        addresses = ("LOCALPLANE_GRPC_LISTEN", "LOCALPLANE_HTTP_LISTEN")
        told = dict(zip(addresses, (service.grpc, service.http), strict=True))
        done = subprocess.run(
            [*LOCALPLANE, "doctor", "--data-dir", str(folder), "--json"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **told},
            timeout=PATIENCE_SECONDS,
        )
        found = json.loads(done.stdout)
        said = {one["check"]: one["message"] for one in found["findings"]}

        assert [] == [one for one in found["findings"] if one["verdict"] == "problem"]
        assert (0, True) == (done.returncode, found["ok"])
        assert f"process {service.process.pid} works on {folder}" == said["lock"]
        assert f"the service listens on {service.grpc}" == said["grpc"]
        assert f"the service listens on {service.http}" == said["http"]
        assert "the service can do its work" == said["ready"]


class TestCompletion:
    @pytest.mark.parametrize(
        ("words", "offered"),
        [
            ("chat t", ["talker", "tiny"]),
            ("models show ti", ["tiny"]),
            ("tokens ta", ["talker"]),
        ],
    )
    def test_models(self, service: Served, words: str, offered: list[str]) -> None:
        """The names of the models that are served."""
        assert offered == self.complete(service, words)

    def test_loaded_models(self, service: Served) -> None:
        """What can be stopped is what is loaded."""
        service.load("tiny")

        assert ["tiny"] == self.complete(service, "backend stop ti")

    def complete(self, service: Served, words: str) -> list[str]:
        asked = f"localplane {words}"
        done = subprocess.run(
            [*LOCALPLANE[:-1], LOCALPLANE[-1].replace("main()", "main(prog_name='localplane')")],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_SECONDS,
            env={
                **environment(service),
                "_LOCALPLANE_COMPLETE": "bash_complete",
                "COMP_WORDS": asked,
                "COMP_CWORD": str(asked.count(" ")),
            },
        )
        assert "" == done.stderr
        return [line.partition(",")[2] for line in done.stdout.splitlines()]


def _facts(text: str) -> dict[str, str]:
    """Read lines of a name, two spaces or more, and a value."""
    pairs = [line.partition("  ") for line in text.splitlines()]
    return {name: value.strip() for name, _, value in pairs}


def _loaded(service: Served) -> list[str]:
    return [one["id"] for one in service.get("/system").json()["loaded_models"]]


def _without_windows(answer: Any, other: Any) -> Any:
    """Return the models of an answer with the windows of another one, which time changes."""
    for mine, theirs in zip(answer["models"], other["models"], strict=True):
        for window in ("last_minute", "last_five_minutes", "last_hour"):
            assert mine[window].keys() == theirs[window].keys()
            mine[window] = theirs[window]
    return answer["models"]


def _in_flight(service: Served, model: str) -> int:
    backends = service.get("/api/backends").json()["backends"]
    return next((int(one["in_flight"]) for one in backends if one["model"] == model), 0)
