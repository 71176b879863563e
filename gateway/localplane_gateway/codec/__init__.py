"""JSON to protobuf messages and back, compiled from descriptors.

The JSON is proto3 JSON with the profile of this service:

* Names are the fields' own, or their `rest_name`; both are read. Unknown fields are ignored.
* 64-bit integers are numbers, also in wrappers; numbers in strings are read too.
* 32-bit floats are written as shortly as they can be read back; NaN and the infinities are strings.
* Zero values are written. Unset fields with presence are null, unset members of a oneof are absent.
* Integral numbers of `Struct` and `Value` below 2**53 are written as integers.
* Enums are written as their lower-case name without the enum's prefix; that, the full name and the
  number are read. Names that the enum does not have are refused, though unknown fields are not.
* Of equal names in one object the last wins. A field under both of its names is refused.
* A message is an object or null, never a list or a string; null is an unset field, lists included.
* `localplane/v1/options.proto` has options that change how a field looks; those inside
  `google.protobuf.Any` have no effect.

Everything else is accepted and refused as `google.protobuf.json_format` does.
"""

from __future__ import annotations

from localplane_gateway.codec.codec import Codec, codec_for
from localplane_gateway.codec.error import CodecError

__all__ = ["Codec", "CodecError", "codec_for"]
