"""`kill -9` of the replica that serves a gateway call, of the run's worker, and of the remote agent itself."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from service.store.database import Database
from service.store.schema import gateway_calls, holds, ledger, runs
from service.usage.ledger import check
from service.usage.prices import PriceTable
from tests.chaos.caller import AGENT, CALLS
from tests.chaos.test_worker_killed import Reader
from tests.conftest import PYTHON, Model, RedisServer, Slipway, free_port, process, slipway_server, wait_until
from tests.examples.slipway_house import selected

KILLS = int(os.environ.get("CHAOS_KILLS", "12"))
TARGETS = ("gateway", "worker", "agent")
EVENTS = 2 + 2 * CALLS  # of such a run before its last model call has ended, at the least


@dataclass
class Trio:
    """`worker` executes the runs, `gateway` serves the model calls of their remote agent, each a replica."""

    database_url: str
    worker: Slipway
    gateway: Slipway
    port: int
    stack: ExitStack
    agent: subprocess.Popen[bytes] | None = None

    def serve_agent(self) -> None:
        command = [PYTHON, "-m", "tests.chaos.caller", str(self.port)]
        child = self.agent = self.stack.enter_context(process(command))
        url = f"http://127.0.0.1:{self.port}/"
        wait_until(lambda: child.poll() is not None or httpx2.get(url).status_code == 200, "the agent")
        assert child.poll() is None

    def kill(self, target: str) -> None:
        """Kill, and see that the agent comes again; workers are started again by Gunicorn."""
        if target == "agent":
            assert self.agent is not None
            self.agent.kill()
            self.agent.wait(60)
            self.serve_agent()
            return
        for pid in (self.gateway if target == "gateway" else self.worker).workers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def selected(self, what: Any) -> list[Any]:
        return selected(self.database_url, what)


@pytest.fixture(params=["sqlite", "postgresql"])
def trio(
    request: pytest.FixtureRequest, own_redis: RedisServer, model: Model, tmp_path: Path
) -> Iterator[Trio]:
    url = f"sqlite:///{tmp_path}/gateway.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").create("gateway")
    port = free_port()
    folder = tmp_path / "agents" / "caller"
    folder.mkdir(parents=True)
    (folder / "agent.yaml").write_text(AGENT.format(port=port))
    (folder / "prompt.md").write_text("You ask.")
    settings = {
        "DATABASE_URL": url,
        "AGENTS_DIR": str(folder.parent),
        "REMOTE_HOSTS": f"127.0.0.1:{port}",
        "THREADS": "12",
        "LIMIT_RUNS": "none",
    }
    with ExitStack() as stack:
        gateway = stack.enter_context(slipway_server(tmp_path / "b", own_redis.url, model.url, **settings))
        own = {**settings, "GATEWAY_URL": gateway.url, "WEB_CONCURRENCY": "2"}
        worker = stack.enter_context(slipway_server(tmp_path / "a", own_redis.url, model.url, **own))
        made = Trio(url, worker, gateway, port, stack)
        made.serve_agent()
        model.reset()
        yield made
        model.reset()


class Killer(Reader):
    """Reader that kills one of three when it has read so many events."""

    def __init__(self, trio: Trio, target: str, kill_at: int) -> None:
        super().__init__(trio.worker, kill_at)
        self._trio, self._target = trio, target

    def kill(self) -> None:
        time.sleep(random.uniform(0, 0.2))
        self._trio.kill(self._target)


def assert_one_whole_answer(reader: Reader, result: dict[str, Any]) -> None:
    assert result["status"] == "succeeded", result.get("error")
    names = Counter(name for _, name, _ in reader.events)
    assert names["run.completed"] == 1 and names["run.failed"] == names["run.cancelled"] == 0
    seqs = [seq for seq, _, _ in reader.events]
    assert seqs == list(range(1, len(seqs) + 1))
    called = [data["call_id"] for _, name, data in reader.events if name == "tool.called"]
    assert len(called) == len(set(called)) == CALLS
    assert len(result["output"].splitlines()) == CALLS


def assert_paid_as_sent(trio: Trio, run_id: str, sent: int) -> None:
    """Check that each request to the model was paid at most once, none that was kept sent again, and nothing held."""
    assert trio.selected(holds) == []
    of_run = ledger.c.run_id == run_id, ledger.c.account == "upstream", ledger.c.kind == "settle"
    paid = [abs(row[0]) for row in trio.selected(sa.select(ledger.c.amount_nano).where(*of_run))]
    assert CALLS <= sum(amount > 0 for amount in paid) <= sent, (paid, sent)
    [(cost,)] = trio.selected(sa.select(runs.c.cost_nano).where(runs.c.id == run_id))
    assert cost == sum(paid)
    calls = trio.selected(sa.select(gateway_calls).where(gateway_calls.c.run_id == run_id))
    assert all(call.told for call in calls if call.state != "open")
    for call in (one for one in calls if one.answer is not None):
        later = [one for one in calls if one.digest == call.digest and one.attempt > call.attempt]
        assert later == [], "a kept call was made again"


def test_killed_parts_of_a_gateway_call_leave_one_whole_answer_and_true_books(
    trio: Trio, model: Model
) -> None:
    model.control(first_token_ms=60, token_ms=6)
    random.seed(int(os.environ.get("SEED", "21")))
    interrupted: Counter[str] = Counter()
    for number in range(KILLS):
        target = TARGETS[number % len(TARGETS)]
        before = model.stats()["calls"]
        reader = Killer(trio, target, random.randint(3, EVENTS))
        result = reader.read({"input": f"number {number}", "cache": "bypass"}, "caller")
        reader.client.close()
        sent = model.stats()["calls"] - before
        assert_one_whole_answer(reader, result)
        assert_paid_as_sent(trio, reader.run_id, sent)
        interrupted[target] += sent > CALLS or any(name == "run.resumed" for _, name, _ in reader.events)
    print(dict(interrupted), f"of {KILLS} kills in all were in the middle of something")
    assert sum(interrupted.values()) > KILLS / 3, interrupted  # else it proves little
    db = Database(trio.database_url, pool_size=2)
    try:
        checked = check(db, PriceTable.load())
    finally:
        db.engine.dispose()
    assert (checked.faults, checked.held) == ([], 0)
