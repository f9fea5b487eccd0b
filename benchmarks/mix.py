"""`make bench-load`: Locust's mix of a working day against production's shape, and what each part of it costs.

Two replicas of two processes behind nginx, PostgreSQL and Redis a millisecond away, as in `make bench`, and a task
worker; the limits of log-ins and writes are raised, since all people come from one address and one admin decides all
approvals. First each kind alone, then all in their shares.
CPU time is of the processes, so that other work on the machine changes it little; times of answers it changes much.
Kept in `benchmarks/results/`, with Locust's own page of the mix; `--write` also writes docs/performance/load.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import httpx2

from benchmarks import mix_page
from benchmarks.fleet import Fleet
from benchmarks.machine import describe
from benchmarks.measure import many_files
from benchmarks.processes import (
    ROOT,
    Failed,
    await_true,
    cpu_seconds,
    free_port,
    orderly_end,
    process,
    pss_kib,
)
from benchmarks.production import AWAY, URL
from benchmarks.production_cases import SHAPE
from benchmarks.servers import ADMIN, Server, slipway_env

RESULTS = Path(__file__).parent / "results"
LOCUSTFILE = Path(__file__).parent / "locustfile.py"
RAISED = {"LIMIT_LOGIN": "100000/minute", "LIMIT_WRITES": "100000/minute"}
# Kinds alone, and how many people at once. A task worker has two processes, each with one task of two seconds.
ALONE = {"sign_in": 2, "invoke": 40, "again": 40, "stream": 40, "task": 4, "approval": 20, "usage": 20}
SPAWN = 10  # people a second
PEOPLE = 40  # signed in
WARM = 10  # seconds of the mix before anything is measured
TASKS = (
    "--quiet",
    "-A",
    "worker",
    "worker",
    "--without-mingle",
    "--without-gossip",
)  # as in docker-compose.yml
GRACE = 30  # seconds for what is under way at the end


@dataclass(frozen=True)
class Line:
    """Line of Locust's statistics. Times in milliseconds."""

    kind: str  # method, or TIME for a time that is no request of its own
    name: str
    count: int
    failures: int
    p50: float
    p95: float
    p99: float


@dataclass
class Phase:
    """What one run of Locust found, and the CPU seconds of each part meanwhile."""

    tag: str  # empty: all kinds in their shares
    people: int
    seconds: float
    lines: list[Line]
    cpu: dict[str, float]
    memory_mib: dict[str, float]  # at its end
    load1: float  # the machine's load average before it
    samples: list[dict[str, float]] = field(default_factory=list)  # each two seconds


def locust(host: str, folder: Path, people: int, seconds: int, *more: str) -> list[Line]:
    """Run the locustfile without its page; Locust's report is then in `folder`. Raises `Failed` when it cannot run."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", host]
    command += ["--users", str(people), "--spawn-rate", str(SPAWN), "--run-time", f"{seconds}s"]
    command += ["--stop-timeout", str(GRACE)]
    command += [
        "--html",
        str(folder / "locust.html"),
        "--json-file",
        str(folder / "locust"),
        "--only-summary",
        "--exit-code-on-error",
        "0",
        *more,
    ]
    limit = seconds + people / SPAWN + 2 * GRACE + 30
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False, env=_env()
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"Locust did not end within {limit:.0f} s") from None
    (folder / "locust.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise Failed(f"Locust ended with {done.returncode}: {done.stderr[-400:]}")
    return statistics(folder / "locust.json")


def _env() -> dict[str, str]:
    """Return the environment without settings of Locust's own, which would change the run."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}


def statistics(path: Path) -> list[Line]:
    """Read Locust's statistics of its end: those that it writes as CSV may lack the last second."""
    return [
        Line(
            one["method"],
            one["name"],
            one["num_requests"],
            one["num_failures"],
            *(_quantile(one["response_times"], share) for share in (0.5, 0.95, 0.99)),
        )
        for one in json.loads(path.read_text())
    ]


def _quantile(counts: dict[str, int], share: float) -> float:
    """Return the time that `share` of the requests do not pass; `counts` has how often each time was."""
    left = share * sum(counts.values())
    for time_ms, count in sorted((float(time_ms), count) for time_ms, count in counts.items()):
        left -= count
        if left <= 0:
            return time_ms
    return 0.0


@dataclass(frozen=True)
class House:
    """What runs: replicas and all they stand on, and a task worker."""

    server: Server
    worker: int  # pid

    def used(self) -> dict[str, float]:
        """Return the CPU seconds of each part so far."""
        *replicas, edge = self.server.pids
        parts = {"replicas": replicas, "task worker": [self.worker], "nginx": [edge]}
        parts |= {"Redis": [self.server.redis_pid], "PostgreSQL": [self.server.database_pid]}
        return {part: sum(cpu_seconds(pid) for pid in pids) for part, pids in parts.items()}

    def memory_mib(self) -> dict[str, float]:
        """Return the proportional set size of a replica and of the task worker."""
        pids = {"replica": self.server.child.pid, "task worker": self.worker}
        return {part: pss_kib(pid) / 1024 for part, pid in pids.items()}

    def share(self, seconds: float = 5.0) -> dict[str, float]:
        """Return the share of a core that each part uses now."""
        before = self.used()
        time.sleep(seconds)
        return {part: (now - before[part]) / seconds for part, now in self.used().items()}


@contextmanager
def house(folder: Path, fleet: Fleet) -> Iterator[House]:
    """Start it, with the project's agents and the benchmark's own."""
    for source in (ROOT / "agents", Path(__file__).parent / "agents"):
        shutil.copytree(source, folder / "agents", dirs_exist_ok=True)
    setup = replace(SHAPE, agents=folder / "agents", people=PEOPLE, settings=RAISED)
    server = fleet.get("slipway", setup)
    proxy = server.proxy
    if proxy is None:
        raise Failed("production's shape has no proxy")
    proxy.tell(delay_ms=AWAY)
    home, log = folder / "tasks", folder / "tasks.log"
    home.mkdir()
    own = replace(setup, database=URL.format(proxy.ports["postgres"]))
    env = slipway_env(home, free_port(), proxy.ports["redis"], fleet.bench.port, own)
    with process([sys.executable, "-m", "celery", *TASKS], log, env) as worker:
        await_true(lambda: _works(server.port), worker, "the task worker", log)
        yield House(server, worker.pid)


def _works(port: int) -> bool:
    ready = httpx2.get(f"http://127.0.0.1:{port}/ready", timeout=10, trust_env=False).json()
    return bool(ready.get("worker", {}).get("status") == "ok")


def sign_in(server: Server, file: Path) -> None:
    """Write who is signed in, the admin first."""
    url = f"http://127.0.0.1:{server.port}/v1/auth/login"
    token = (
        httpx2.post(url, json=ADMIN, timeout=60, trust_env=False).raise_for_status().json()["access_token"]
    )
    people = [{"name": ADMIN["username"], "headers": {"Authorization": f"Bearer {token}"}}]
    for number in range(PEOPLE):
        headers = dict(server.headers(number))
        people.append({"name": f"person-{number + 1}", "password": ADMIN["password"], "headers": headers})
    file.write_text(json.dumps(people))


@contextmanager
def sampled(found: House) -> Iterator[list[dict[str, float]]]:
    """Sample CPU time of each part every two seconds, meanwhile."""
    samples: list[dict[str, float]] = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(2.0):
            samples.append({"at": time.time(), **found.used()})

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join(10)


def phase(found: House, folder: Path, signed_in: Path, tag: str, people: int, seconds: int) -> Phase:
    """Run one phase: a kind alone, or all."""
    folder.mkdir(parents=True)
    options = ["--signed-in", str(signed_in), *(["--tags", tag] if tag else [])]
    load1, before, began = os.getloadavg()[0], found.used(), time.monotonic()
    with sampled(found) as samples:
        lines = locust(f"http://127.0.0.1:{found.server.port}", folder, people, seconds, *options)
    time.sleep(1)  # what is written after an answer
    took = time.monotonic() - began
    cpu = {part: now - before[part] for part, now in found.used().items()}
    failed = sum(line.failures for line in lines)
    told = f"  {tag or 'mix':9} {people:4} people {took:5.0f} s  failures {failed}  CPU {sum(cpu.values()):6.1f} s"
    print(told, flush=True)
    return Phase(tag, people, took, lines, cpu, found.memory_mib(), load1, samples if not tag else [])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mix", description=__doc__)
    parser.add_argument("--people", type=int, default=40, help="of the mix, at once")
    parser.add_argument("--seconds", type=int, default=120, help="of the mix")
    parser.add_argument("--each", type=int, default=20, help="seconds of each kind alone; 0: none")
    parser.add_argument("--write", action="store_true", help="write docs/performance/load.md and its plots")
    asked = parser.parse_args()
    many_files()
    orderly_end()
    machine = describe()
    out = RESULTS / time.strftime("load-%Y%m%d-%H%M%S", time.gmtime())
    out.mkdir(parents=True)
    with (
        tempfile.TemporaryDirectory(prefix="slb", ignore_cleanup_errors=True) as folder,
        Fleet(Path(folder)) as fleet,
        house(Path(folder), fleet) as found,
    ):
        people = Path(folder) / "people.json"
        sign_in(found.server, people)
        phase(found, out / "warm", people, "", PEOPLE, WARM)
        idle = {"memory_mib": found.memory_mib(), "cpu": found.share()}
        kinds = ALONE.items() if asked.each else ()
        phases = [phase(found, out / kind, people, kind, count, asked.each) for kind, count in kinds]
        phases.append(phase(found, out / "mix", people, "", asked.people, asked.seconds))
    kept = {"machine": machine, "idle": idle, "phases": [asdict(one) for one in phases]}
    (out / "found.json").write_text(json.dumps(kept, indent=1))
    print(f"kept in {out}; Locust's page of the mix: {out / 'mix' / 'locust.html'}")
    print(mix_page.page(kept))
    if asked.write:
        mix_page.write(kept, ROOT / "docs" / "performance")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped")
