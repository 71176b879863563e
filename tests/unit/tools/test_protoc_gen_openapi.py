"""The OpenAPI document that the plugin of protoc writes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openapi_spec_validator import validate

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = ROOT / "tools" / "protoc_gen_openapi.py"

HEAD = """
syntax = "proto3";
package localplane.v1;
import "google/api/annotations.proto";
import "google/api/field_behavior.proto";
import "google/api/httpbody.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "localplane/v1/options.proto";
"""

Document = dict[str, Any]


def protoc(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run protoc with the plugin, which writes into ``out``."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{ROOT / 'proto'}",
            f"-I{ROOT / 'proto' / 'third_party'}",
            f"--plugin=protoc-gen-openapi={PLUGIN}",
            f"--openapi_out={out}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PATH": path},
    )


def own_protos() -> list[str]:
    return sorted(str(path) for path in (ROOT / "proto" / "localplane" / "v1").glob("*.proto"))


@pytest.fixture(scope="module")
def ours() -> Document:
    """Our own document, as it is committed."""
    document: Document = yaml.safe_load((ROOT / "gateway" / "openapi.yaml").read_text())
    return document


@pytest.fixture
def generate(tmp_path: Path) -> Callable[[str], Document]:
    """A function that makes the document of a proto file with the given declarations."""

    def run(declarations: str) -> Document:
        source = tmp_path / "sample.proto"
        source.write_text(HEAD + declarations)
        done = protoc(tmp_path, f"-I{tmp_path}", str(source))
        assert 0 == done.returncode, done.stderr
        document: Document = yaml.safe_load((tmp_path / "openapi.yaml").read_text())
        validate(document)
        return document

    return run


@pytest.fixture
def refuse(tmp_path: Path) -> Callable[[str], str]:
    """A function that gets the plugin's complaint about the given declarations."""

    def run(declarations: str) -> str:
        source = tmp_path / "sample.proto"
        source.write_text(HEAD + declarations)
        done = protoc(tmp_path, f"-I{tmp_path}", str(source))
        assert 1 == done.returncode
        return done.stderr

    return run


def method(rule: str, options: str = "", *, answer: str = "Answer", more: str = "") -> str:
    """A service with one method, and empty messages beside those that ``more`` declares."""
    empty = "".join(
        f"message {name} {{}}\n"
        for name in ("Ask", "Answer")
        if f"message {name} " not in more and name in ("Ask", answer)
    )
    return f"""
service Things {{
  rpc Get(Ask) returns ({answer}) {{
    option (google.api.http) = {{{rule}}};
    {options}
  }}
}}
{empty}{more}"""


def property_of(document: Document, message: str, name: str) -> Any:
    return document["components"]["schemas"][message]["properties"][name]


def operations(document: Document) -> Iterator[tuple[str, str, Any]]:
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            yield path, verb, operation


class TestOurDocument:
    def test_fresh(self, tmp_path: Path) -> None:
        """The committed document is what the protos give, byte for byte, run after run."""
        done = protoc(tmp_path, *own_protos())

        assert (0, "") == (done.returncode, done.stderr)
        expected = (ROOT / "gateway" / "openapi.yaml").read_bytes()
        assert expected == (tmp_path / "openapi.yaml").read_bytes()

    def test_valid(self, ours: Document) -> None:
        """It is a valid OpenAPI 3.0.3 document."""
        validate(ours)

        assert "3.0.3" == ours["openapi"]

    def test_operation_ids_are_unique(self, ours: Document) -> None:
        """No two routes share an id: Connexion would give both the parameters of the last."""
        ids = [operation["operationId"] for _, _, operation in operations(ours)]

        assert len(ids) == len(set(ids))

    def test_additional_bindings(self, ours: Document) -> None:
        """Every binding of a method is an operation of its own that names the method."""
        paths = ours["paths"]

        assert [
            ("BackendService.GetBackendStatus", "/localplane.v1.BackendService/GetBackendStatus"),
            ("BackendService.GetBackendStatus.3", "/localplane.v1.BackendService/GetBackendStatus"),
        ] == [
            (operation["operationId"], operation["x-localplane-method"])
            for operation in (
                paths["/backend/monitor"]["get"],
                paths["/v1/backend/monitor"]["post"],
            )
        ]

    def test_security(self, ours: Document) -> None:
        """Only public methods are open, and the four ways to give a key are declared."""
        open_paths = {path for path, _, found in operations(ours) if [] == found.get("security")}

        own = {"/openapi.json", "/docs", "/docs/{file}"}
        assert {"/", "/healthz", "/readyz", *own} == open_paths
        assert [{"bearer": []}, {"x_api_key": []}, {"xi_api_key": []}, {"token": []}] == ours[
            "security"
        ]

    def test_bare_array(self, ours: Document) -> None:
        """With `response_body` the answer is that field."""
        content = ours["paths"]["/backends"]["get"]["responses"]["200"]["content"]

        schema = content["application/json"]["schema"]
        assert ("array", {"$ref": "#/components/schemas/InstalledBackend"}) == (
            schema["type"],
            schema["items"],
        )

    def test_names_of_localai(self, ours: Document) -> None:
        """`rest_name` is the name in JSON."""
        names = list(ours["components"]["schemas"]["InstalledBackend"]["properties"])

        assert ["Name", "IsSystem", "IsMeta", "RunFile"] == names[:4]

    def test_two_fields_of_one_name(self, ours: Document) -> None:
        """Fields that share a name in JSON are alternatives."""
        embedding = property_of(ours, "Embedding", "embedding")

        assert ["array", "string"] == [choice["type"] for choice in embedding["oneOf"]]

    def test_plain_and_streamed(self, ours: Document) -> None:
        """A method with `stream_method` answers JSON, events and lines on the same route."""
        answer = ours["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]

        assert {
            "application/json": "ChatCompletion",
            "text/event-stream": "ChatCompletionChunk",
            "application/x-ndjson": "ChatCompletionChunk",
        } == {
            media_type: content["schema"]["$ref"].rpartition("/")[2]
            for media_type, content in answer["content"].items()
        }


class TestRequests:
    def test_get_takes_the_query(self, generate: Callable[[str], Document]) -> None:
        """Without a body the fields with single values, or lists of them, are query parameters."""
        ask = """message Ask {
          // How many.
          int32 size = 1 [(google.api.field_behavior) = REQUIRED];
          repeated string tags = 2;
          bytes data = 3;
          google.protobuf.Struct more = 4;
        }"""

        operation = generate(method('get: "/things"', more=ask))["paths"]["/things"]["get"]

        assert [
            {
                "name": "size",
                "in": "query",
                "required": True,
                "description": "How many.",
                "schema": {"type": "integer", "format": "int32"},
            },
            {
                "name": "tags",
                "in": "query",
                "required": False,
                "schema": {"type": "array", "items": {"type": "string"}},
            },
        ] == operation["parameters"]
        assert "requestBody" not in operation

    def test_body_on_get(self, generate: Callable[[str], Document]) -> None:
        """`body_on_get` documents a body beside the query, and neither is required."""
        ask = "message Ask { string model = 1 [(google.api.field_behavior) = REQUIRED]; }"
        declarations = method('get: "/things"', "option (body_on_get) = true;", more=ask)

        operation = generate(declarations)["paths"]["/things"]["get"]

        assert (False, False) == (
            operation["parameters"][0]["required"],
            operation["requestBody"]["required"],
        )

    def test_path_parameter(self, generate: Callable[[str], Document]) -> None:
        """Fields in the path are required there and are not asked for again."""
        ask = "message Ask { string id = 1; string view = 2; }"

        operation = generate(method('get: "/things/{id}"', more=ask))["paths"]["/things/{id}"]

        assert [("id", "path", True), ("view", "query", False)] == [
            (parameter["name"], parameter["in"], parameter["required"])
            for parameter in operation["get"]["parameters"]
        ]

    def test_required_fields(self, generate: Callable[[str], Document]) -> None:
        """A body must hold the required fields that nothing but a body can carry."""
        ask = """
        message Part { string kind = 1 [(google.api.field_behavior) = REQUIRED]; }
        message Ask {
          string model = 1 [(google.api.field_behavior) = REQUIRED];
          repeated string input = 2 [(google.api.field_behavior) = REQUIRED, (one_or_many) = true];
          Part part = 3 [(google.api.field_behavior) = REQUIRED];
          int32 size = 4;
        }"""

        schemas = generate(method('post: "/t" body: "*"', more=ask))["components"]["schemas"]

        assert ["input", "part"] == schemas["Ask"]["required"]
        assert ["kind"] == schemas["Part"]["required"]
        text = {"type": "string"}
        assert {"oneOf": [text, {"type": "array", "items": text}]} == schemas["Ask"]["properties"][
            "input"
        ]

    def test_lax_where_the_codec_is(self, generate: Callable[[str], Document]) -> None:
        """A request may hold null for an unset field, 64 bits as text, and any form of an enum."""
        ask = """
        enum Kind { KIND_UNSPECIFIED = 0; KIND_SMALL = 1; }
        message Ask { uint64 size = 1; Kind kind = 2; }"""

        properties = generate(method('post: "/t" body: "*"', more=ask))["components"]["schemas"][
            "Ask"
        ]["properties"]

        assert {
            "size": {
                "anyOf": [
                    {"type": "integer", "format": "uint64", "minimum": 0},
                    {"type": "string", "pattern": "^[0-9]+$"},
                ],
                "nullable": True,
            },
            "kind": {
                "anyOf": [
                    {"$ref": "#/components/schemas/Kind"},
                    {"type": "string"},
                    {"type": "integer"},
                ],
                "nullable": True,
            },
        } == properties

    def test_messages_that_go_both_ways(self, generate: Callable[[str], Document]) -> None:
        """A message of requests and answers has two schemas, since what is read is laxer."""
        messages = """
        message Part { int64 size = 1; Part inner = 2; }
        message Ask { Part part = 1; }
        message Answer { Part part = 1; }"""

        document = generate(method('post: "/t" body: "*"', more=messages))

        assert {"type": "integer", "format": "int64"} == property_of(document, "Part", "size")
        assert "anyOf" in property_of(document, "PartInput", "size")
        inner = {"allOf": [{"$ref": "#/components/schemas/PartInput"}], "nullable": True}
        assert inner == property_of(document, "PartInput", "inner")


class TestAnswers:
    def test_fields(self, generate: Callable[[str], Document]) -> None:
        """Each kind of field and each option has the schema of what the codec writes."""
        answer = """
        // A kind.
        enum ThingKind {
          // None.
          THING_KIND_UNSPECIFIED = 0;
          // Some.
          THING_KIND_VERY_BIG = 1;
        }
        message Vector { repeated float values = 1 [(unwrap) = true]; }
        message Answer {
          uint64 big = 1;
          optional string word = 2;
          optional string note = 3 [(omit_unset) = true];
          ThingKind kind = 4;
          ThingKind number = 5 [(enum_as_number) = true];
          repeated Vector vectors = 6 [(rest_name) = "Vectors"];
          bytes value = 7 [(text) = true];
          bytes data = 8;
          map<string, int64> sizes = 9;
          google.protobuf.Timestamp at = 10;
          google.protobuf.Struct more = 11;
          oneof choice { string left = 12; Answer right = 13; }
        }"""

        schemas = generate(method('get: "/t"', more=answer))["components"]["schemas"]

        numbers = {"type": "number", "format": "float"}
        assert {
            "big": {"type": "integer", "format": "uint64", "minimum": 0},
            "word": {"type": "string", "nullable": True},
            "note": {"type": "string"},
            "kind": {"$ref": "#/components/schemas/ThingKind"},
            "number": {"$ref": "#/components/schemas/ThingKindNumber"},
            "Vectors": {"type": "array", "items": {"type": "array", "items": numbers}},
            "value": {"type": "string"},
            "data": {"type": "string", "format": "byte"},
            "sizes": {
                "type": "object",
                "additionalProperties": {"type": "integer", "format": "int64"},
            },
            "at": {"type": "string", "format": "date-time", "nullable": True},
            "more": {"type": "object", "additionalProperties": True, "nullable": True},
            "left": {"type": "string"},
            "right": {"$ref": "#/components/schemas/Answer"},
        } == schemas["Answer"]["properties"]
        assert {"note", "left", "right"} == set(schemas["Answer"]["properties"]) - set(
            schemas["Answer"]["required"]
        )
        assert {
            "type": "string",
            "enum": ["unspecified", "very_big"],
            "description": "A kind.\n\n* `unspecified`: None.\n* `very_big`: Some.",
        } == schemas["ThingKind"]
        assert [0, 1] == schemas["ThingKindNumber"]["enum"]

    def test_bytes(self, generate: Callable[[str], Document]) -> None:
        """`HttpBody` is documented with the media types that the method produces."""
        declarations = method(
            'get: "/t"',
            'option (produces) = "audio/wav"; option (produces) = "audio/flac";',
            answer="google.api.HttpBody",
        )

        answer = generate(declarations)["paths"]["/t"]["get"]["responses"]["200"]

        file = {"schema": {"type": "string", "format": "binary"}}
        assert {"audio/wav": file, "audio/flac": file} == answer["content"]

    def test_special_status(self, generate: Callable[[str], Document]) -> None:
        """`http_status` is documented beside the usual failures."""
        declarations = method(
            'get: "/t"', 'option (http_status) = {reason: "GONE_FISHING" status: 500};'
        )

        responses = generate(declarations)["paths"]["/t"]["get"]["responses"]

        assert ["200", "400", "401", "403", "500", "default"] == list(responses)
        assert "`GONE_FISHING`" in responses["500"]["description"]

    def test_comments(self, generate: Callable[[str], Document]) -> None:
        """The first sentence of a comment is the summary, the whole of it the description."""
        declarations = method('get: "/t"').replace(
            "  rpc",
            "  // Gets a thing. Or\n  // two.\n  //\n  // buf:lint:ignore X\n  // More.\n  rpc",
        )

        operation = generate(declarations)["paths"]["/t"]["get"]

        assert ("Gets a thing", "Gets a thing. Or two.\n\nMore.") == (
            operation["summary"],
            operation["description"],
        )


class TestRefusals:
    @pytest.mark.parametrize(
        ("declarations", "complaint"),
        [
            (method('get: "/t" additional_bindings: {get: "/t"}'), "cannot route get /t twice"),
            (
                method('get: "/t/{name=**}"', more="message Ask { string name = 1; }"),
                "cannot route /t/{name=**}: {name=**} must be a field with one value",
            ),
            (
                method('post: "/t" body: "part"', more="message Ask { Ask part = 1; }"),
                "cannot route /t: the body must be the whole request",
            ),
            (
                method('get: "/t" response_body: "parts"'),
                "cannot route /t: localplane.v1.Answer has no field parts",
            ),
            (
                method('get: "/t"', 'option (stream_method) = "Watch";'),
                "cannot stream Get with Watch: no such streaming method",
            ),
            (
                method('get: "/t"', answer="google.api.HttpBody"),
                "cannot route /t: HttpBody and the option produces go together",
            ),
        ],
    )
    def test_what_the_gateway_cannot_do(
        self, refuse: Callable[[str], str], declarations: str, complaint: str
    ) -> None:
        """What the gateway could not serve as declared fails the generation, and says why."""
        assert complaint in refuse(declarations)
