"""Construction of the answer cache: look-ups by key, by meaning if configured, and single flight."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import redis

from service.cache.answers import AnswerCache
from service.cache.lookup import Lookups
from service.cache.normalise import Normaliser
from service.cache.relayed import RelayedAnswers
from service.cache.semantic import Semantic
from service.cache.single_flight import SingleFlight
from service.embeddings import Embeddings
from service.infra.backends import Infra
from service.llm.embeddings import HttpEmbedder
from service.usage.build import UsageServices

if TYPE_CHECKING:
    from config.base import Settings


def build(
    settings: Settings,
    infra: Infra,
    blocking: redis.Redis,
    documents: Callable[[str], int],
    money: UsageServices,
) -> Lookups:
    """Build answer look-ups. `blocking` is a Redis client for blocking commands.

    `documents`: see `Lookups`.
    """
    answers = _answers(settings, infra, money)
    flights = SingleFlight(infra.redis_store, blocking, answers, settings.run_timeout)
    return Lookups(answers, flights, documents)


def relayed_answers(settings: Settings, infra: Infra) -> RelayedAnswers:
    return RelayedAnswers(infra.redis_store, settings.cache_ttl_seconds if settings.cache_enabled else 0)


def _answers(settings: Settings, infra: Infra, money: UsageServices) -> AnswerCache:
    plain = Normaliser(settings.near_stop_phrases.split(","))
    longest = settings.cache_ttl_seconds if settings.cache_enabled else 0
    if not settings.semantic_cache_url:
        return AnswerCache(infra.redis_store, plain, longest=longest)
    endpoint = HttpEmbedder(
        settings.semantic_cache_url,
        settings.semantic_cache_key.get_secret_value(),
        settings.semantic_cache_model,
    )
    embeddings = Embeddings(endpoint, money.prices, money.impatient, infra.db)
    nearest = Semantic(infra.redis_store, embeddings, settings.semantic_cache_threshold)
    return AnswerCache(infra.redis_store, plain, nearest, longest=longest)
