"""Construction of the model clients: the Messages API, and the same with retries and circuit breakers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from service.infra.backends import Infra
from service.llm.batch import BatchClient
from service.llm.claude import ClaudeClient
from service.llm.client import ModelClient
from service.llm.gateway import GatewayClient
from service.llm.relay import RelayClient
from service.llm.retry import RetryingClient

if TYPE_CHECKING:
    from config.base import Settings

GATEWAY_CONNECTIONS = 4  # of one run, which makes its model calls one after the other
GATEWAY_FAILURES = 5  # calls of one run that fail in a row: further ones are then refused for …
GATEWAY_RECOVERY = 1.0  # … this many seconds


def claude(settings: Settings) -> ClaudeClient:
    """Build the Messages API client without retries, for batches and commands."""
    return ClaudeClient(
        settings.anthropic_api_key.get_secret_value(),
        settings.anthropic_base_url,
        settings.model_timeout,
        settings.model_connect_timeout,
        settings.model_max_connections,
    )


def gateway(base_url: str, run_token: str, timeout: float, connect_timeout: float) -> GatewayClient:
    """Build the client of one run, whose calls another Slipway makes, holds and settles.

    That one retries what the model refuses; here one retry is for a replica that is lost. `timeout` and
    `connect_timeout` are in seconds, as of `ClaudeClient`.
    """
    calls = ClaudeClient(run_token, base_url, timeout, connect_timeout, GATEWAY_CONNECTIONS)
    return GatewayClient(RetryingClient(calls, 1, GATEWAY_FAILURES, GATEWAY_RECOVERY, lambda attempt: None))


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
