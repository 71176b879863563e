"""The protos of a request by their full names, and their comments."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)

# Numbers of fields of the messages in descriptor.proto: places of comments are made of them.
_FILE_MESSAGES, _FILE_ENUMS, _FILE_SERVICES = 4, 5, 6
_MESSAGE_FIELDS, _MESSAGE_NESTED, _MESSAGE_ENUMS = 2, 3, 4
_ENUM_VALUES = 2
_SERVICE_METHODS = 2


class GeneratorError(Exception):
    """The protos ask for something that the document or the gateway cannot express."""


class Descriptors:
    """Messages, enums and services of a set of proto files.

    Full names have no leading dot. Values of an enum are named below their enum; in protobuf
    they are its siblings.
    """

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self.messages: dict[str, DescriptorProto] = {}
        """Messages, nested ones included, by full name."""
        self.enums: dict[str, EnumDescriptorProto] = {}
        """Enums by full name."""
        self.services: dict[str, list[tuple[str, ServiceDescriptorProto]]] = {}
        """Services with their full names, in the order of their declaration, by file."""
        self._comments: dict[str, str] = {}
        for file in files:
            self._add_file(file)

    def comment(self, full_name: str) -> str:
        """Get the comment of an element: paragraphs of one line each, separated by empty lines."""
        return self._comments.get(full_name, "")

    def map_entry(self, field: FieldDescriptorProto) -> DescriptorProto | None:
        """Get the entry of a map field; None for any other field."""
        if field.type != FieldDescriptorProto.TYPE_MESSAGE:
            return None
        entry = self.messages.get(field.type_name.lstrip("."))
        return entry if entry is not None and entry.options.map_entry else None

    def _add_file(self, file: FileDescriptorProto) -> None:
        comments = {
            tuple(location.path): _paragraphs(location.leading_comments)
            for location in file.source_code_info.location
            if location.leading_comments
        }
        for index, message in enumerate(file.message_type):
            self._add_message(file.package, message, (_FILE_MESSAGES, index), comments)
        for index, enum in enumerate(file.enum_type):
            self._add_enum(file.package, enum, (_FILE_ENUMS, index), comments)
        for index, service in enumerate(file.service):
            full_name = f"{file.package}.{service.name}"
            place = (_FILE_SERVICES, index)
            self.services.setdefault(file.name, []).append((full_name, service))
            self._comments[full_name] = comments.get(place, "")
            for number, method in enumerate(service.method):
                comment = comments.get((*place, _SERVICE_METHODS, number), "")
                self._comments[f"{full_name}.{method.name}"] = comment

    def _add_message(
        self,
        scope: str,
        message: DescriptorProto,
        place: tuple[int, ...],
        comments: dict[tuple[int, ...], str],
    ) -> None:
        full_name = f"{scope}.{message.name}"
        self.messages[full_name] = message
        self._comments[full_name] = comments.get(place, "")
        for index, field in enumerate(message.field):
            comment = comments.get((*place, _MESSAGE_FIELDS, index), "")
            self._comments[f"{full_name}.{field.name}"] = comment
        for index, nested in enumerate(message.nested_type):
            self._add_message(full_name, nested, (*place, _MESSAGE_NESTED, index), comments)
        for index, enum in enumerate(message.enum_type):
            self._add_enum(full_name, enum, (*place, _MESSAGE_ENUMS, index), comments)

    def _add_enum(
        self,
        scope: str,
        enum: descriptor_pb2.EnumDescriptorProto,
        place: tuple[int, ...],
        comments: dict[tuple[int, ...], str],
    ) -> None:
        full_name = f"{scope}.{enum.name}"
        self.enums[full_name] = enum
        self._comments[full_name] = comments.get(place, "")
        for index, value in enumerate(enum.value):
            comment = comments.get((*place, _ENUM_VALUES, index), "")
            self._comments[f"{full_name}.{value.name}"] = comment


def _paragraphs(comment: str) -> str:
    """Join the lines of each paragraph, and drop what is meant for the linter."""
    paragraphs: list[list[str]] = [[]]
    for line in comment.splitlines():
        text = line.strip()
        if text.startswith("buf:lint:"):
            continue
        if text:
            paragraphs[-1].append(text)
        elif paragraphs[-1]:
            paragraphs.append([])
    return "\n\n".join(" ".join(lines) for lines in paragraphs if lines)
