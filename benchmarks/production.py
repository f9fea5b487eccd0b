"""Production's shape: replicas behind the project's nginx, their Redis and PostgreSQL behind a delaying proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import others
from benchmarks.edge import nginx
from benchmarks.load import Shot
from benchmarks.processes import postgres_server, redis_server
from benchmarks.proxy import proxied
from benchmarks.servers import Server, Setup, Shots, slipway, unaudited
from benchmarks.upstream import Wish

Start = Callable[[Path, int, Setup], AbstractContextManager[Server]]
URL = "postgresql://bench@127.0.0.1:{}/postgres"
AWAY = 1.0  # milliseconds that an answer of Redis or PostgreSQL comes later


def replicated(start: Start, *parts: str) -> Start:
    """Make a start of `setup.replicas` over what of Redis and PostgreSQL it uses, each a server of its own."""

    @contextmanager
    def run(folder: Path, upstream: int, setup: Setup) -> Iterator[Server]:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            real = {}
            if "redis" in parts:
                real["redis"] = stack.enter_context(redis_server(folder / "redis"))
            if "postgres" in parts:
                real["postgres"] = stack.enter_context(postgres_server(folder / "postgres"))
            proxy = stack.enter_context(
                proxied(folder, {part: port for part, (port, _) in real.items()}, AWAY)
            )
            url = f"postgresql://bench@127.0.0.1:{proxy.ports.get('postgres')}/postgres"
            own = replace(
                setup, redis=proxy.ports.get("redis", 0), database=url if "postgres" in parts else ""
            )
            homes = [folder / f"replica-{number}" for number in range(setup.replicas)]
            for home in homes:
                home.mkdir(exist_ok=True)
            replicas = [stack.enter_context(start(home, upstream, own)) for home in homes]
            port, edge = stack.enter_context(nginx(folder / "nginx", [one.port for one in replicas]))
            first, *rest = replicas
            yield replace(
                first,
                port=port,
                shot=_moved(first.shot, port),
                alone=_moved(first.alone, port) if first.alone else None,
                more_pids=[*(one.child.pid for one in rest), edge.pid],
                redis_pid=real["redis"][1] if "redis" in real else 0,
                database_pid=real["postgres"][1] if "postgres" in real else 0,
                database=URL.format(real["postgres"][0]) if "postgres" in real else "",
                proxy=proxy,
            )

    return run


def _moved(shots: Shots, port: int) -> Shots:
    def shot(kind: str, wish: Wish) -> Shot:
        return replace(shots(kind, wish), port=port)

    return shot


STARTS: dict[str, Start] = {
    "slipway": replicated(slipway, "redis", "postgres"),
    "unaudited": replicated(unaudited, "redis", "postgres"),
    "fastapi": replicated(others.fastapi, "redis"),
    "fastapi-rows": replicated(others.fastapi, "redis", "postgres"),
    "litellm": replicated(others.litellm, "redis"),
    "agno": replicated(others.agno, "postgres"),
}
