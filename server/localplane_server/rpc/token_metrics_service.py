"""The gRPC face of token metrics."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from localplane.v1 import (
    token_metrics_pb2,
    token_metrics_service_pb2,
    token_metrics_service_pb2_grpc,
)
from localplane_server.models.catalog import ModelCatalog
from localplane_server.rpc.convert import timestamp
from localplane_server.rpc.pages import page
from localplane_server.rpc.watches import KINDS, place_of, selection
from localplane_server.tokens.accounting import SlotAccount
from localplane_server.tokens.counts import TokenCounts
from localplane_server.tokens.reporting import ModelTokens, TokenReporter
from localplane_server.tokens.token_feed import TokenFeed
from localplane_server.tokens.windows import TokenWindow


class TokenMetricsServicer(token_metrics_service_pb2_grpc.TokenMetricsServiceServicer):
    """Unpacks the request, calls the domain, packs the answer."""

    def __init__(self, reporter: TokenReporter, catalog: ModelCatalog, feed: TokenFeed) -> None:
        self._reporter = reporter
        self._catalog = catalog
        self._feed = feed

    async def GetTokenMetrics(
        self, request: token_metrics_service_pb2.GetTokenMetricsRequest, context: Any
    ) -> token_metrics_pb2.TokenMetrics:
        report = await self._reporter.report(request.model)
        latest = report.latest
        return token_metrics_pb2.TokenMetrics(
            slot_id=latest.slot,
            tokens_per_second=latest.tokens_per_second,
            tokens_generated=latest.tokens_generated,
            prompt_tokens_processed=latest.prompt_tokens_processed,
            model=report.model,
            loaded=report.is_loaded,
            estimated=latest.estimated,
            last_prediction_at=timestamp(latest.last_at),
            slots=[_slot(account) for account in report.slots],
            total=_counts(report.total),
            epoch=timestamp(report.epoch),
        )

    async def ListTokenMetrics(
        self, request: token_metrics_service_pb2.ListTokenMetricsRequest, context: Any
    ) -> token_metrics_service_pb2.ListTokenMetricsResponse:
        shown, token = page(
            self._reporter.models(),
            lambda tokens: tokens.model,
            request.page_size,
            request.page_token,
        )
        return token_metrics_service_pb2.ListTokenMetricsResponse(
            models=[_model(tokens) for tokens in shown],
            epoch=timestamp(self._reporter.epoch),
            next_page_token=token,
        )

    async def WatchTokenMetrics(
        self, request: token_metrics_service_pb2.WatchTokenMetricsRequest, context: Any
    ) -> AsyncGenerator[token_metrics_service_pb2.WatchTokenMetricsResponse]:
        select = selection(request.models, self._catalog)
        async with aclosing(self._feed.watch(place_of(request, context), select=select)) as batches:
            async for batch in batches:
                yield token_metrics_service_pb2.WatchTokenMetricsResponse(
                    revision=str(batch.revision),
                    kind=KINDS[batch.kind],
                    models=[_model(tokens) for tokens in batch.changed.values()],
                    epoch=timestamp(self._reporter.epoch),
                )


def _slot(account: SlotAccount) -> token_metrics_pb2.TokenSlot:
    return token_metrics_pb2.TokenSlot(
        slot_id=account.slot,
        tokens_per_second=account.tokens_per_second,
        tokens_generated=account.tokens_generated,
        prompt_tokens_processed=account.prompt_tokens_processed,
        estimated=account.estimated,
        last_prediction_at=timestamp(account.last_at),
        total=_counts(account.total),
    )


def _model(tokens: ModelTokens) -> token_metrics_pb2.ModelTokenMetrics:
    minute, five_minutes, hour = (_window(window) for window in tokens.windows)
    return token_metrics_pb2.ModelTokenMetrics(
        model=tokens.model,
        loaded=tokens.is_loaded,
        last_minute=minute,
        last_five_minutes=five_minutes,
        last_hour=hour,
        total=_counts(tokens.total),
    )


def _window(window: TokenWindow) -> token_metrics_pb2.TokenWindow:
    return token_metrics_pb2.TokenWindow(
        seconds=window.seconds,
        counts=_counts(window.counts),
        prompt_tokens_per_second=window.prompt_tokens_per_second,
        completion_tokens_per_second=window.completion_tokens_per_second,
    )


def _counts(counts: TokenCounts) -> token_metrics_pb2.TokenCounts:
    return token_metrics_pb2.TokenCounts(
        total_tokens=counts.prompt_tokens + counts.completion_tokens, **asdict(counts)
    )
