"""Methods of the TokenMetricsService."""

from __future__ import annotations

from collections.abc import Iterable

from localplane.v1 import token_metrics_pb2, token_metrics_service_pb2
from localplane_client.methods import streaming, unary


class TokenMetricsMethods:
    """How many tokens went through models. Asking never loads a model and resets nothing."""

    @unary("TokenMetricsService/GetTokenMetrics", token_metrics_pb2.TokenMetrics)
    def get_token_metrics(self, model: str) -> token_metrics_service_pb2.GetTokenMetricsRequest:
        """Get the tokens of one model: its most recently active slot, all its slots, and its totals."""
        return token_metrics_service_pb2.GetTokenMetricsRequest(model=model)

    @unary(
        "TokenMetricsService/ListTokenMetrics", token_metrics_service_pb2.ListTokenMetricsResponse
    )
    def list_token_metrics(
        self, *, page_size: int = 0, page_token: str = ""
    ) -> token_metrics_service_pb2.ListTokenMetricsRequest:
        """List the tokens of all models: of the last minute, five minutes and hour, and the totals."""
        return token_metrics_service_pb2.ListTokenMetricsRequest(
            page_size=page_size, page_token=page_token
        )

    @streaming(
        "TokenMetricsService/WatchTokenMetrics", token_metrics_service_pb2.WatchTokenMetricsResponse
    )
    def watch_token_metrics(
        self, *, models: Iterable[str] = (), after_revision: str = ""
    ) -> token_metrics_service_pb2.WatchTokenMetricsRequest:
        """Give what the list has, then every change of it, of all models or of those named."""
        return token_metrics_service_pb2.WatchTokenMetricsRequest(
            models=models, after_revision=after_revision
        )
