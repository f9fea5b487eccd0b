"""Construction of the model clients: the Messages API, and the same with retries and circuit breakers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from service.infra.backends import Infra
from service.llm.batch import BatchClient
from service.llm.claude import ClaudeClient
from service.llm.client import ModelClient
from service.llm.relay import RelayClient
from service.llm.retry import RetryingClient

if TYPE_CHECKING:
    from config.base import Settings


def claude(settings: Settings) -> ClaudeClient:
    """Build the Messages API client without retries, for batches and commands."""
    return ClaudeClient(
        settings.anthropic_api_key.get_secret_value(),
        settings.anthropic_base_url,
        settings.model_timeout,
        settings.model_connect_timeout,
        settings.model_max_connections,
    )


class ModelClients(NamedTuple):
    """Clients of one process: `calls` for the model calls of runs, `batches` for the provider's batches."""

    calls: ModelClient
    batches: BatchClient
    breakers: Callable[[], list[tuple[str, str, float]]]  # see `RetryingClient.breakers`
    relay: ModelClient  # for calls that remote agents have written, see `RelayClient`


def build(settings: Settings, infra: Infra) -> ModelClients:
    """Build the model clients of this process."""
    upstream = claude(settings)
    failures, recovery = settings.breaker_failures, settings.breaker_recovery
    calls = RetryingClient(upstream, settings.model_retries, failures, recovery, infra.observer.attempt)
    return ModelClients(calls, upstream, calls.breakers, calls.around(RelayClient(upstream)))
