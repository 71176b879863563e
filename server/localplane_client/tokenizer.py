"""Methods of the TokenizerService."""

from __future__ import annotations

from collections.abc import Iterable

from localplane.v1 import tokenizer_service_pb2
from localplane_client.methods import unary


class TokenizerMethods:
    """Text to tokens and back."""

    @unary("TokenizerService/Tokenize", tokenizer_service_pb2.TokenizeResponse, is_quick=False)
    def tokenize(self, content: str, *, model: str = "") -> tokenizer_service_pb2.TokenizeRequest:
        """Split text into tokens. Loads the model where that is needed."""
        return tokenizer_service_pb2.TokenizeRequest(model=model, content=content)

    @unary("TokenizerService/Detokenize", tokenizer_service_pb2.DetokenizeResponse, is_quick=False)
    def detokenize(
        self, tokens: Iterable[int], *, model: str = ""
    ) -> tokenizer_service_pb2.DetokenizeRequest:
        """Join tokens to text. Loads the model where that is needed."""
        return tokenizer_service_pb2.DetokenizeRequest(model=model, tokens=tokens)
