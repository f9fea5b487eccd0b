"""CPU that the audit costs an invoke, in production's shape: `python -m benchmarks.audit_cost`.

Two services, one of which writes no row of the audit, are measured in turn: two replicas behind nginx, PostgreSQL and
Redis a millisecond away. `assistant` calls no tool: such an invoke has no row. `clerk` calls one that changes
something: two rows and their links. A round ends a second after its last answer, when its rows are linked.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import psycopg

from benchmarks.fleet import Fleet, title
from benchmarks.measure import Ask, Figures, many_files
from benchmarks.processes import ROOT, orderly_end
from benchmarks.production import AWAY
from benchmarks.production_cases import SHAPE
from benchmarks.servers import Server
from benchmarks.shots import AT_ONCE
from benchmarks.summary import Ratio, ratio

SERVERS = ("slipway", "unaudited")
KINDS = {"invoke": "assistant, no tool", "act": "clerk, one tool that changes something"}
CLIENTS, WARM, REST = 16, 100, 1.0


def measured(fleet: Fleet, agents: Path, kind: str, rounds: int, requests: int) -> None:
    """Measure one kind of invoke on both services in turn, and print the figures of each and their ratio."""
    servers = {name: fleet.get(name, replace(SHAPE, agents=agents)) for name in SERVERS}
    ask = Ask(kind, AT_ONCE, CLIENTS, requests, delay=AWAY, rest=REST)
    figures: dict[str, list[Figures]] = {name: [] for name in SERVERS}
    before = {name: rows_of(server) for name, server in servers.items()}
    for server in servers.values():
        fleet.bench.shoot(server, replace(ask, requests=WARM))
    for number in range(rounds):
        for name in SERVERS if number % 2 else SERVERS[::-1]:
            figures[name].append(fleet.bench.measure(servers[name], kind, number, ask))
    print(f"{KINDS[kind]}: {rounds} rounds of {requests}, {CLIENTS} clients")
    for name, found in figures.items():
        rows = (rows_of(servers[name]) - before[name]) / (WARM + rounds * requests)
        told = "  ".join(
            f"{part} {statistics.median(getattr(one, part) for one in found):.3f}"
            for part in ("cpu_ms", "database_ms", "redis_ms")
        )
        errors = sum(sum(one.errors.values()) for one in found)
        print(f"  {title(name):24} {told}  rows {rows:.2f}  errors {errors}")
    print(f"  with the audit / without: {compared(figures)}")


def compared(figures: dict[str, list[Figures]]) -> Ratio | None:
    """Return the ratio of all CPU of a round, of service, PostgreSQL and Redis, to its neighbour without the audit."""
    both = ([one.cpu_ms + one.database_ms + one.redis_ms for one in figures[name]] for name in SERVERS)
    return ratio(*both)


def rows_of(server: Server) -> int:
    """Count the rows of the audit."""
    with psycopg.connect(server.database) as connection:
        row = connection.execute("SELECT count(*) FROM audit").fetchone()
    return int(row[0]) if row else 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--requests", type=int, default=600, help="of one round")
    asked = parser.parse_args()
    many_files()
    orderly_end()
    with (
        tempfile.TemporaryDirectory(prefix="slb", ignore_cleanup_errors=True) as folder,
        Fleet(Path(folder)) as fleet,
    ):
        agents = Path(folder) / "agents"
        for source in (ROOT / "agents", Path(__file__).parent / "agents"):
            shutil.copytree(source, agents, dirs_exist_ok=True)
        for kind in KINDS:
            measured(fleet, agents, kind, asked.rounds, asked.requests)


if __name__ == "__main__":
    main()
