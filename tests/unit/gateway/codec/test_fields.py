"""What is known of fields and enums."""

from __future__ import annotations

import pytest

from localplane.v1 import backend_pb2
from localplane_gateway.codec.fields import enum_names, enum_numbers, shape_of
from protos.codec_sample import Optioned, Plain
from unit.gateway.codec.oracle import ENUM_NAMES


class TestEnums:
    @pytest.mark.parametrize("field", ["f_color", "f_mood"])
    def test_names(self, field: str) -> None:
        """Names lose the enum's prefix, unless nothing or a number would be left."""
        enum = Plain.DESCRIPTOR.fields_by_name[field].enum_type
        expected = {value.number: ENUM_NAMES[value.name] for value in enum.values}

        assert expected == enum_names(enum)

    def test_numbers(self) -> None:
        """Short names and full names are read."""
        numbers = enum_numbers(backend_pb2.DESCRIPTOR.enum_types_by_name["BackendState"])

        assert 4 == numbers["ready"] == numbers["BACKEND_STATE_READY"]
        assert "READY" not in numbers


class TestShape:
    def test_presence(self) -> None:
        """The oneof that stands for the word optional is none; one with a single member is one."""
        inputs = shape_of(Plain.DESCRIPTOR).inputs

        assert (True, False) == (inputs["o_int32"].has_presence, inputs["o_int32"].in_oneof)
        assert (True, True) == (inputs["only_string"].has_presence, inputs["only_string"].in_oneof)
        assert (True, False) == (inputs["f_plain"].has_presence, inputs["f_plain"].in_oneof)
        assert (False, False) == (inputs["f_int32"].has_presence, inputs["r_plain"].has_presence)

    def test_aliases(self) -> None:
        """A renamed field has two names, unless another field has one of them."""
        assert {("RunFile", "run_file"), ("shared", "shared_number")} == set(
            shape_of(Optioned.DESCRIPTOR).aliases
        )
