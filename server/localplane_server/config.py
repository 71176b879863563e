"""The settings of one server process: flags before environment before file before defaults."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from localplane_server.errors import SettingsError
from localplane_server.gallery_setting import DEFAULT_GALLERIES, GallerySetting, parse_galleries
from localplane_server.openai_servers import OpenAIServer, parse_openai_servers
from localplane_server.setting_values import (
    MEBIBYTE,
    Endpoint,
    ExternalSetting,
    MemoryBudget,
    parse_bool,
    parse_budget,
    parse_duration,
    parse_endpoint,
    parse_external_backends,
    parse_log_files,
    parse_log_format,
    parse_log_size,
    parse_most,
    parse_path,
    parse_positive,
    parse_size,
    parse_words,
)


def default_data_dir() -> Path:
    """The user's data directory, as the XDG base directory specification places it."""
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return parse_path(base) / "localplane"


def _setting(  # the table of settings is the dataclass below; this is one cell of it
    parse: Callable[[Any], Any],
    metavar: str,
    *aliases: str,
    default: Any = MISSING,
    factory: Any = MISSING,
    secret: bool = False,
    repeatable: bool = False,
) -> Any:
    metadata = {
        "parse": parse,
        "metavar": metavar,
        "aliases": aliases,
        "secret": secret,
        "repeatable": repeatable,
    }
    if factory is not MISSING:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one server process. Each has a flag of its name, `LOCALPLANE_NAME`, and a key in the file."""

    data_dir: Path = _setting(parse_path, "DIR", factory=default_data_dir)
    """Where everything that lasts is kept: models, logs, state."""
    models_path: Path | None = _setting(
        parse_path, "DIR", "LOCALAI_MODELS_PATH", "MODELS_PATH", default=None
    )
    """Folder of the models; an existing LocalAI folder works. Default: models in the data directory."""
    backends_path: Path | None = _setting(
        parse_path, "DIR", "LOCALAI_BACKENDS_PATH", "BACKENDS_PATH", default=None
    )
    """Folder of installed backends; LocalAI's works. Default: backends in the data directory."""
    external_grpc_backends: tuple[ExternalSetting, ...] = _setting(
        parse_external_backends,
        "NAME:HOST:PORT|NAME:PATH,...",
        "LOCALAI_EXTERNAL_GRPC_BACKENDS",
        "EXTERNAL_GRPC_BACKENDS",
        default=(),
        repeatable=True,
    )
    """Further backends: servers that run elsewhere, or programs to start. May be given more than once."""
    external_grpc_token: str | None = _setting(
        str, "TOKEN", "LOCALAI_GRPC_AUTH_TOKEN", default=None, secret=True
    )
    """What external servers know their callers by. From the environment or the file."""
    grpc_listen: Endpoint = _setting(
        parse_endpoint, "HOST:PORT", default=Endpoint("127.0.0.1", 50051)
    )
    """Where gRPC listens. Port 0 picks a free one."""
    http_listen: Endpoint = _setting(
        parse_endpoint,
        "HOST:PORT",
        "LOCALAI_ADDRESS",
        "ADDRESS",
        default=Endpoint("127.0.0.1", 8080),
    )
    """Where REST listens. Port 0 picks a free one."""
    grpc_uds: Path | None = _setting(parse_path, "PATH", default=None)
    """Unix socket on which gRPC listens too."""
    public_url: str | None = _setting(str, "URL", "LOCALAI_BASE_URL", default=None)
    """Address under which callers reach REST, for the links in answers. Default: the address that was called."""
    allow_host: tuple[str, ...] = _setting(parse_words, "HOST,...", default=())
    """Names, besides the ones listened on, under which web pages may call REST."""
    allow_origin: tuple[str, ...] = _setting(
        parse_words, "ORIGIN,...", "LOCALAI_CORS_ALLOW_ORIGINS", default=()
    )
    """Origins of web pages elsewhere, such as https://app.example, that may use REST and read its answers."""
    api_key: tuple[str, ...] = _setting(
        parse_words, "KEY,...", "LOCALAI_API_KEY", "API_KEY", default=(), secret=True
    )
    """Keys that callers must present. From the environment or the file; a flag would show them to every user."""
    api_key_file: Path | None = _setting(parse_path, "FILE", default=None)
    """File of keys, one a line, each with an optional role: `KEY`, `KEY admin` or `KEY user`."""
    log_format: str = _setting(parse_log_format, "text|json", "LOCALAI_LOG_FORMAT", default="text")
    """How the log on standard error is written."""
    backend_log_size: int = _setting(parse_log_size, "SIZE", default=4 * MEBIBYTE)
    """Size of one file of a backend's log, in bytes. A full one moves aside."""
    backend_log_files: int = _setting(parse_log_files, "N", default=3)
    """Files of a backend's log; the oldest goes when there is one too many."""
    max_body_size: int = _setting(parse_size, "SIZE", default=32 * MEBIBYTE)
    """Largest request over REST, and largest message over gRPC, in bytes."""
    load_timeout: float = _setting(parse_duration, "DURATION", default=120.0)
    """How long a load may go on without being seen to move, in seconds, once the backend answers."""
    shutdown_grace: float = _setting(parse_duration, "DURATION", default=30.0)
    """How long calls in flight may run on when the service or a backend stops, in seconds."""
    preload: tuple[str, ...] = _setting(parse_words, "MODEL,...", default=())
    """Models to load in the background when the service starts, one after the other, as far as there is space."""
    max_active_backends: int | None = _setting(
        parse_most,
        "N",
        "LOCALAI_MAX_ACTIVE_BACKENDS",
        "MAX_ACTIVE_BACKENDS",
        default=None,
    )
    """Backends that may be loaded at a time; 0 is no limit."""
    single_active_backend: bool = _setting(
        parse_bool, "", "LOCALAI_SINGLE_ACTIVE_BACKEND", "SINGLE_ACTIVE_BACKEND", default=False
    )
    """Keep one backend loaded at a time: LocalAI's name for a limit of 1."""
    memory_budget: MemoryBudget = _setting(
        parse_budget, "SIZE|PERCENT", default=MemoryBudget(0.85, is_share=True)
    )
    """Memory that backends may take together: bytes, a percentage of the machine's or the container's, or `off`."""
    device_memory_budget: MemoryBudget = _setting(
        parse_budget, "SIZE|PERCENT", default=MemoryBudget(0.95, is_share=True)
    )
    """Memory that backends may take together on each GPU: bytes, a percentage of the GPU's own, or `off`."""
    queue_timeout: float = _setting(parse_duration, "DURATION", default=60.0)
    """How long a call or a load waits for a place when all are taken, in seconds."""
    min_residency: float = _setting(parse_duration, "DURATION", default=1.0)
    """How long a model stays loaded at least, though nobody uses it and another needs its place, in seconds."""
    watchdog_idle: bool | None = _setting(
        parse_bool, "", "LOCALAI_WATCHDOG_IDLE", "WATCHDOG_IDLE", default=None
    )
    """Stop backends that nobody uses: after 15 minutes, or what --watchdog-idle-timeout says."""
    watchdog_idle_timeout: float | None = _setting(
        parse_duration,
        "DURATION",
        "LOCALAI_WATCHDOG_IDLE_TIMEOUT",
        "WATCHDOG_IDLE_TIMEOUT",
        default=None,
    )
    """How long after its last call a backend is stopped, in seconds. Default: never."""
    watchdog_busy: bool | None = _setting(
        parse_bool, "", "LOCALAI_WATCHDOG_BUSY", "WATCHDOG_BUSY", default=None
    )
    """Stop backends that work on and on: after 5 minutes, or what --watchdog-busy-timeout says."""
    watchdog_busy_timeout: float | None = _setting(
        parse_duration,
        "DURATION",
        "LOCALAI_WATCHDOG_BUSY_TIMEOUT",
        "WATCHDOG_BUSY_TIMEOUT",
        default=None,
    )
    """How long a backend may work without any call coming to its end before it is stopped, in seconds."""
    no_autoload: bool = _setting(parse_bool, "", default=False)
    """Do not load a model because a call asks for it; only LoadModel does."""
    parallel_jobs: int = _setting(parse_positive, "N", default=2)
    """Installations that may run at a time; the same of deletions."""
    parallel_downloads: int = _setting(parse_positive, "N", default=4)
    """Files that may come at a time, of all installations together."""
    threads: int | None = _setting(parse_positive, "N", "LOCALAI_THREADS", "THREADS", default=None)
    """Threads of models whose configuration says nothing."""
    context_size: int | None = _setting(
        parse_positive, "N", "LOCALAI_CONTEXT_SIZE", "CONTEXT_SIZE", default=None
    )
    """Context size, in tokens, of models whose configuration says nothing."""
    f16: bool = _setting(parse_bool, "", "LOCALAI_F16", "F16", default=False)
    """Keep 16-bit numbers in the key-value cache of models whose configuration says nothing."""
    openai_backends: tuple[OpenAIServer, ...] = _setting(
        parse_openai_servers, "NAME=URL,...", default=()
    )
    """Servers with OpenAI's API that models can name as their backend. The file can say more of each."""
    galleries: tuple[GallerySetting, ...] = _setting(
        parse_galleries, "JSON", "LOCALAI_GALLERIES", "GALLERIES", default=DEFAULT_GALLERIES
    )
    """Galleries besides the built-in one: a JSON array of objects with name, url and mirrors. Default: LocalAI's."""
    offline: bool = _setting(parse_bool, "", default=False)
    """Reach no other machine for galleries and models: what was fetched before is all there is."""
    allow_private_hosts: tuple[str, ...] = _setting(parse_words, "HOST,...", default=())
    """Hosts, HOST or HOST:PORT, from which may be fetched though their addresses are private."""
    allow_http: bool = _setting(parse_bool, "", default=False)
    """Fetch without TLS, too. What is fetched can then be read and changed on its way."""
    disable_predownload_scan: bool = _setting(
        parse_bool,
        "",
        "LOCALAI_DISABLE_PREDOWNLOAD_SCAN",
        "DISABLE_PREDOWNLOAD_SCAN",
        default=False,
    )
    """Install models without asking Hugging Face whether it found unsafe files in their repositories."""
    disable_metrics_endpoint: bool = _setting(
        parse_bool,
        "",
        "LOCALAI_DISABLE_METRICS_ENDPOINT",
        "DISABLE_METRICS_ENDPOINT",
        default=False,
    )
    """Keep no metrics; `/metrics` is not found."""
    public_metrics: bool = _setting(parse_bool, "", default=False)
    """Answer `/metrics` without a key."""
    debug: bool = _setting(parse_bool, "", "LOCALAI_DEBUG", "DEBUG", default=False)
    """Log everything."""

    @property
    def models_dir(self) -> Path:
        """Folder of the models."""
        return self.models_path or self.data_dir / "models"

    @property
    def backends_dir(self) -> Path:
        """Folder of installed backends."""
        return self.backends_path or self.data_dir / "backends"

    @property
    def most_backends(self) -> float:
        """Backends that may be loaded at a time. Infinite when there is no limit."""
        return 1 if self.single_active_backend else self.max_active_backends or math.inf

    @property
    def idle_seconds(self) -> float:
        """How long after its last call a backend is stopped. Infinite: never."""
        return _limit(self.watchdog_idle_timeout, 900.0, is_on=self.watchdog_idle)

    @property
    def busy_seconds(self) -> float:
        """How long a backend may work without any call coming to its end. Infinite: for ever."""
        return _limit(self.watchdog_busy_timeout, 300.0, is_on=self.watchdog_busy)

    @property
    def has_keys(self) -> bool:
        """Whether callers must present a key."""
        return bool(self.api_key) or self.api_key_file is not None


def _limit(seconds: float | None, usual_seconds: float, *, is_on: bool | None) -> float:
    """Return a limit of time that has a switch, as LocalAI has it, and a duration; 0 is none."""
    if is_on is False or (seconds is None and not is_on):
        return math.inf
    return (usual_seconds if seconds is None else seconds) or math.inf


class Option(NamedTuple):
    """One setting, as the command line and the documentation show it."""

    name: str
    flag: str
    metavar: str
    is_switch: bool
    is_secret: bool
    is_repeatable: bool
    environment: tuple[str, ...]
    default: Any
    help: str


def options() -> list[Option]:
    """The table of settings."""
    table = []
    texts = _field_docstrings()
    for one in fields(Settings):
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        table.append(
            Option(
                one.name,
                "--" + one.name.replace("_", "-"),
                one.metadata["metavar"],
                one.metadata["parse"] is parse_bool,
                one.metadata["secret"],
                one.metadata["repeatable"],
                (f"LOCALPLANE_{one.name.upper()}", *one.metadata["aliases"]),
                default,
                texts[one.name],
            )
        )
    return table


def _field_docstrings() -> dict[str, str]:
    import ast  # noqa: PLC0415 - only help and documentation need the texts
    import inspect  # noqa: PLC0415

    body = ast.parse(inspect.getsource(Settings)).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError(type(body))
    texts = {}
    for before, after in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            texts[before.target.id] = str(after.value.value)
    return texts


def load_settings(
    flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None = None
) -> Settings:
    """Put the settings together and check them.

    Args:
        flags: Values by the setting's name; None means not given.
        environment: The process environment. A variable that is set and empty counts as not set.
        file: YAML file with a mapping of setting names, dashes or underscores.

    Raises:
        SettingsError: If a value cannot be read, the file has an unknown key, or the settings contradict each other.
    """
    from_file = _read_file(file) if file is not None else {}
    values: dict[str, Any] = {}
    for one in fields(Settings):
        names = (f"LOCALPLANE_{one.name.upper()}", *one.metadata["aliases"])
        given = flags.get(one.name)
        source = "--" + one.name.replace("_", "-")
        if given is None:
            source, given = next(
                ((n, environment[n]) for n in names if environment.get(n)), ("", None)
            )
        if given is None and one.name in from_file:
            source, given = f"{one.name} in {file}", from_file[one.name]
        if given is not None:
            try:
                values[one.name] = one.metadata["parse"](given)
            except (SettingsError, TypeError, ValueError) as error:
                raise SettingsError(f"{source}: {error}") from error
    settings = Settings(**values)
    for listen in (settings.grpc_listen, settings.http_listen):
        if not listen.is_loopback and not settings.has_keys:
            message = (
                f"cannot listen on {listen} without an API key, since others could reach it:"
                " set --api-key-file or LOCALPLANE_API_KEY, or listen on 127.0.0.1"
            )
            raise SettingsError(message)
    return settings


def _read_file(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"cannot read {file}: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"cannot read {file}: expected a mapping of settings")
    read = {str(key).replace("-", "_"): value for key, value in content.items()}
    unknown = sorted(read.keys() - {one.name for one in fields(Settings)})
    if unknown:
        raise SettingsError(f"cannot read {file}: unknown setting {', '.join(unknown)}")
    return read
