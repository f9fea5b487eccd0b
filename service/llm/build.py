"""Construction of the model client: the Messages API, wrapped in retries with circuit breakers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.infra.backends import Infra
from service.llm.claude import ClaudeClient
from service.llm.client import ModelClient
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


def build(settings: Settings, infra: Infra, upstream: ClaudeClient) -> ModelClient:
    """Build the model client that runs use, around `upstream`."""
    return RetryingClient(
        upstream,
        settings.model_retries,
        settings.breaker_failures,
        settings.breaker_recovery,
        infra.observer.attempt,
    )
