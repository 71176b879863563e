"""One model loaded into llama.cpp. Everything here blocks; the servicer calls it from threads."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localplane_backends.bodies import Kind
from localplane_backends.llama.engine_log import VERBOSE, EngineLog, cause_of_failure, memory_of
from localplane_backends.llama.listener import Listener, ListenerError
from localplane_backends.llama.settings import Settings

logger = logging.getLogger(__name__)

Chunk = dict[str, Any]
"""A piece of an answer, or a whole one, in OpenAI's shapes."""
SLOTS_TIMEOUT_SECONDS = 0.5


class EngineError(Exception):
    """The engine refused, or failed to do, what it was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        """In HTTP's numbers: 400 and its like are the caller's fault."""


class Engine:
    """A loaded model.

    Calls may come from any threads. Up to `Settings.slots` predictions run at the same time.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Load the model.

        Args:
            settings: How.
            folder: An empty folder that no other user can enter, for the engine's socket and log.

        Raises:
            EngineError: If it cannot be loaded, with the cause that the engine logged.
        """
        # Some fifty milliseconds; whoever waits for Health does not pay for it.
        try:
            import xllamacpp  # noqa: PLC0415
        except ImportError as error:
            raise EngineError(501, f"install localplane[llama]: {error}") from error

        self.settings = settings
        # The engine always listens. A unix socket in that folder and a key keep everybody else out.
        # The engine takes a name with this ending for a unix socket.
        socket_path = folder / "engine.sock"
        key = secrets.token_urlsafe(32)
        log_file = folder / "load.log"
        try:
            log = EngineLog(Path(xllamacpp.xllamacpp.__file__))
            with log.copied_to(log_file):
                self._server = xllamacpp.Server(
                    parameters_for(xllamacpp, settings, socket=socket_path, key=key)
                )
        except Exception as error:
            cause = cause_of_failure(_text_of(log_file)) or str(error)
            raise EngineError(500, cause) from error
        self.memory = memory_of(_text_of(log_file))
        """Bytes by what they are for. Empty when the engine did not say."""
        self._listener = Listener(socket_path, key)
        self._latest_slot = 0
        template = self._listener.get("/props").get("chat_template_caps", {})
        self.has_tools: bool = template.get("supports_tools", False)
        """Whether the model's chat template tells the model which tools there are."""
        self._warm_up()

    def predict(self, kind: Kind, body: dict[str, Any], take: Callable[[Chunk], bool]) -> None:
        """Generate, handing over pieces as they come, until the end or until ``take`` returns true.

        Raises:
            EngineError: If the engine refuses the body or fails.
        """
        problem: EngineError | None = None

        def on_chunk(chunk: Chunk) -> bool:
            nonlocal problem
            if "error" in chunk:
                problem = _error_of(chunk)
                return True
            return take(chunk)

        chat = kind == "chat"
        call = self._server.handle_chat_completions if chat else self._server.handle_completions
        # Makes the last piece tell the slot, and the others tell more than is of use.
        verbose = self.settings.slots > 1
        try:
            call({**body, "stream": True, "verbose": verbose}, on_chunk)
        except (ValueError, RuntimeError) as error:
            # What is wrong with a chat's messages or tools is raised instead of returned.
            raise EngineError(400, str(error)) from error
        if problem:
            raise problem

    def embed(self, text: str | list[int]) -> tuple[list[float], int]:
        """Return the embedding of a text, or of tokens, and how many tokens it was.

        Raises:
            EngineError: If the text is too long or the model was not loaded for embeddings.
        """
        answer = self._server.handle_embeddings({"input": text})
        if "error" in answer:
            raise _error_of(answer)
        return answer["data"][0]["embedding"], answer["usage"]["prompt_tokens"]

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a text. Control tokens written out in it become control tokens."""
        body = {"content": text, "add_special": False, "parse_special": True}
        return self._listen("/tokenize", body)["tokens"]  # type: ignore[no-any-return]

    def detokenize(self, tokens: list[int]) -> str:
        """Return the text of tokens."""
        try:
            return self._listen("/detokenize", {"tokens": tokens})["content"]  # type: ignore[no-any-return]
        except EngineError as error:
            # The engine looks the token up without a check of its own.
            if "_M_range_check" in str(error):
                raise EngineError(400, "there is no such token in the vocabulary") from error
            raise

    def latest_slot(self) -> int:
        """Return which slot was active most recently, as far as the engine says so in time."""
        if self.settings.slots > 1:
            try:
                slots = self._listener.get("/slots", SLOTS_TIMEOUT_SECONDS)
            except ListenerError as error:
                # It answers between batches only.
                logger.debug("slots unknown: %s", error)
            else:
                latest = max(
                    slots, key=lambda slot: (slot["is_processing"], slot.get("id_task", -1))
                )
                self._latest_slot = latest["id"]
        return self._latest_slot

    def close(self) -> None:
        """Free the model. No call may be running."""
        del self._server

    def _warm_up(self) -> None:
        # Freeing an engine that never ran can hang for ever; and the first answer should not pay
        # for touching the weights. The engine's own warm-up does the latter only.
        if self.settings.embeddings:
            self.embed("a")
        else:
            self.predict("completion", {"prompt": "a", "max_tokens": 1}, lambda _: False)

    def _listen(self, route: str, body: dict[str, Any]) -> Any:
        try:
            return self._listener.post(route, body)
        except ListenerError as error:
            raise EngineError(error.status, str(error)) from error


def parameters_for(xllamacpp: Any, settings: Settings, *, socket: Path, key: str) -> Any:
    """Return how the engine is told to load a model."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(settings.file)
    # Without it, answers carry the path of the file.
    parameters.model_alias = {"model"}
    parameters.hostnames = [str(socket)]
    parameters.api_keys = [key]
    parameters.ui = False
    parameters.n_threads_http = 2
    parameters.verbosity = VERBOSE
    parameters.warmup = False
    # It loads the model twice to guess what fits a device; sizes are given here.
    parameters.fit_params = False

    parameters.n_ctx = settings.context_tokens
    parameters.n_parallel = settings.slots
    parameters.kv_unified = False
    parameters.n_batch = settings.batch_tokens
    parameters.n_ubatch = settings.batch_tokens
    parameters.cache_ram_mib = settings.prompt_cache_mib
    parameters.cpuparams.n_threads = settings.generation_threads
    parameters.cpuparams_batch.n_threads = settings.prompt_threads
    parameters.n_gpu_layers = settings.gpu_layers
    parameters.no_kv_offload = not settings.kv_on_device
    parameters.cache_type_k = xllamacpp.ggml_type[f"GGML_TYPE_{settings.cache_type_key.upper()}"]
    parameters.cache_type_v = xllamacpp.ggml_type[f"GGML_TYPE_{settings.cache_type_value.upper()}"]
    parameters.load_mode = xllamacpp.llama_load_mode[f"LLAMA_LOAD_MODE_{settings.load_mode}"]
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type[
        f"LLAMA_FLASH_ATTN_TYPE_{settings.flash_attention.upper()}"
    ]
    if settings.seed is not None:
        parameters.sampling.seed = settings.seed
    if settings.embeddings:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type[
            f"LLAMA_POOLING_TYPE_{settings.pooling.upper()}"
        ]
    _set_rope(xllamacpp, parameters, settings)
    return parameters


def _set_rope(xllamacpp: Any, parameters: Any, settings: Settings) -> None:
    parameters.rope_freq_base = settings.rope_frequency_base
    parameters.rope_freq_scale = settings.rope_frequency_scale
    if settings.rope_scaling:
        name = f"LLAMA_ROPE_SCALING_TYPE_{settings.rope_scaling.upper()}"
        parameters.rope_scaling_type = xllamacpp.llama_rope_scaling_type[name]
    names = ("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")
    for name, value in zip(names, settings.yarn, strict=True):
        if value:
            setattr(parameters, name, value)


def _error_of(chunk: Chunk) -> EngineError:
    error = chunk["error"]
    message = str(error.get("message", error))
    # The engine calls a text that is too long to embed a failure of its own.
    status = 400 if "too large to process" in message else int(error.get("code", 500))
    return EngineError(status, message)


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
