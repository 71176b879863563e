"""The page, from summaries of every kind."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from localplane.v1 import backend_pb2, model_pb2, summary_pb2
from localplane_gateway.bindings import import_services
from localplane_gateway.document import load_document
from localplane_gateway.exchange import Exchange
from localplane_gateway.page.welcome import MOST_ROWS, WelcomePage, readable_size, wants_page

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"' onload='alert(3)"
TITLE = summary_pb2.Summary(title="Localplane v0.1.0", version="v0.1.0")


@pytest.fixture(scope="module")
def page() -> WelcomePage:
    import_services()
    return WelcomePage(load_document())


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def full_summary(name: str) -> summary_pb2.Summary:
    """A summary as an administrator gets it, of a service whose every text is the given one."""
    summary = summary_pb2.Summary()
    summary.CopyFrom(TITLE)
    summary.base_url = "http://127.0.0.1:8080/"
    summary.models.names.append(f"{name}.gguf")
    summary.models_config.models.append(
        model_pb2.Model(
            name=name,
            description=name,
            aliases=[name],
            backend=name,
            size_bytes=94 * 1024 * 1024,
            state=backend_pb2.BACKEND_STATE_READY,
        )
    )
    summary.loaded_models.by_model[name].CopyFrom(
        backend_pb2.Backend(
            model=name,
            backend=name,
            state=backend_pb2.BACKEND_STATE_READY,
            pid=1,
            memory_info=backend_pb2.ProcessMemory(rss=1536 * 1024 * 1024),
            last_error=name,
        )
    )
    summary.installed_backends.backends.append(
        backend_pb2.InstalledBackend(name=name, aliases=[name], missing=name)
    )
    summary.application_config.grpc_listen = "127.0.0.1:50051"
    return summary


def test_full(page: WelcomePage) -> None:
    """Version, backends with state and memory, models, and lines for every method."""
    text = Elements(page.render(full_summary("tiny"))).text

    for expected in ("v0.1.0", "ready", "1.5 GiB", "94.0 MiB", "tiny.gguf", "GetBackendStatus"):
        assert expected in text
    assert "curl 'http://127.0.0.1:8080/backend/monitor?model=tiny'" in text
    assert "127.0.0.1:50051 localplane.v1.BackendService/LoadModel" in text
    assert "LOCALPLANE_API_KEY" not in text


def test_what_users_see(page: WelcomePage) -> None:
    """Models with their states, live, and no state of what the caller may not know the state of."""
    summary = full_summary("tiny")
    for hidden in ("loaded_models", "installed_backends", "application_config"):
        summary.ClearField(hidden)
    elements = Elements(page.render(summary))

    states = [held["data-state-of"] for _, held in elements.found if "data-state-of" in held]
    assert ["tiny"] == states
    assert "tiny.gguf" in elements.text
    assert 1 == sum(1 for _, held in elements.found if held.get("id") == "live")


def test_nothing_runs_and_nothing_is_loaded(page: WelcomePage) -> None:
    """No script but the page's own, no handlers, no styles, nothing from elsewhere: whatever the names are."""
    elements = Elements(page.render(full_summary(HOSTILE)))

    assert HOSTILE in elements.text
    tags = [tag for tag, _ in elements.found]
    assert not {*tags} & {"img", "iframe", "object", "embed", "form", "base"}
    assert ("script", {}) == elements.found[-1]
    assert 1 == tags.count("script")
    for _, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert (attributes.get("href") or "#").split(":")[0] in (
            "#",
            "#main",
            "docs",
            "openapi.json",
            "data",
        )
        assert "src" not in attributes


def test_shape_does_not_depend_on_names(page: WelcomePage) -> None:
    """A hostile name changes texts, never elements."""
    tame, hostile = (Elements(page.render(full_summary(name))) for name in ("tiny", HOSTILE))

    shapes = [[(tag, [*attributes]) for tag, attributes in one.found] for one in (tame, hostile)]
    assert shapes[0] == shapes[1]


def test_policy(page: WelcomePage) -> None:
    """The policy lets in the one style and the one script that the page has, and nothing else."""
    policy = dict(page.headers)[b"content-security-policy"].decode()
    for tag in ("style", "script"):
        found = re.search(f"<{tag}>(.*?)</{tag}>", page.render(TITLE).decode(), re.DOTALL)
        assert found is not None
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy

    assert policy.startswith("default-src 'none'; ")
    assert "connect-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_without_key(page: WelcomePage) -> None:
    """Who may see title and version only is told how to present a key, and nothing of the service."""
    text = Elements(page.render(TITLE)).text

    assert "v0.1.0" in text
    assert "asks for a key" in text
    assert "localplane.v1." not in text


def test_with_a_key_for_users(page: WelcomePage) -> None:
    """Models and lines with the key, but no backends and no settings."""
    summary = full_summary("tiny")
    for name in ("loaded_models", "installed_backends", "application_config"):
        summary.ClearField(name)
    elements = Elements(page.render(summary))

    assert "tiny.gguf" in elements.text
    assert "LOCALPLANE_API_KEY" in elements.text
    ids = {attributes.get("id") for _, attributes in elements.found}
    assert {"models", "calls"} <= ids
    assert not {"backends", "installed", "settings"} & ids


def test_failed_backend(page: WelcomePage) -> None:
    """A failure shows with its cause; the lines name a model that is loaded instead."""
    summary = full_summary("tiny")
    failed = summary.loaded_models.by_model["a-broken-one"]
    failed.model, failed.state = "a-broken-one", backend_pb2.BACKEND_STATE_FAILED
    failed.last_error = "the backend ended with exit code 3"
    text = Elements(page.render(summary)).text

    assert "the backend ended with exit code 3" in text
    assert "/backend/monitor?model=tiny" in text


def test_loose_model_that_is_loaded(page: WelcomePage) -> None:
    """A model without a configuration has the state of its backend."""
    summary = full_summary("tiny")
    summary.ClearField("models_config")
    busy = summary.loaded_models.by_model["tiny.gguf"]
    busy.model, busy.state = "tiny.gguf", backend_pb2.BACKEND_STATE_BUSY

    states = [
        attributes
        for _, attributes in Elements(page.render(summary)).found
        if attributes.get("class") == "state busy"
    ]
    assert 2 == len(states)
    assert "tiny.gguf" in [attributes.get("data-state-of") for attributes in states]


def test_many_models(page: WelcomePage) -> None:
    """The page stays readable and says where the rest is."""
    summary = full_summary("tiny")
    summary.models.names.extend(f"model-{number}" for number in range(MOST_ROWS + 10))
    text = Elements(page.render(summary)).text

    assert "And 12 more" in text
    assert f"model-{MOST_ROWS + 9}" not in text


@pytest.mark.parametrize(
    ("listens", "base_url", "expected"),
    [
        ("127.0.0.1:50051", "http://127.0.0.1:8080/", "127.0.0.1:50051"),
        ("0.0.0.0:50051", "http://box.lan:8080/", "box.lan:50051"),
        ("[::]:50051", "http://[fd00::1]:8080/", "[fd00::1]:50051"),
        ("", "https://models.example/llm/", "models.example:50051"),
        ("127.0.0.1:50051", "", "127.0.0.1:50051"),
    ],
)
def test_grpc_address(page: WelcomePage, listens: str, base_url: str, expected: str) -> None:
    """The lines call gRPC where the reader can reach it."""
    summary = full_summary("tiny")
    summary.application_config.grpc_listen = listens
    summary.base_url = base_url
    text = Elements(page.render(summary)).text

    assert f"gRPC at {expected}." in text


@pytest.mark.parametrize(
    ("accept", "content_type", "is_page"),
    [
        ("text/html,application/xhtml+xml,*/*;q=0.8", "", True),
        ("application/json, text/html;q=0.1", "", True),
        ("TEXT/HTML", "text/plain", True),
        ("text/html", "application/json", False),
        ("text/html", "Application/JSON; charset=utf-8", False),
        ("text/html;q=0", "", False),
        ("text/html; q=0.000", "", False),
        ("*/*", "", False),
        ("text/*", "", False),
        ("application/json", "", False),
        ("", "", False),
        (",;=", "", False),
    ],
)
def test_who_gets_the_page(accept: str, content_type: str, is_page: bool) -> None:  # noqa: FBT001
    """Who accepts HTML by name and sends no JSON; neither plain curl nor programs."""
    headers = [(b"accept", accept.encode()), (b"content-type", content_type.encode())]
    scope = {"type": "http", "method": "GET", "headers": headers}

    async def nothing(*_: object) -> None:
        raise AssertionError

    assert is_page is wants_page(Exchange(scope, nothing, nothing))  # type: ignore[arg-type]  # neither is called


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (200 << 20, "200 MiB"),
        (3 << 50, "3072 TiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    """Three digits and a unit."""
    assert text == readable_size(size)
