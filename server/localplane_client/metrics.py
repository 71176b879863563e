"""Methods of the MetricsService."""

from __future__ import annotations

from google.api import httpbody_pb2

from localplane.v1 import metrics_service_pb2
from localplane_client.methods import unary


class MetricsMethods:
    """The service's figures for monitoring systems."""

    @unary("MetricsService/GetMetrics", httpbody_pb2.HttpBody)
    def get_metrics(self) -> metrics_service_pb2.GetMetricsRequest:
        """Get all figures as text for Prometheus, in the answer's `data`."""
        return metrics_service_pb2.GetMetricsRequest()
