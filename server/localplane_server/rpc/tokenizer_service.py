"""The gRPC face of tokens."""

from __future__ import annotations

from typing import Any

from localplane.v1 import tokenizer_service_pb2, tokenizer_service_pb2_grpc
from localplane_server.inference.tokenization import Tokenizer


class TokenizerServicer(tokenizer_service_pb2_grpc.TokenizerServiceServicer):
    """Unpacks the request, calls the domain, packs the answer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    async def Tokenize(
        self, request: tokenizer_service_pb2.TokenizeRequest, context: Any
    ) -> tokenizer_service_pb2.TokenizeResponse:
        split = await self._tokenizer.tokenize(request.model, request.content)
        return tokenizer_service_pb2.TokenizeResponse(
            tokens=split.tokens, count=len(split.tokens), tokenizer=split.model
        )

    async def Detokenize(
        self, request: tokenizer_service_pb2.DetokenizeRequest, context: Any
    ) -> tokenizer_service_pb2.DetokenizeResponse:
        content = await self._tokenizer.detokenize(request.model, request.tokens)
        return tokenizer_service_pb2.DetokenizeResponse(content=content)
