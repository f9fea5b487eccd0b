"""How Slipway's figures change with workers, with kept runs and with users, in production's shape."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.fill import fill
from benchmarks.measure import Ask
from benchmarks.production import AWAY, STARTS
from benchmarks.runner import Run
from benchmarks.servers import Server, Setup, callers, slipway_shots
from benchmarks.shots import AT_ONCE, STREAM, ideal_seconds

ROUNDS = 4
FEW, MANY = 10_000, 1_000_000  # kept runs
SMALL = 100  # streams at once
FEW_USERS, MANY_USERS = 100, 10_000  # a hundred ask often enough and stay within the default limits


@dataclass(frozen=True)
class Size:
    """What is compared, as a number, and what makes it so."""

    number: int
    workers: int = 2
    runs: int = 0
    users: int = 0


def growth(run: Run) -> None:
    if "slipway" not in run.names:
        return
    run.fleet.stop()
    run.begin("H", "growth: 1, 2 and 4 workers")
    _compare(run, "workers", [Size(n, workers=n) for n in (1, 2, 4)], _all)
    few, many = run.count(FEW), run.count(MANY)
    run.begin("H", f"growth: {few:,} and {many:,} kept runs (the database is filled first)")
    _compare(run, "runs", [Size(n, runs=n, users=FEW_USERS) for n in (few, many)], _all)
    run.begin("H", f"growth: {FEW_USERS} and {MANY_USERS:,} users")
    _compare(run, "users", [Size(n, users=n) for n in (FEW_USERS, MANY_USERS)], _single)


def _all(run: Run) -> dict[str, Ask]:
    clients = run.count(SMALL)
    spread = ideal_seconds(STREAM, True)
    return {**_single(run), "D100": Ask("stream", STREAM, clients, 2 * clients, spread=spread, delay=AWAY)}


def _single(run: Run) -> dict[str, Ask]:
    return {
        "A": Ask("invoke", AT_ONCE, 16, run.count(800), delay=AWAY),
        "B": Ask("hit", AT_ONCE, 16, run.count(1_600), delay=AWAY),
    }


def _compare(run: Run, what: str, sizes: list[Size], asks: Callable[[Run], dict[str, Ask]]) -> None:
    """Several Slipways at the same time, each of its own size, measured in turn."""
    folder = run.fleet.folder / "growth"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        servers = [stack.enter_context(_grown(run, folder / f"{what}-{one.number}", one)) for one in sizes]
        named = [
            replace(server, name=f"{what} {one.number}") for server, one in zip(servers, sizes, strict=True)
        ]
        for number in range(ROUNDS):
            for case, ask in asks(run).items():
                for server in named:
                    if run.late(f"H{case}", server.name):
                        return
                    run.measure(f"H{case}", server, number, ask)


@contextmanager
def _grown(run: Run, home: Path, size: Size) -> Iterator[Server]:
    """One replica behind nginx over a database of that size."""
    bench = run.fleet.bench
    with STARTS["slipway"](home, bench.port, Setup(size.workers, replicas=1)) as server:
        if not (size.runs or size.users):
            yield server
            return
        bench.shoot(server, Ask("invoke", AT_ONCE, 1, 1))
        fill(server.database, size.runs, size.users)
        print(f"  filled with {size.runs:,} runs and {size.users:,} users", flush=True)
        server = replace(server, shot=slipway_shots(server.port, callers(size.users)))
        # Each user's first question of a day costs more, and hits nothing.
        bench.shoot(server, Ask("hit", AT_ONCE, 16, size.users, limit=180))
        yield server
