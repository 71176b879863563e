"""Methods of the TokenMetricsService."""

from __future__ import annotations

from localplane.v1 import token_metrics_pb2, token_metrics_service_pb2
from localplane_client.methods import unary


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
