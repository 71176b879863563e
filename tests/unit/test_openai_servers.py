"""The registration of servers with OpenAI's API: what is understood, what is refused, what stays secret."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localplane_server.config import Settings, load_settings
from localplane_server.errors import SettingsError
from localplane_server.openai_servers import OpenAIServer, key_variables
from localplane_server.supervision.programs import BackendProgram, BackendPrograms
from localplane_server.supervision.registration import register

COMMAND = ["llama-server", "--port", "{port}", "-m", "{model_file}"]
KEY = "sk-secret"


def told(server: OpenAIServer, **environment: str) -> dict[str, Any]:
    """Return what the program is told of a server."""
    text = server.environment(environment)["LOCALPLANE_OPENAI_SERVER"]
    read: dict[str, Any] = json.loads(text)
    return read


def from_file(tmp_path: Path, servers: Any) -> Settings:
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps({"openai-backends": servers}))
    return load_settings({}, {}, file)


class TestSources:
    def test_flag_and_variable(self) -> None:
        """A list of names and URLs is enough for servers that need no more."""
        text = "gpu=http://10.0.0.2:8000, mac=http://localhost:1234/v1"
        for settings in (
            load_settings({"openai_backends": text}, {}),
            load_settings({}, {"LOCALPLANE_OPENAI_BACKENDS": text}),
        ):
            assert [
                {"name": "gpu", "url": "http://10.0.0.2:8000"},
                {"name": "mac", "url": "http://localhost:1234/v1"},
            ] == [told(server) for server in settings.openai_backends]

    def test_file(self, tmp_path: Path) -> None:
        """The file says all there is to say; durations are read as everywhere."""
        (server,) = from_file(
            tmp_path,
            {
                "gpu": {
                    "command": COMMAND,
                    "env": {"LLAMA_API_KEY": "{api_key}", "N": 3},
                    "url": "http://{host}:{port}/v1",
                    "connect-timeout": "250ms",
                    "timeout": "5m",
                    "ready_path": "/ping",
                    "parameters": {"max_tokens": "max_completion_tokens", "top_k": None},
                    "body": {"a": [1, {"b": None}]},
                    "headers": {"X-Team": 7},
                }
            },
        ).openai_backends

        assert {
            "name": "gpu",
            "command": COMMAND,
            "env": {"LLAMA_API_KEY": "{api_key}", "N": "3"},
            "url": "http://{host}:{port}/v1",
            "connect_timeout": 0.25,
            "timeout": 300,
            "ready_path": "/ping",
            "parameters": {"max_tokens": "max_completion_tokens", "top_k": None},
            "body": {"a": [1, {"b": None}]},
            "headers": {"X-Team": "7"},
        } == told(server)


class TestRefused:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ("gpu", "NAME=URL"),
            ("gpu=", "NAME=URL"),
            ("a=http://x,a=http://y", "a is given twice"),
            ("../a=http://x", "cannot name a backend"),
            ("a=ftp://x", "a: url: expected http"),
            ("a=http://", "a: url: expected http"),
            ("a=http://x:99999", "a: url: not a URL"),
            ("a=http://user:pw@x", "cannot hold a name or a password"),
            ("a=http://x?key=1", "cannot have a query"),
        ],
    )
    def test_text(self, given: str, says: str) -> None:
        """What cannot be a server is told before anything starts."""
        with pytest.raises(SettingsError, match=says):
            load_settings({"openai_backends": given}, {})

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            (["http://x"], "expected NAME=URL,... or a mapping"),
            ({"a": 5}, "a: expected a URL or a mapping"),
            ({"a": {}}, "expected url or command"),
            ({"a": {"uri": "http://x"}}, "unknown setting uri; known are url, command"),
            ({"a": {"url": "http://x", "timeout": "soon"}}, "timeout: cannot read soon"),
            ({"a": {"url": "http://x", "timeout": 0}}, "timeout above 0"),
            ({"a": {"url": "http://x", "env": {"A": "b"}}}, "env is for a command"),
            ({"a": {"url": "http://x", "ready_path": "x"}}, "begins with /"),
            ({"a": {"url": "http://x", "headers": {"a b": "c"}}}, "not the name of a header"),
            ({"a": {"url": "http://x", "headers": {"a": "b\r\nc: d"}}}, "control characters"),
            ({"a": {"url": "http://x", "proxy": "socks5://x"}}, "proxy: expected http"),
            (
                {"a": {"url": "http://x", "api_key_env": "A", "api_key_file": "b"}},
                "not both",
            ),
            ({"a": {"url": "http://x", "api_key_env": "a b"}}, "name of a variable"),
            ({"a": {"url": "http://x", "api_key": "sk-1"}}, "unknown setting api_key"),
            ({"a": {"command": "llama-server"}}, "command: expected a list"),
            ({"a": {"command": []}}, "command: expected a list"),
            ({"a": {"command": ["x"]}}, "says {port}"),
            ({"a": {"command": ["x", "{port}", "{modle}"]}}, "unknown placeholder {modle}"),
            ({"a": {"command": ["{model}", "{port}"]}}, "cannot choose the program"),
            ({"a": {"command": ["x", "{port}", "--key={api_key}"]}}, "every user can see"),
            (
                {
                    "a": {
                        "command": ["x", "{port}"],
                        "env": {"K": "{api_key}"},
                        "api_key_env": "A",
                    }
                },
                "not both",
            ),
            ({"a": {"command": ["sh", "-c", "serve {model} {port}"]}}, "stand in a script"),
            ({"a": {"command": ["env", "bash", "-lc", "{model} {port}"]}}, "stand in a script"),
        ],
    )
    def test_file(self, tmp_path: Path, given: Any, says: str) -> None:
        """The file is read as strictly; the message names the backend and the setting."""
        with pytest.raises(SettingsError) as caught:
            from_file(tmp_path, given)

        assert says in str(caught.value)

    def test_script_with_arguments(self, tmp_path: Path) -> None:
        """What a model is called can be an argument of a script: there it stays one word. Other braces stay."""
        command = ["sh", "-c", 'exec serve "$1" --port "$2" -x \'{"a": {}}\'', "sh"]

        (server,) = from_file(
            tmp_path, {"a": {"command": [*command, "{model}", "{port}"]}}
        ).openai_backends

        assert [*command, "{model}", "{port}"] == told(server)["command"]


class TestPrograms:
    def settings(self, tmp_path: Path, **servers: Any) -> Settings:
        return replace(from_file(tmp_path, servers), data_dir=tmp_path)

    def test_key_goes_by_environment(self, tmp_path: Path) -> None:
        """The program finds its key in its environment; nothing that is printed has it."""
        settings = self.settings(tmp_path, a={"url": "http://x", "api_key_env": "A_KEY"})

        (program,) = register(BackendPrograms([]), settings, {"A_KEY": KEY}).all()

        assert isinstance(program, BackendProgram)
        assert KEY == program.env["LOCALPLANE_OPENAI_KEY"]
        assert KEY not in program.env["LOCALPLANE_OPENAI_SERVER"]
        assert KEY not in " ".join(program.argv) + repr(program) + repr(settings)
        assert {"A_KEY"} == key_variables(settings.openai_backends)

    @pytest.mark.parametrize("value", ["", " ", "two\nlines"])
    def test_key_is_missing(self, tmp_path: Path, value: str) -> None:
        """A service whose server wants a key that is not there does not start."""
        settings = self.settings(tmp_path, a={"url": "http://x", "api_key_env": "A_KEY"})

        with pytest.raises(SettingsError, match="a: A_KEY is not set to a key"):
            register(BackendPrograms([]), settings, {"A_KEY": value})

    def test_names(self, tmp_path: Path) -> None:
        """An alias of a shipped backend can be given to a server; its name cannot."""
        shipped = BackendPrograms(
            [BackendProgram(name="llama", argv=("x",), aliases=("llama-cpp",))]
        )

        programs = register(shipped, self.settings(tmp_path, **{"llama-cpp": "http://x"}), {})
        with pytest.raises(SettingsError, match="--openai-backends: cannot name a backend llama"):
            register(shipped, self.settings(tmp_path, llama="http://x"), {})

        chosen = programs.get("llama-cpp")
        assert chosen is not None
        assert isinstance(chosen.backend, BackendProgram)
        assert "localplane_backends.openai" in chosen.backend.argv

    def test_one_name_for_two(self, tmp_path: Path) -> None:
        """A server of OpenAI's API and one of the backend protocol cannot have one name."""
        settings = load_settings(
            {"openai_backends": "a=http://x", "external_grpc_backends": "a:127.0.0.1:1"}, {}
        )

        with pytest.raises(SettingsError, match="there is one already"):
            register(BackendPrograms([]), replace(settings, data_dir=tmp_path), {})
