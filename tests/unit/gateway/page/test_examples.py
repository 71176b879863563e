"""Lines that call every method."""

from __future__ import annotations

import ast
import json
import shlex
from urllib.parse import parse_qsl, urlsplit

import pytest
from google.protobuf import descriptor_pool, json_format, message_factory

from localplane_gateway.bindings import import_services
from localplane_gateway.document import Document, load_document
from localplane_gateway.page.examples import Example, Place, make_examples

HOSTILE = "<script>alert(1)</script>'; rm -rf $HOME `id` \"é\n"


@pytest.fixture(scope="module")
def document() -> Document:
    import_services()
    return load_document()


def examples(document: Document, model: str, *, requires_key: bool = False) -> dict[str, Example]:
    place = Place(
        base_url="http://127.0.0.1:8080",
        grpc="127.0.0.1:50051",
        model=model,
        requires_key=requires_key,
    )
    return {
        f"{service.service}.{example.method}": example
        for service in make_examples(document, place)
        for example in service.examples
    }


def test_every_method(document: Document) -> None:
    """Each method of each service has its lines; each operation of the document is among the routes."""
    made = examples(document, "tiny")
    operations = {
        operation["x-localplane-method"].lstrip("/").replace("/", ".")
        for item in document.raw["paths"].values()
        for operation in item.values()
        if "x-localplane-method" in operation
    }

    assert operations <= made.keys()
    assert {
        name for name, example in made.items() if example.route and not example.is_stream
    } <= operations
    for example in made.values():
        assert bool(example.route) == bool(example.curl)
        assert example.grpcurl.startswith("grpcurl -plaintext ")
        assert example.access in ("public", "user", "admin")
    assert all(made[name].summary for name in operations)


@pytest.mark.parametrize("model", ["tiny", HOSTILE])
def test_grpcurl(document: Document, model: str) -> None:
    """A shell takes the line apart as meant, and the data is a request of the method."""
    for name, example in examples(document, model).items():
        words = shlex.split(example.grpcurl)
        assert ["127.0.0.1:50051", name.rpartition(".")[0] + "/" + example.method] == words[-2:]
        method = descriptor_pool.Default().FindMethodByName(name)
        request = message_factory.GetMessageClass(method.input_type)()
        if "-d" in words:
            json_format.Parse(words[words.index("-d") + 1], request)
        for field, value in request.ListFields():
            if field.name == "model":
                assert model == value


@pytest.mark.parametrize("model", ["tiny", HOSTILE])
def test_curl(document: Document, model: str) -> None:
    """A shell takes the line apart as meant; the path is one of the document's."""
    for example in examples(document, model).values():
        if not example.curl:
            continue
        words = shlex.split(example.curl)
        url = urlsplit(words[-1])
        verb, path = example.route.split()
        assert ("curl", "127.0.0.1:8080") == (words[0], url.netloc)
        assert path in document.raw["paths"]
        assert len(path.split("/")) == len(url.path.split("/"))
        values = dict(parse_qsl(url.query))
        if "-d" in words:
            values = json.loads(words[words.index("-d") + 1])
        assert values.get("model", model) == model
        sent = words[words.index("-X") + 1] if "-X" in words else "POST" if "-d" in words else "GET"
        assert verb == sent
        assert example.is_stream == ("-N" in words)


@pytest.mark.parametrize("requires_key", [False, True])
def test_python(document: Document, requires_key: bool) -> None:  # noqa: FBT001 - a table's column
    """It is Python, also with a hostile name of a model, and uses a key where one is needed."""
    made = examples(document, HOSTILE, requires_key=requires_key)
    for example in made.values():
        tree = ast.parse(example.python)
        names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
        assert "stub" in names
        assert (requires_key and example.access != "public") == ("os" in names)
    literal = ascii(HOSTILE)
    assert f"{{'model': {literal}}}" in made["localplane.v1.BackendService.LoadModel"].python


def test_known_lines(document: Document) -> None:
    """What a newcomer copies first, to the letter."""
    made = examples(document, "smollm2")

    chat = made["localplane.v1.InferenceService.ChatStream"]
    messages = '"messages": [{"role": "user", "content": "Say hello."}]'
    assert (
        "curl -N -H 'Content-Type: application/json' "
        f'-d \'{{"model": "smollm2", {messages}, "stream": true}}\' '
        "http://127.0.0.1:8080/v1/chat/completions"
    ) == chat.curl
    assert (
        f'grpcurl -plaintext -d \'{{"model": "smollm2", {messages}}}\' '
        "127.0.0.1:50051 localplane.v1.InferenceService/ChatStream"
    ) == chat.grpcurl
    assert "for message in stub.ChatStream(request):\n    print(message)" in chat.python
    model = made["localplane.v1.ModelService.GetModel"]
    assert "curl http://127.0.0.1:8080/api/models/smollm2" == model.curl
    reload_ = made["localplane.v1.ModelService.ReloadModels"]
    assert "curl -X POST http://127.0.0.1:8080/models/reload" == reload_.curl


def test_keys(document: Document) -> None:
    """The key comes from the environment, and only where one is needed."""
    made = examples(document, "tiny", requires_key=True)

    version = made["localplane.v1.SystemService.GetVersion"]
    header = '-H "Authorization: Bearer $LOCALPLANE_API_KEY"'
    assert f"curl {header} http://127.0.0.1:8080/version" == version.curl
    assert '-H "authorization: Bearer $LOCALPLANE_API_KEY"' in version.grpcurl
    assert "LOCALPLANE_API_KEY" not in made["localplane.v1.SystemService.Live"].curl
