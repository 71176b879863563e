#!/usr/bin/env python3
"""Writes the OpenAPI document of the services that protoc was given.

A plugin of protoc: it reads a `CodeGeneratorRequest` from standard input and answers on standard
output. ``make gen`` runs it; the document becomes `gateway/openapi.yaml`, which the gateway serves
and is configured by.
"""

from __future__ import annotations

import sys

from google.protobuf.compiler import plugin_pb2

from openapi.descriptors import Descriptors, GeneratorError
from openapi.document import render


def respond(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """Answer a request of protoc with one file, or with the reason why there is none."""
    features = plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    response = plugin_pb2.CodeGeneratorResponse(supported_features=features)
    try:
        content = render(Descriptors(request.proto_file), list(request.file_to_generate))
    except GeneratorError as error:
        response.error = str(error)
    else:
        response.file.add(name="openapi.yaml", content=content)
    return response


if __name__ == "__main__":
    given = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(respond(given).SerializeToString())
