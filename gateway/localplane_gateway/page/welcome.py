"""The first page: what the service is and has, and how it is called.

It is whole without scripts; with them, its backends are those of this moment. It takes nothing from elsewhere, and
escapes whatever it shows: the names of models come from whoever made them.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache, partial
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.descriptor import FieldDescriptor
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from localplane.v1 import backend_pb2, model_pb2, summary_pb2
from localplane_gateway.codec.fields import enum_names
from localplane_gateway.document import Document
from localplane_gateway.errors import Headers
from localplane_gateway.exchange import Exchange
from localplane_gateway.page.examples import Place, make_examples

HTML = b"text/html; charset=utf-8"
NEGOTIATED: Headers = [(b"vary", b"Accept, Content-Type"), (b"cache-control", b"no-store")]
"""Headers of the answer in either form. It is of this moment and of this caller."""
MOST_ROWS = 200
"""Models that the page lists. JSON has them all."""
KEPT_PLACES = 8
"""For how many addresses and models the lines are kept."""

_GRPC_PORT = 50051
_ANY_HOST = ("0.0.0.0", "[::]", "::", "")  # noqa: S104 - nothing is bound here
_LOADED = (backend_pb2.BACKEND_STATE_READY, backend_pb2.BACKEND_STATE_BUSY)
_STEP = 1024


def wants_page(exchange: Exchange) -> bool:
    """Whether a person asks: a browser accepts HTML by its name, and sends no JSON."""
    sent = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return sent != b"application/json" and any(
        _accepts_html(part) for part in exchange.headers.get(b"accept", b"").lower().split(b",")
    )


class WelcomePage:
    """Makes the page of a summary.

    Args:
        document: Says what the methods do.
    """

    def __init__(self, document: Document) -> None:
        # The lines change with the addresses and the model only, and take longer than all the rest.
        self._examples = lru_cache(KEPT_PLACES)(partial(make_examples, document))
        folder = files("localplane_gateway.page")
        style = (folder / "welcome.css").read_text(encoding="utf-8")
        script = (folder / "welcome.js").read_text(encoding="utf-8")
        environment = Environment(
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["size"] = readable_size
        self._template = environment.from_string(
            (folder / "welcome.html").read_text(encoding="utf-8"),
            # The texts that are not escaped: they are ours, and escaped ones would be others.
            globals={
                "style": Markup(style),  # noqa: S704
                "script": Markup(script),  # noqa: S704
                "blank": backend_pb2.Backend(),
            },
        )
        policy = (
            f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self.headers: Headers = [
            (b"content-security-policy", policy.encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-frame-options", b"DENY"),
        ]
        """Headers of the page: no script but its own, nothing from elsewhere, in nobody else's frame."""

    def render(self, summary: summary_pb2.Summary) -> bytes:
        """Make the page."""
        place = _place(summary)
        is_known = summary.HasField("models")
        rows = _model_rows(summary)
        page = self._template.render(
            summary=summary,
            # Who may see nothing is not told how everything would be called: /docs does that.
            is_known=is_known,
            is_admin=summary.HasField("loaded_models"),
            backends=[
                (backend, _word(backend)) for backend in _sorted(summary.loaded_models.by_model)
            ],
            models=rows[:MOST_ROWS],
            more_models=max(len(rows) - MOST_ROWS, 0),
            place=place,
            services=self._examples(place) if is_known else [],
            settings=_settings(summary.application_config),
        )
        return page.encode("utf-8", "replace")


def readable_size(size: int) -> str:
    """Write bytes for people."""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < _STEP:
            break
        amount, unit = amount / _STEP, larger
    is_round = unit == "B" or amount >= 100  # noqa: PLR2004 - three digits are enough
    return f"{amount:.0f} {unit}" if is_round else f"{amount:.1f} {unit}"


def _source(text: str) -> str:
    """Name one style or script for a policy."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _accepts_html(media_range: bytes) -> bool:
    kind, *parameters = (part.strip() for part in media_range.split(b";"))
    if kind != b"text/html":
        return False
    weights = [part[2:].strip() for part in parameters if part.startswith(b"q=")]
    return not weights or weights[0].strip(b"0.") != b""


def _sorted(by_model: object) -> list[backend_pb2.Backend]:
    backends: dict[str, backend_pb2.Backend] = dict(by_model)  # type: ignore[call-overload]  # a map of protobuf
    return [backends[name] for name in sorted(backends)]


def _word(message: backend_pb2.Backend | model_pb2.Model) -> str:
    return enum_names(backend_pb2.BackendState.DESCRIPTOR)[message.state]


def _model_rows(summary: summary_pb2.Summary) -> list[tuple[model_pb2.Model, str]]:
    """List the models with the words for their states; no word where the caller may not know it."""
    rows = [(model, _word(model)) for model in summary.models_config.models]
    running = summary.loaded_models.by_model
    for name in summary.models.names:
        model = model_pb2.Model(name=name, file=name, state=backend_pb2.BACKEND_STATE_STOPPED)
        if name in running:
            model.state = running[name].state
        rows.append((model, _word(model) if summary.HasField("loaded_models") else ""))
    return rows


def _place(summary: summary_pb2.Summary) -> Place:
    base_url = summary.base_url.rstrip("/") or "http://127.0.0.1:8080"
    name = urlsplit(base_url).hostname or "127.0.0.1"
    host = f"[{name}]" if ":" in name else name
    listens = summary.application_config.grpc_listen or f":{_GRPC_PORT}"
    grpc_host, _, port = listens.rpartition(":")
    loaded = [one.model for one in _sorted(summary.loaded_models.by_model) if one.state in _LOADED]
    names = [*loaded, *(one.name for one in summary.models_config.models), *summary.models.names]
    has_settings = summary.HasField("application_config")
    return Place(
        base_url=base_url,
        grpc=f"{host if grpc_host in _ANY_HOST else grpc_host}:{port}",
        model=names[0] if names else "my-model",
        # Settings are hidden only where keys are set.
        requires_key=summary.application_config.requires_key if has_settings else True,
    )


def _settings(config: summary_pb2.ApplicationConfig) -> list[tuple[str, str]]:
    """List the settings that are set, by the names that they have on the command line."""
    return [
        (field.name.replace("_", "-"), _words(value))
        for field, value in (
            (field, _set_value(config, field)) for field in config.DESCRIPTOR.fields
        )
        if value is not None
    ]


def _set_value(message: Any, field: FieldDescriptor) -> Any:
    is_unset = field.has_presence and not message.HasField(field.name)
    return None if is_unset else getattr(message, field.name)


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
