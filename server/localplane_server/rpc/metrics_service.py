"""The gRPC face of the figures for monitoring systems."""

from __future__ import annotations

from typing import Any, Protocol

from google.api import httpbody_pb2

from localplane.v1 import metrics_service_pb2, metrics_service_pb2_grpc

GET_METRICS = "/localplane.v1.MetricsService/GetMetrics"
"""The method that an operator may open to everybody."""


class Written(Protocol):
    """Gives the figures as text."""

    async def __call__(self, accept: str, /) -> tuple[bytes, str]:
        """Return the text and its media type.

        Raises:
            MetricsDisabledError: If there are no figures.
        """


class MetricsServicer(metrics_service_pb2_grpc.MetricsServiceServicer):
    """Unpacks the request, calls the domain, packs the answer."""

    def __init__(self, written: Written) -> None:
        self._written = written

    async def GetMetrics(
        self, request: metrics_service_pb2.GetMetricsRequest, context: Any
    ) -> httpbody_pb2.HttpBody:
        # It only chooses between two forms of the same figures, so it does no harm from callers other than the gateway.
        accept = dict(context.invocation_metadata() or ()).get("x-http-accept", "")
        data, content_type = await self._written(accept)
        return httpbody_pb2.HttpBody(content_type=content_type, data=data)
