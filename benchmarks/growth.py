"""How Slipway's figures change with workers, with kept runs and with users."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from benchmarks.fill import fill
from benchmarks.measure import Ask
from benchmarks.runner import Run
from benchmarks.servers import Server, Setup, slipway
from benchmarks.shots import AT_ONCE, STREAM, ideal_seconds

ROUNDS = 4
FEW, MANY = 10_000, 1_000_000  # kept runs
SMALL = 100  # streams at once
FEW_USERS, MANY_USERS = 100, 10_000  # a hundred ask often enough and stay within the default limits


def growth(run: Run) -> None:
    if "slipway" not in run.names:
        return
    run.fleet.stop()
    run.begin("H", "growth: 1, 2 and 4 workers")
    base = Setup()
    _compare(run, "workers", [(str(n), replace(base, workers=n), 0) for n in (1, 2, 4)], _all)
    few, many = run.count(FEW), run.count(MANY)
    run.begin("H", f"growth: {few:,} and {many:,} kept runs (the database is filled first)")
    _compare(run, "runs", [(str(n), replace(base, users=FEW_USERS), n) for n in (few, many)], _all)
    run.begin("H", f"growth: {FEW_USERS} and {MANY_USERS:,} users")
    users = [(str(n), replace(base, users=n), 0) for n in (FEW_USERS, MANY_USERS)]
    _compare(run, "users", users, _single)


def _all(run: Run) -> dict[str, Ask]:
    clients = run.count(SMALL)
    spread = ideal_seconds(STREAM, True)
    return {**_single(run), "D100": Ask("stream", STREAM, clients, 2 * clients, spread=spread)}


def _single(run: Run) -> dict[str, Ask]:
    return {
        "A": Ask("invoke", AT_ONCE, 16, run.count(800)),
        "B": Ask("hit", AT_ONCE, 16, run.count(1_600)),
    }


def _compare(
    run: Run, what: str, setups: list[tuple[str, Setup, int]], asks: Callable[[Run], dict[str, Ask]]
) -> None:
    """Several Slipways at the same time, each of its own size, measured in turn."""
    folder = run.fleet.folder / "growth"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        servers: list[Server] = []
        for label, setup, runs in setups:
            home = folder / f"{what}-{label}"
            if runs or setup.users:
                with slipway(home, run.fleet.bench.port, replace(setup, users=0)) as template:
                    run.fleet.bench.shoot(template, Ask("invoke", AT_ONCE, 1, 1))
                fill(home / "slipway.db", runs, setup.users)
                print(f"  filled with {runs:,} runs and {setup.users:,} users", flush=True)
            server = stack.enter_context(slipway(home, run.fleet.bench.port, setup))
            if setup.users:  # each one's first question of a day costs more, and hits nothing
                run.fleet.bench.shoot(server, Ask("hit", AT_ONCE, 16, setup.users, limit=180))
            servers.append(replace(server, name=f"{what} {label}"))
        for number in range(ROUNDS):
            for case, ask in asks(run).items():
                for server in servers:
                    if run.late(f"H{case}", server.name):
                        return
                    run.measure(f"H{case}", server, number, ask)
