"""Infrastructure of one process, on which every domain is built: database, Redis, metrics, observer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.infra.redis import RedisStore
from service.observe.metrics import Metrics
from service.observe.observer import Observer
from service.observe.tracing import OFF, Tracer

if TYPE_CHECKING:
    from service.store.database import Database


@dataclass(frozen=True, slots=True)
class Infra:
    """Connections and observers that domains share. Nothing is connected before it is used."""

    db: Database
    redis_store: RedisStore
    metrics: Metrics
    observer: Observer
    tracer: Tracer = OFF

    def close(self) -> None:
        self.tracer.close()
        self.redis_store.close()
        self.db.close()
