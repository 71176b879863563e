"""The error of the codec."""

from __future__ import annotations

INVALID_ARGUMENT = "INVALID_ARGUMENT"


class CodecError(ValueError):
    """JSON that is no such message, or a message that JSON cannot express."""

    def __init__(self, field: str, message: str, reason: str = INVALID_ARGUMENT) -> None:
        super().__init__(message)
        self.field = field
        """Path of the field, such as `messages[0].role`; empty when the document is at fault."""
        self.message = message
        """What is wrong, as a sentence that stands alone."""
        self.reason = reason
        """Reason of the error: `INVALID_ARGUMENT`, or the field's option `invalid_reason`."""
