"""What is measured in production's shape (P): rates, CPU, streams, calls, trips, and the memory of `make run`."""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks import trips
from benchmarks.cases import EACH, stream_ask
from benchmarks.measure import Ask
from benchmarks.processes import (
    answers,
    await_true,
    cpu_seconds,
    free_port,
    own_pss_kib,
    process,
    redis_server,
    tree,
)
from benchmarks.production import AWAY
from benchmarks.proxy import proxied
from benchmarks.runner import Run
from benchmarks.servers import Setup
from benchmarks.shots import AT_ONCE, TWO_SECONDS

SHAPE = Setup(replicas=2, people=8)
INVOKES = {1: 60, 16: 400, 64: 800}  # clients, and how many requests
OURS = ("slipway",)
PLAIN = ("slipway", "fastapi", "fastapi-rows")
SETTLED = 20.0  # seconds until `make run` is idle
LINKS, SECONDS = 256, 3.0  # of the measurement of the proxy alone


def quick(run: Run, rounds: int) -> None:
    """Three cases at 1 ms beside FastAPI, for `make bench-quick`."""
    run.begin("P", "production's shape: cache hit, invoke of one user, 100 streams")
    asks = {"PB64": _hit(run, 1_000), "PA16": _invoke(run, 16), "PD100": stream_ask(run.count(100))}
    _in_turn(run, asks, rounds, _names(run, PLAIN), (AWAY,))
    run.fleet.stop()


def _names(run: Run, wanted: Iterable[str]) -> list[str]:
    """Those of `wanted` that are asked for, and other checkouts; FastAPI is there in both of its kinds."""
    found = [name for name in wanted if name.removesuffix("-rows") in run.names]
    return found + [name for name in run.names if "@" in name]


def _in_turn(
    run: Run, asks: dict[str, Ask], rounds: int, names: list[str], delays: tuple[float, ...]
) -> None:
    """Each round has every case on every server, at every delay: `PA16@1` is case PA16 at 1 ms.

    Other checkouts are not measured at 0 ms.
    """
    for number in range(rounds):
        for case, ask in asks.items():
            for delay in delays:
                for name in (one for one in names if delay or "@" not in one):
                    run.one(f"{case}@{delay:g}", name, number, replace(ask, delay=delay), SHAPE)


def hit(run: Run, rounds: int = 3) -> None:
    run.begin("PB", "production's shape: cache hit, 64 clients")
    _in_turn(run, {"PB64": _hit(run, 2_000)}, rounds, _names(run, PLAIN), (AWAY, 0.0))


def _hit(run: Run, requests: int) -> Ask:
    return Ask("hit", AT_ONCE, 64, run.count(requests), one_user=True)


def invoke(run: Run, rounds: int = 3) -> None:
    run.begin("PA", "production's shape: invoke by 1, 16 and 64 clients of one user")
    asks = {f"PA{clients}": _invoke(run, clients) for clients in INVOKES}
    _in_turn(run, asks, rounds, _names(run, PLAIN), (AWAY, 0.0))


def invoke_of_eight(run: Run, rounds: int = 3) -> None:
    run.begin("PE", "production's shape: invoke by 1, 16 and 64 clients of eight users")
    asks = {f"PE{clients}": _invoke(run, clients, one_user=False) for clients in INVOKES}
    asks["PF64"] = _invoke(run, 64)  # one user again, as the neighbour of eight
    _in_turn(run, asks, rounds, _names(run, OURS), (AWAY,))


def invoke_of_peers(run: Run, rounds: int = 3) -> None:
    run.begin("PG", "production's shape: invoke, 16 clients, beside LiteLLM and Agno")
    _in_turn(run, {"PG16": _invoke(run, 16)}, rounds, _names(run, ("slipway", "litellm", "agno")), (AWAY,))


def _invoke(run: Run, clients: int, one_user: bool = True) -> Ask:
    return Ask("invoke", AT_ONCE, clients, run.count(INVOKES[clients]), one_user=one_user)


def streams(run: Run, levels: tuple[int, ...] = (200, 500), rounds: int = 3) -> None:
    run.begin("PD", "production's shape: streams of 100 deltas, 20 ms apart, the first after 300 ms")
    for level in levels:
        _in_turn(run, {f"PD{level}": stream_ask(run.count(level))}, rounds, _names(run, PLAIN), (AWAY,))


def calls(run: Run, rounds: int = 2) -> None:
    run.begin("PC", "production's shape: 1,000 calls of 2 seconds at once")
    clients = run.count(1_000)
    ask = Ask("invoke", TWO_SECONDS, clients, EACH * clients, spread=2.0, limit=60)
    _in_turn(run, {"PC1000": ask}, rounds, _names(run, PLAIN), (AWAY,))


def count_trips(run: Run) -> None:
    if "slipway" not in run.names:
        return
    run.begin("PT", "production's shape: trips to Redis and PostgreSQL, one process, one request at a time")
    found = trips.count(run.fleet)
    for what, value in found.items():
        run.note("PT", "slipway", what, value)
    print("\n".join(f"  {line}" for line in trips.lines(found)), flush=True)


def make_run(run: Run) -> None:
    """Memory of everything that `make run` starts, idle: by program, and in all."""
    if "slipway" not in run.names:
        return
    run.fleet.stop()
    run.begin("PM", "idle memory of the whole of make run")
    home, port = run.fleet.folder / "make-run", free_port()
    home.mkdir(mode=0o700)
    env = {"APP_ENV": "development", "FLASK_SKIP_DOTENV": "1", "SLIPWAY_HOME": str(home), "PORT": str(port)}
    log = home / "make-run.log"
    with process([sys.executable, "-m", "launcher"], log, env) as child:
        await_true(lambda: answers(port, "/ready"), child, "make run", log)
        time.sleep(SETTLED)
        by_program: dict[str, float] = {}
        for pid in tree(child.pid):
            by_program[_label(pid)] = by_program.get(_label(pid), 0.0) + own_pss_kib(pid) / 1024
        run.note("PM", "slipway", "by_program", by_program)
        run.note("PM", "slipway", "idle_mib", sum(by_program.values()))
    told = ", ".join(f"{name} {mib:.0f}" for name, mib in by_program.items())
    print(f"  {run.found['PM']['slipway']['idle_mib']:.0f} MiB: {told}", flush=True)


def _label(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    known = ("gunicorn", "beat", "celery", "offline_model", "valkey", "redis", "launcher")
    return next((name for name in known if name in words), "other")


def proxy_alone(run: Run) -> None:
    """Trips a second that the proxy carries before a Redis that is asked over many connections at once."""
    run.fleet.stop()
    run.begin("PP", "the proxy alone")
    with ExitStack() as stack:
        port, _ = stack.enter_context(redis_server(run.fleet.folder / "proxy-alone"))
        proxy = stack.enter_context(proxied(run.fleet.folder, {"redis": port}, AWAY))
        address = ("127.0.0.1", proxy.ports["redis"])
        links = [stack.enter_context(socket.create_connection(address, 5)) for _ in range(LINKS)]
        poll, by_number = select.epoll(), {link.fileno(): link for link in links}
        for link in links:
            poll.register(link, select.EPOLLIN)
            link.sendall(b"PING\r\n")
        began, used, ends = proxy.trips()["redis"], cpu_seconds(proxy.pid), time.monotonic() + SECONDS
        while time.monotonic() < ends:
            for number, _ in poll.poll(0.1):
                by_number[number].recv(64)
                by_number[number].sendall(b"PING\r\n")
        found = proxy.trips()["redis"] - began
        run.note("PP", "proxy", "trips", found / SECONDS)
        run.note("PP", "proxy", "cores", (cpu_seconds(proxy.pid) - used) / SECONDS)
    print(f"  {'PP':10} the proxy alone carries {found / SECONDS:,.0f} trips a second", flush=True)
