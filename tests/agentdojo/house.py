"""All parts of the harness: AgentDojo's tool server, the obedient model, Slipway with an agent for each suite."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.agentdojo.agents import write_agents
from tests.agentdojo.model import obedient_model
from tests.agentdojo.pairs import Outcome, Pair, Parts, play
from tests.conftest import ROOT, RedisServer, Slipway, process, slipway_server
from tests.web.people import join

AGENTDOJO = ROOT / ".venv-agentdojo" / "bin" / "python"
AT_ONCE = 12  # pairs
SETTINGS = {
    "WEB_CONCURRENCY": "2",
    "THREADS": "64",
    "LIMIT_RUNS": "none",
    "LIMIT_READS": "none",
    "LIMIT_WRITES": "none",
    "LIMIT_CONCURRENT_RUNS": "none",
    "LEASE_SECONDS": "10",  # those of the tests (2 s) end while a busy machine catches up
    "RUN_TIMEOUT": "300",
    "ACCESS_TOKEN_MINUTES": "60",
}
PROGRESS_SECONDS = 10.0


@dataclass
class House:
    """Parts that run. `suites`: each suite's tools, user tasks and injection tasks."""

    parts: Parts
    suites: dict[str, Any]
    slipway: Slipway

    def play(self, pairs: Sequence[Pair], show: Callable[[str], None] = print) -> list[Outcome]:
        """Play pairs, `AT_ONCE` at a time, and show the progress every ten seconds."""
        began, shown, outcomes = time.monotonic(), time.monotonic(), []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for outcome in pool.map(partial(play, self.parts), pairs):
                outcomes.append(outcome)
                if time.monotonic() - shown > PROGRESS_SECONDS or len(outcomes) == len(pairs):
                    shown = time.monotonic()
                    show(f"{len(outcomes)} of {len(pairs)} pairs after {shown - began:.0f} s")
        return outcomes


@contextmanager
def house(
    home: Path, redis_server: RedisServer, *, protected: bool = True, **settings: str
) -> Iterator[House]:
    """Start all parts; `protected` as in `write_agents`, `settings` are further ones of Slipway.

    Skips the test where AgentDojo is not installed.
    """
    if not AGENTDOJO.exists():
        pytest.skip("AgentDojo is not installed: run scripts/agentdojo.sh")
    with ExitStack() as stack:
        tools, port = stack.enter_context(tool_server())
        suites = tools.post("/suites", json={}).json()
        write_agents(home / "agents", suites, port, protected)
        model_url, model = stack.enter_context(obedient_model())
        chosen = {**SETTINGS, "AGENTS_DIR": str(home / "agents"), **settings}
        slipway = stack.enter_context(slipway_server(home, redis_server.url, model_url, **chosen))
        admin = stack.enter_context(closing(slipway.client()))
        asker, approver = (
            stack.enter_context(_person(slipway, admin, role)) for role in ("user", "operator")
        )
        yield House(Parts(tools, model, asker, approver), suites, slipway)


@contextmanager
def tool_server() -> Iterator[tuple[httpx2.Client, int]]:
    """AgentDojo's tool server as a process of its own Python environment: a client of it, and its port."""
    script = Path(__file__).parent / "server.py"
    with process([str(AGENTDOJO), "-W", "ignore", str(script)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        with child.stdout, _client(f"http://127.0.0.1:{port}") as client:
            yield client, port


@contextmanager
def _person(slipway: Slipway, admin: httpx2.Client, role: str) -> Iterator[httpx2.Client]:
    """Sign a new user in, with a client that does not compare each answer with `/openapi.json`: there are thousands."""
    with closing(join(slipway, admin, role)) as joined, _client(slipway.url) as client:
        client.headers["Authorization"] = joined.headers["Authorization"]
        yield client


def _client(url: str) -> httpx2.Client:
    return httpx2.Client(base_url=url, timeout=120, trust_env=False)


def all_pairs(suites: dict[str, Any]) -> list[Pair]:
    """List all pairs, doors in turn."""
    tasks = [
        (suite, user, injection)
        for suite, told in suites.items()
        for user in told["users"]
        for injection in told["injections"]
    ]
    return _pairs("p", tasks)


def without_injections(suites: dict[str, Any]) -> list[Pair]:
    """List all user tasks, each without an injection."""
    return _pairs("n", [(suite, user, None) for suite, told in suites.items() for user in told["users"]])


def each_injection(suites: dict[str, Any]) -> list[Pair]:
    """List one pair for each injection task, user tasks in turn."""
    tasks = [
        (suite, told["users"][number % len(told["users"])], injection)
        for suite, told in suites.items()
        for number, injection in enumerate(told["injections"])
    ]
    return _pairs("c", tasks)


def _pairs(prefix: str, tasks: Sequence[tuple[str, str, str | None]]) -> list[Pair]:
    doors = ("invoke", "stream")
    return [Pair(f"{prefix}{number}", *task, doors[number % 2]) for number, task in enumerate(tasks)]
