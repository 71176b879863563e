"""A server that is ready, with the model that was asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from localplane.localai import backend_pb2
from localplane_backends.openai import command
from localplane_backends.openai.client import Client
from localplane_backends.openai.command import Command, CommandError, PortTakenError
from localplane_backends.openai.dialect import Dialect, dialect_of
from localplane_backends.openai.errors import ServerError, shortened
from localplane_backends.openai.registration import Registration, key_of

logger = logging.getLogger(__name__)

Code = grpc.StatusCode

ASK_AGAIN_SECONDS = 0.1
"""Pause before a server that is not ready is asked again."""
READY_SECONDS = 10.0
"""How long a server may take to say whether it is ready while it loads."""
LIST_SECONDS = 30.0
"""How long it may take to list its models."""
HEALTH_SECONDS = 1.8
"""The same for one whose model is loaded. Who asks a backend for its health waits 2 s."""
FIGURES_SECONDS = 0.5
"""How long it may take to tell its figures. Who asks for a status waits 1 s."""
TERM_SECONDS = 10.0
"""How long a command may take to end by itself. Who ends this program waits 15 s."""
PORT_ATTEMPTS = 3
"""How many ports a command is given when somebody else takes them first."""
READY_PATHS = ("/health", "/models")
"""Where servers say that they are ready: beside OpenAI's API and, where that is not found, in it."""
MOST_NAMED = 8
"""Models of a server that an error names."""


class Server:
    """A server that can be called. Made by `opened`."""

    def __init__(
        self, registration: Registration, client: Client, process: Command | None, ready_url: str
    ) -> None:
        self.client = client
        """Calls it."""
        self.command = process
        """What runs it. None when it runs elsewhere."""
        self.dialect = Dialect.PLAIN
        """What it understands beyond OpenAI's API."""
        self.model = ""
        """The model, as it knows it."""
        self._registration = registration
        self._ready_url = ready_url
        self._tokenizing = ""

    async def check_health(self) -> None:
        """Return if it is well.

        Raises:
            ServerError: If it is not, or does not say so in time.
        """
        await self.client.get(self._ready_url, seconds=HEALTH_SECONDS)

    async def is_busy(self) -> bool:
        """Whether it works for anybody, as far as it says so in time."""
        name = BUSY.get(self.dialect)
        if name is None:
            return False
        try:
            text = await self.client.get(self.client.root("/metrics"), seconds=FIGURES_SECONDS)
        except ServerError as error:
            # llama-server has no metrics unless it was told to.
            logger.debug("no figures: %s", error)
            return False
        return isinstance(text, str) and _sample(text, name) > 0

    async def memory(self) -> dict[str, int]:
        """Return the bytes that the model takes, by where they are. Empty where the server does not say."""
        if self.dialect is not Dialect.OLLAMA:
            return {}
        try:
            loaded = await self.client.get(self.client.root("/api/ps"), seconds=FIGURES_SECONDS)
            for model in loaded["models"]:
                if self.model in (model["name"], model["name"].removesuffix(":latest")):
                    on_devices = max(0, int(model["size_vram"]))
                    elsewhere = max(0, int(model["size"]) - on_devices)
                    return {"devices": on_devices, "ram": elsewhere}
        except (ServerError, KeyError, TypeError, ValueError, AttributeError) as error:
            logger.debug("no memory: %s", error)
        return {}

    async def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text. Control tokens written out in it become control tokens.

        Raises:
            ServerError: If the server cannot do it, among others.
        """
        # Each server takes its own of these and passes over the others.
        body = {
            "model": self.model,
            "content": text,
            "prompt": text,
            "add_special": False,
            "add_special_tokens": False,
            "parse_special": True,
        }
        answer = await self._beside("/tokenize", body)
        try:
            return list(backend_pb2.TokenizationResponse(tokens=answer["tokens"]).tokens)
        except (KeyError, TypeError, ValueError) as error:
            message = "the server does not answer with tokens"
            raise ServerError(Code.INTERNAL, message) from error

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens.

        Raises:
            ServerError: If the server cannot do it, among others.
        """
        answer = await self._beside("/detokenize", {"model": self.model, "tokens": list(tokens)})
        for name in ("content", "prompt"):
            text = answer.get(name)
            if isinstance(text, str):
                return text
        raise ServerError(Code.INTERNAL, "the server does not answer with a text")

    async def close(self, term_seconds: float = TERM_SECONDS) -> None:
        """Close the connections and end what was started."""
        await self.client.close()
        if self.command is not None:
            await self.command.stop(term_seconds)

    async def choose_model(self, options: backend_pb2.ModelOptions) -> None:
        """Find out what the server is and which of its models is meant.

        Raises:
            ServerError: If it does not have the model.
        """
        models = await self._listed()
        self.dialect = dialect_of(models)
        names = [str(model.get("id")) for model in models]
        asked = options.Model
        if self._registration.model:
            # Whoever registered it knows: some serve more than they list.
            self.model = self._registration.model
        elif not names or asked in names or f"{asked}:latest" in names:
            self.model = asked
        elif len(names) == 1 and (self.command is not None or not options.ModelFile):
            # It was started for this model, or no other was named.
            self.model = names[0]
        elif self.dialect is Dialect.LLAMA:
            # It has one model, and answers whatever it is called.
            self.model = asked
        else:
            known = ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
            message = shortened(f"the server has no model {asked}; it has {known}")
            raise ServerError(Code.NOT_FOUND, message)

    async def _listed(self) -> list[Mapping[str, Any]]:
        try:
            answer = await self.client.get(self.client.api("/models"), seconds=LIST_SECONDS)
        except ServerError as error:
            if error.code in (Code.NOT_FOUND, Code.UNIMPLEMENTED):
                return []
            raise
        models = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(models, list):
            return []
        return [model for model in models if isinstance(model, dict) and model.get("id")]

    async def _beside(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call what is not OpenAI's: beside its API or, where that is not found, in it."""
        urls = [self._tokenizing + path] if self._tokenizing else []
        urls = urls or [self.client.root(path), self.client.api(path)]
        for url in dict.fromkeys(urls):
            try:
                answer = await self.client.post(url, body)
            except ServerError as error:
                if error.code not in (Code.NOT_FOUND, Code.UNIMPLEMENTED):
                    raise
                continue
            self._tokenizing = url.removesuffix(path)
            return answer
        raise ServerError(Code.UNIMPLEMENTED, f"the server has no {path}")


BUSY: Mapping[Dialect, str] = {
    Dialect.LLAMA: "llamacpp:requests_processing",
    Dialect.VLLM: "vllm:num_requests_running",
}
"""The series that counts the calls which a server works on."""


async def opened(registration: Registration, options: backend_pb2.ModelOptions) -> Server:
    """Start the server if that is to be done here, and return it once it is ready.

    Takes as long as the server says that it is not ready yet: whoever calls has the deadline.

    Raises:
        CommandError: If it cannot be started, or ends.
        RegistrationError: If the key cannot be read.
        ServerError: If it cannot be reached, refuses the key, or does not have the model.
    """
    key = key_of(registration)
    for _ in range(PORT_ATTEMPTS - 1):
        try:
            return await _opened(registration, options, key)
        except PortTakenError as error:
            logger.info("%s; it gets another one", error)
    return await _opened(registration, options, key)


async def _opened(
    registration: Registration, options: backend_pb2.ModelOptions, key: str
) -> Server:
    process = await command.started(registration, options) if registration.command else None
    client = None
    try:
        url = process.url if process else registration.url
        client = Client(registration, url, (process.key if process else "") or key)
        ready_url = await _ready(registration, client, process)
        if process is not None and not await asyncio.to_thread(process.owns_port):
            raise PortTakenError
        server = Server(registration, client, process, ready_url)
        await server.choose_model(options)
    except BaseException:
        if client is not None:
            await client.close()
        if process is not None:
            await process.stop(0.0)
        raise
    return server


async def _ready(registration: Registration, client: Client, process: Command | None) -> str:
    """Wait until the server is ready, and return the URL at which it said so."""
    beside, inside = (client.root(READY_PATHS[0]), client.api(READY_PATHS[1]))
    urls = [client.root(registration.ready_path)] if registration.ready_path else [beside, inside]
    while True:
        problem: ServerError | None = None
        for url in urls:
            try:
                await client.get(url, seconds=READY_SECONDS)
            except ServerError as error:
                problem = error
                if error.code not in (Code.NOT_FOUND, Code.UNIMPLEMENTED):
                    break
            else:
                return url
        if problem is None or problem.code is not Code.UNAVAILABLE:
            raise problem or AssertionError
        if process is None:
            if not problem.is_answer:
                # Nobody here is going to start it.
                raise problem
            await asyncio.sleep(ASK_AGAIN_SECONDS)
            continue
        await asyncio.wait((process.ended,), timeout=ASK_AGAIN_SECONDS)
        if process.ended.done():
            if process.is_port_taken:
                raise PortTakenError
            raise CommandError(f"the server ended with {process.ended.result()}")


def _sample(text: str, name: str) -> float:
    """Return the sum of the samples of one series in Prometheus' text."""
    total = 0.0
    for line in text.splitlines():
        if line.startswith(name) and line[len(name) : len(name) + 1] in (" ", "{"):
            try:
                total += float(line.rpartition(" ")[2])
            except ValueError:
                return 0.0
    return total
