"""Construction of the model clients: the Messages API, and the same with retries and circuit breakers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from service.infra.backends import Infra
from service.infra.places import Places
from service.llm.batch import BatchClient, NoBatches
from service.llm.breaker import BreakerState
from service.llm.chat_completions import ChatCompletionsClient
from service.llm.claude import ClaudeClient, GatewayUpstream
from service.llm.client import ModelClient
from service.llm.embeddings import HttpEmbedder
from service.llm.fallback import FallbackClient
from service.llm.gateway import GatewayClient
from service.llm.messages_client import MessagesClient
from service.llm.platforms import BedrockClient, PlatformClient
from service.llm.relay import RelayClient, RelayRouter
from service.llm.retry import Provider, RetryingClient
from service.llm.sdk import bedrock, mantle, vertex

if TYPE_CHECKING:
    from config.base import Settings

OPENAI = "openai"
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


def embedder(settings: Settings) -> HttpEmbedder | None:
    """Build the client of the embedding endpoint of knowledge, if one is set."""
    if not settings.knowledge_embeddings_url:
        return None
    key = settings.knowledge_embeddings_key.get_secret_value()
    return HttpEmbedder(settings.knowledge_embeddings_url, key, settings.knowledge_embeddings_model)


def gateway(base_url: str, run_token: str, timeout: float, connect_timeout: float) -> GatewayClient:
    """Build the client of one run, whose calls another Slipway makes, holds and settles.

    That one retries what the model refuses; here one retry is for a replica that is lost. `timeout` and
    `connect_timeout` are in seconds, as of `ClaudeClient`.
    """
    calls = GatewayUpstream(run_token, base_url, timeout, connect_timeout, GATEWAY_CONNECTIONS)
    return GatewayClient(RetryingClient(calls, 1, GATEWAY_FAILURES, GATEWAY_RECOVERY, lambda attempt: None))


class ModelClients(NamedTuple):
    """Clients of one process: `calls` for the model calls of runs, `batches` for the provider's batches."""

    calls: ModelClient
    batches: BatchClient
    breakers: Callable[[], list[BreakerState]]
    relay: ModelClient  # for calls that remote agents have written, see `RelayClient`
    connections: Callable[[], tuple[int, int]]  # number in use, and the most of them


def build(settings: Settings, infra: Infra) -> ModelClients:
    """Build the model clients of this process: of each provider, in the order in which they are asked."""
    names = settings.providers
    upstreams = [PROVIDERS[name](settings) for name in names]
    retrying = [
        _retrying(settings, infra, client, Provider(name, has_next=name != names[-1]))
        for name, client in zip(names, upstreams, strict=True)
    ]
    relays = [one.around(RelayClient(client)) for one, client in zip(retrying, upstreams, strict=True)]
    calls, openai = FallbackClient(retrying), _chat_completions(settings)
    chat = None if openai is None else _retrying(settings, infra, openai, Provider(OPENAI))
    batches = next((client for client in upstreams if isinstance(client, ClaudeClient)), None)

    def breakers() -> list[BreakerState]:
        return [*calls.breakers(), *(chat.breakers() if chat is not None else ())]

    relay = RelayRouter(FallbackClient(relays), chat)
    places = [client.places for client in (*upstreams, openai) if client is not None]
    connections = partial(_connections, places)
    return ModelClients(calls, batches or NoBatches(), breakers, relay, connections)


def _connections(places: Sequence[Places]) -> tuple[int, int]:
    return sum(each.used for each in places), sum(each.size for each in places)


def _retrying(settings: Settings, infra: Infra, client: ModelClient, provider: Provider) -> RetryingClient:
    failures, recovery = settings.breaker_failures, settings.breaker_recovery
    observed = infra.observer.attempt
    return RetryingClient(client, settings.model_retries, failures, recovery, observed, provider)


def _chat_completions(settings: Settings) -> ChatCompletionsClient | None:
    if not settings.openai_url:
        return None
    return ChatCompletionsClient(
        settings.openai_url,
        settings.openai_api_key.get_secret_value(),
        settings.model_timeout,
        settings.model_connect_timeout,
        settings.model_max_connections,
    )


def _bedrock(settings: Settings) -> BedrockClient:
    return BedrockClient(
        bedrock(settings.aws_region, settings.anthropic_bedrock_base_url),
        settings.bedrock_ids,
        settings.model_timeout,
        settings.model_connect_timeout,
        settings.model_max_connections,
        default_id="anthropic.{}",
    )


def _mantle(settings: Settings) -> PlatformClient:
    return PlatformClient(
        mantle(settings.aws_region, settings.anthropic_bedrock_mantle_base_url),
        settings.mantle_ids,
        settings.model_timeout,
        settings.model_connect_timeout,
        settings.model_max_connections,
        default_id="anthropic.{}",
    )


def _vertex(settings: Settings) -> PlatformClient:
    project, url = settings.anthropic_vertex_project_id, settings.anthropic_vertex_base_url
    return PlatformClient(
        vertex(settings.cloud_ml_region, project, url),
        settings.vertex_ids,
        settings.model_timeout,
        settings.model_connect_timeout,
        settings.model_max_connections,
    )


# Equal to those of `config/providers.py`, which tests/llm/test_build.py verifies.
PROVIDERS: Mapping[str, Callable[[Settings], MessagesClient]] = {
    "anthropic": claude,
    "bedrock": _bedrock,
    "mantle": _mantle,
    "vertex": _vertex,
}
