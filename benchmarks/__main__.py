"""`make bench`: what one request costs Slipway in CPU time of all its processes, beside the same call without it.

Everything is on, as users run it: sign-in, limits, cache, holds, kept steps, metrics and a log line per request.
Loopback only, bounded by `--requests`, ends by itself. The ratio to the call without any service is the steady
figure: both are measured in turn in one run. Peers (FastAPI, LiteLLM, Agno) are not measured here yet.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from service.llm.claude import ClaudeClient
from service.llm.client import ModelCall, ModelRequest
from tests.conftest import Model, Slipway, model_server, redis_in, slipway_server

CLIENTS = 8  # at once
ROUNDS = 3  # each case is measured so often, in turn with the others
DELTAS = "[offline tokens=100] "  # a stream of a hundred pieces
TICK = os.sysconf("SC_CLK_TCK")


def cpu_ms(pids: list[int]) -> float:
    """CPU time of processes so far, in milliseconds."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) * 1000 / TICK


class Cases:
    """One request of each kind; a number makes its question new."""

    def __init__(self, server: Slipway, model: Model) -> None:
        self._http = server.client()
        self._claude = ClaudeClient("", model.url, 30, 3, 64)

    def invoke(self, number: int) -> None:
        self._post("invoke", {"input": f"Question {number}", "cache": "bypass"})

    def hit(self, _: int) -> None:
        self._post("invoke", {"input": "The same question"})

    def stream(self, number: int) -> None:
        self._post("stream", {"input": f"{DELTAS}Question {number}", "cache": "bypass"})

    def bare(self, number: int) -> None:
        messages = [{"role": "user", "content": f"Question {number}"}]
        request = ModelRequest("claude-haiku-5-5", messages, max_tokens=1024)
        for _ in self._claude.create(request, ModelCall(time.monotonic() + 30)):
            pass

    def close(self) -> None:
        self._http.close()
        self._claude.close()

    def _post(self, door: str, body: dict[str, str]) -> None:
        answer = self._http.post(f"/v1/agents/assistant/{door}", json=body)
        if answer.status_code != 200 or (door == "stream" and "run.completed" not in answer.text):
            raise RuntimeError(f"{door} answered {answer.status_code}: {answer.text[:200]}")


def measure(case: Callable[[int], None], pids: list[int], requests: int, numbers: Iterator[int]) -> float:
    """CPU milliseconds of `pids` per request."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(case, itertools.islice(numbers, CLIENTS)))  # warm
        before = cpu_ms(pids)
        list(pool.map(case, itertools.islice(numbers, requests)))
        return (cpu_ms(pids) - before) / requests


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--requests", type=int, default=400, help="requests of each kind in each round")
    requests = min(parser.parse_args().requests, 5_000)
    settings = {"WEB_CONCURRENCY": "2", "THREADS": "16", "LIMIT_RUNS": "1000000/minute"}
    with (
        tempfile.TemporaryDirectory(prefix="slb") as folder,
        redis_in(Path(folder) / "redis") as redis,
        model_server() as model,
        slipway_server(Path(folder) / "home", redis.url, model.url, **settings) as server,
    ):
        report(server, model, requests)


def report(server: Slipway, model: Model, requests: int) -> None:
    cases = Cases(server, model)
    numbers = itertools.count()
    workers, own = server.workers(), [os.getpid()]
    figures: dict[str, list[float]] = {"bare": [], "invoke": [], "hit": [], "stream": []}
    try:
        for round_number in range(ROUNDS):
            for name, found in figures.items():
                print(f"\rround {round_number + 1} of {ROUNDS}: {name:8}", end="", flush=True)
                found.append(
                    measure(getattr(cases, name), own if name == "bare" else workers, requests, numbers)
                )
    finally:
        cases.close()
    print(f"\r{'':40}\rCPU ms per request, median of {ROUNDS} rounds of {requests}; spread in brackets")
    bare = statistics.median(figures["bare"])
    for name, found in figures.items():
        median = statistics.median(found)
        print(
            f"  {name:8} {median:6.2f}  [{min(found):.2f} – {max(found):.2f}]   {median / bare:5.2f} × the bare call"
        )


if __name__ == "__main__":
    try:
        main()
    except httpx2.HTTPError as error:
        raise SystemExit(f"the benchmark could not go on: {error!r}") from None
