"""What is measured once per server: its start, its memory, what it does when a client or a worker goes."""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from benchmarks.fleet import title
from benchmarks.load import Shot
from benchmarks.measure import BARE, Ask
from benchmarks.processes import Failed, cpu_seconds, pss_kib, tree
from benchmarks.runner import Run
from benchmarks.servers import Server, Setup, slipway_shots
from benchmarks.shots import AT_ONCE, ideal_seconds
from benchmarks.upstream import Wish

STARTS = 2
OPEN = 200  # streams that are open while memory is looked at
LONG_STREAM = Wish(deltas=60, every=100, first=100)
LEAVES = 8  # clients that go away, one after the other
PAUSED_STREAM = Wish(deltas=60, every=250, first=100)
CUT = 24  # streams under way when a worker is killed
CUT_STREAM = Wish(deltas=40, every=100, first=100)
PATIENCE = 60.0  # seconds until a stream counts as lost
RUN_ID = re.compile(rb"\bid: (run_\w+):(\d+)")


def _named(run: Run, case: str) -> Iterator[str]:
    """Who is measured, one after the other, while there is time."""
    return (name for name in run.names if name != BARE and not run.late(case, name))


def start_and_memory(run: Run) -> None:
    run.begin("E", "start, memory, memory per open stream")
    for name in _named(run, "E"):
        try:
            _one_memory(run, name)
        except Exception as error:
            run.note("E", name, "fault", str(error) if isinstance(error, Failed) else repr(error))
        run.fleet.stop(name)


def _one_memory(run: Run, name: str) -> None:
    starts = []
    for _ in range(STARTS):
        run.fleet.stop(name)
        server = run.fleet.get(name, Setup())
        starts.append(server.started)
    run.note("E", name, "start_s", starts)
    time.sleep(3)
    run.note("E", name, "idle_mib", _mib(server))
    run.fleet.bench.shoot(server, Ask("invoke", AT_ONCE, 16, run.count(400)))
    run.fleet.bench.shoot(server, Ask("stream", AT_ONCE, 16, 32))
    loaded = _mib(server)
    run.note("E", name, "loaded_mib", loaded)
    clients, seen = run.count(OPEN), [0.0]
    timer = threading.Timer(4.0, lambda: seen.__setitem__(0, _mib(server)))
    timer.start()
    ask = Ask("stream", LONG_STREAM, clients, clients, spread=2.0, limit=60)
    result = run.fleet.bench.shoot(server, ask)
    timer.join()
    run.note("E", name, "open_stream_kib", (seen[0] - loaded) * 1024 / clients)
    run.note("E", name, "open_stream_errors", dict(result.errors))
    found = run.found["E"][name]
    print(
        f"  {title(name):21} start {statistics.median(starts):5.1f} s  idle {found['idle_mib']:5.0f} MiB"
        f"  loaded {loaded:5.0f} MiB  per open stream {found['open_stream_kib']:5.0f} KiB",
        flush=True,
    )


def _mib(server: Server) -> float:
    return sum(pss_kib(pid) for pid in server.pids) / 1024


# --- a client goes ------------------------------------------------------------------------------------------


def client_gone(run: Run) -> None:
    run.begin("F", "client gone: until the model call is closed; a delta every 250 ms")
    for name in _named(run, "F"):
        try:
            server = run.fleet.get(name, Setup())
            shot = _cancelling(server).shot("stream", PAUSED_STREAM)
            waits = [_leave(run, shot) for _ in range(run.count(LEAVES))]
        except Exception as error:
            run.note("F", name, "fault", str(error) if isinstance(error, Failed) else repr(error))
            continue
        run.note("F", name, "seconds", waits)
        print(
            f"  {title(name):21} median {statistics.median(waits):.2f} s, longest {max(waits):.2f} s",
            flush=True,
        )


def _cancelling(server: Server) -> Server:
    """Slipway goes on when a client leaves, unless it is asked to cancel; the others have no choice."""
    if server.is_slipway:
        server.shot = slipway_shots(server.port, server.headers, on_disconnect="cancel")
    return server


def _leave(run: Run, shot: Shot) -> float:
    """Seconds from closing the connection after the first token until the upstream's connection closed."""
    before = run.fleet.bench.stats()["left"]
    with socket.create_connection(("127.0.0.1", shot.port), 5) as client:
        client.settimeout(20)
        client.sendall(shot.request(run.fleet.bench.numbers(1)))
        seen = b""
        while shot.first not in seen:
            data = client.recv(65_536)
            if not data:
                raise Failed(f"the stream ended before its first token: {seen[:80]!r}")
            seen += data
    went = time.monotonic()
    while time.monotonic() - went < PATIENCE:
        left = run.fleet.bench.stats()["left"]
        if len(left) > len(before):
            return float(left[-1] - went)
        time.sleep(0.02)
    return PATIENCE


# --- a worker is killed -------------------------------------------------------------------------------------


def worker_killed(run: Run) -> None:
    run.begin(
        "G", f"kill -9 of one worker of two under {CUT} streams: until every client has its whole answer"
    )
    for name in _named(run, "G"):
        try:
            server = run.fleet.get(name, Setup())
            found = _kill_one(run, server)
        except Exception as error:
            run.note("G", name, "fault", str(error) if isinstance(error, Failed) else repr(error))
            continue
        for what, value in found.items():
            run.note("G", name, what, value)
        print(f"  {title(name):21} {found}", flush=True)
        run.fleet.stop(name)


def _kill_one(run: Run, server: Server) -> dict[str, Any]:
    shot = server.shot("stream", CUT_STREAM)
    first = run.fleet.bench.numbers(CUT)
    with ThreadPoolExecutor(CUT) as pool:
        asked = [pool.submit(_whole_answer, server, shot, first + n) for n in range(CUT)]
        time.sleep(ideal_seconds(CUT_STREAM, True) / 2)
        killed = time.monotonic()
        os.kill(_busiest_worker(server), signal.SIGKILL)
        ends = [one.result(PATIENCE * 3) for one in asked]
    cut = [at - killed for at, tries in ends if tries > 1 and at]
    return {
        "cut": sum(tries > 1 for _, tries in ends),
        "lost": sum(not at for at, _ in ends),
        "seconds": round(max(cut), 2) if cut else None,
        "resumed": server.is_slipway,
    }


def _busiest_worker(server: Server) -> int:
    workers = tree(server.child.pid)[1:]
    if not workers:
        raise Failed("it has no worker processes")
    return max(workers, key=cpu_seconds)


def _whole_answer(server: Server, shot: Shot, number: int) -> tuple[float, int]:
    """When the client had all of it (0: never), and how often it had to ask.

    Of Slipway it asks for the rest of its run; the others have to be asked again from the start.
    """
    ends, request, tries, got = time.monotonic() + PATIENCE, shot.request(number), 0, b""
    while time.monotonic() < ends:
        tries += 1
        got += _talk(server.port, request, shot.must)
        if shot.must in got:
            return time.monotonic(), tries
        known = RUN_ID.findall(got)
        if known and server.is_slipway:
            request = _rest_of(server, number, *known[-1])
        time.sleep(0.2)
    return 0.0, tries


def _rest_of(server: Server, number: int, run_id: bytes, seq: bytes) -> bytes:
    """The request for the rest of a run, by the user who asked question `number`: nobody else sees that run."""
    token = server.headers(number)["Authorization"]
    head = f"GET /v1/runs/{run_id.decode()}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {token}\r\n"
    return (
        f"{head}Accept: text/event-stream\r\nLast-Event-ID: {run_id.decode()}:{seq.decode()}\r\n\r\n".encode()
    )


def _talk(port: int, request: bytes, until: bytes) -> bytes:
    """What comes until it ends, or holds `until`."""
    seen = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as client:
        client.settimeout(30)
        client.sendall(request)
        while until not in seen:
            data = client.recv(65_536)
            if not data:
                break
            seen += data
    return seen
