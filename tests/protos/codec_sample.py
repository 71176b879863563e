"""The classes of `codec_sample.proto`, compiled when they are imported."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

import grpc_tools  # type: ignore[import-untyped]
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

FOLDER = Path(__file__).parent
PROTO = FOLDER.parent.parent / "proto"


def _compile() -> descriptor_pb2.FileDescriptorProto:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "sample.binpb")
        status = protoc.main(
            [
                "protoc",
                f"-I{FOLDER}",
                f"-I{PROTO}",
                f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
                f"--descriptor_set_out={out}",
                "codec_sample.proto",
            ]
        )
        if status:
            msg = "cannot compile codec_sample.proto"
            raise RuntimeError(msg)
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]


def _register(file: descriptor_pb2.FileDescriptorProto) -> None:
    for dependency in file.dependency:
        importlib.import_module(f"{dependency.removesuffix('.proto').replace('/', '.')}_pb2")
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


_register(_compile())


def _class(name: str) -> Any:
    descriptor = descriptor_pool.Default().FindMessageTypeByName(f"localplane.tests.{name}")
    return message_factory.GetMessageClass(descriptor)


Plain = _class("Plain")
Optioned = _class("Optioned")
Vectors = _class("Vectors")
FloatRow = _class("FloatRow")
Names = _class("Names")
Maybe = _class("Maybe")
WronglyUnwrapped = _class("WronglyUnwrapped")
