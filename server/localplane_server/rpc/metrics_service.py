"""The gRPC face of the figures for monitoring systems."""

from __future__ import annotations

from typing import Any, Protocol

from google.api import httpbody_pb2

from localplane.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from localplane_server.rpc.http_facts import ACCEPT, http_fact

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
        data, content_type = await self._written(http_fact(context, ACCEPT))
        return httpbody_pb2.HttpBody(content_type=content_type, data=data)
