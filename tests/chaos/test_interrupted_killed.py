"""`kill -9` of the worker whose turn is interrupted: that turn ends as cancelled, once, and the new one knows of it."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import sqlalchemy as sa

from service.store.schema import runs
from service.usage.ledger import check
from service.usage.prices import PriceTable
from tests.chaos.streams import LAST
from tests.chaos.test_worker_killed import Reader, kill_workers
from tests.conftest import RedisServer, Slipway, slipway_server, wait_until
from tests.runs.scripted import REACT, Upstream, call, message, says
from tests.runs.test_kept_output import and_then_silence, says_and_calls
from tests.runs.turns import CANCELLED, history_of
from tests.usage.house import House as Books

TOLD = "Half an answer"
TOOLS = '''\
import os
import time

from service.tools import tool


@tool(trusted=True)
def pay(order: str) -> str:
    """Pay for an order."""
    with open(os.environ["TEST_LINES"], "a") as file:
        file.write(order)
    time.sleep(60)
    return "paid"
'''


@dataclass
class Pair:
    """Replicas of one worker each: the turn of the one is interrupted at the other."""

    one: Slipway
    other: Slipway
    upstream: Upstream
    books: Books
    lines: Path


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def standing(request: pytest.FixtureRequest, scratch: Path, own_redis: RedisServer) -> Iterator[Pair]:
    folder = scratch / f"interrupted-{request.param}"
    agent = folder / "agents" / "probe"
    agent.mkdir(parents=True)
    (agent / "agent.yaml").write_text(REACT.replace("[echo, refund, odd]", "[pay]"))
    (agent / "prompt.md").write_text("Be good.")
    (agent / "tools.py").write_text(TOOLS)
    url = f"sqlite:///{folder}/one.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").create("interrupted")
    upstream, lines = Upstream(message(says("As you wish."))), folder / "lines"
    own = {"AGENTS_DIR": str(agent.parent), "TEST_LINES": str(lines), "DATABASE_URL": url}
    own |= {"WEB_CONCURRENCY": "1", "LEASE_SECONDS": "3", "SWEEP_SECONDS": "0.5", "LIMIT_RUNS": "none"}
    with ExitStack() as stack:
        stack.callback(upstream.stop)
        one, other = (
            stack.enter_context(slipway_server(folder / name, own_redis.url, upstream.url, **own))
            for name in ("one", "other")
        )
        books = Books(url.replace("postgresql:", "postgresql+psycopg:"), create=False)
        stack.enter_context(closing(books.db))
        yield Pair(one, other, upstream, books, lines)


@pytest.fixture
def pair(standing: Pair) -> Pair:
    standing.lines.write_text("")
    standing.upstream.script.clear()
    standing.upstream.requests.clear()
    return standing


class Turn(threading.Thread):
    """Client of a streamed turn, which reads on once its worker is lost."""

    def __init__(self, pair: Pair, client: httpx2.Client, session_id: str) -> None:
        super().__init__(daemon=True)
        self.reader = Reader(pair.one, kill_at=-1, client=client)
        self.body = {"input": "Pay order 7.", "session_id": session_id, "cache": "bypass"}
        self.start()

    def run(self) -> None:
        self.reader.read(self.body, agent="probe")

    def has_told(self) -> bool:
        text = [data["text"] for _, name, data in self.reader.events if name == "text.delta"]
        return TOLD in "".join(text)


class Interruption(threading.Thread):
    def __init__(self, client: httpx2.Client, session_id: str) -> None:
        super().__init__(daemon=True)
        body = {"input": "Stop it!", "session_id": session_id, "on_conflict": "interrupt"}
        self.ask = lambda: client.post("/v1/agents/probe/invoke", json=body)
        self.start()

    def run(self) -> None:
        self.answer = self.ask()


def freeze(server: Slipway) -> None:
    """Freeze the workers, so that they do nothing about the cancellation before they are killed."""
    for pid in server.workers():
        os.kill(pid, signal.SIGSTOP)


def is_asked_for(pair: Pair, run_id: str) -> bool:
    asked = sa.select(runs.c.id).where(runs.c.id == run_id, runs.c.cancel_requested)
    return pair.books.db.query(lambda tx: tx.row(asked)) is not None


@pytest.mark.parametrize("moment", ["before", "once it is asked for", "any"])
@pytest.mark.parametrize("within", ["text", "tool"])
def test_interrupted_turn_of_a_killed_worker_is_cancelled_once(pair: Pair, within: str, moment: str) -> None:
    begun = says_and_calls(TOLD, call("pay", {"order": "7"})) if within == "tool" else and_then_silence(TOLD)
    pair.upstream.script.append(begun)
    with pair.one.client() as client, pair.other.client() as other:
        session_id = other.post("/v1/sessions", json={"agent": "probe"}).json()["id"]
        turn = Turn(pair, client, session_id)
        wait_until(turn.has_told, "the text")
        wait_until(lambda: within == "text" or pair.lines.read_text(), "the tool's call")
        if moment == "before":
            kill_workers(pair.one)
        elif moment == "once it is asked for":
            freeze(pair.one)
        interruption = Interruption(other, session_id)
        if moment == "once it is asked for":
            wait_until(lambda: is_asked_for(pair, turn.reader.run_id), "the cancellation")
        if moment != "before":
            threading.Event().wait(random.uniform(0, 0.1))
            kill_workers(pair.one)
        interruption.join(60)
        turn.join(60)
        new = interruption.answer
        assert (new.status_code, new.json()["status"]) == (200, "succeeded"), new.text
        kept = other.get(f"/v1/runs/{turn.reader.run_id}/events", headers={"Accept": "application/json"})
        assert other.get(f"/v1/runs/{turn.reader.run_id}").json()["status"] == "cancelled"
        lasts = [one["event"] for one in kept.json()["data"] if one["event"] in LAST]
        shown = other.get(f"/v1/sessions/{session_id}").json()
    assert lasts == ["run.cancelled"] and turn.reader.events[-1][1] == "run.cancelled"
    seqs = [seq for seq, _, _ in turn.reader.events]
    assert seqs == list(range(1, len(seqs) + 1))
    assert pair.lines.read_text() == ("7" if within == "tool" else "")
    _, last = pair.upstream.requests
    asked, *_, said = history_of(last)
    assert asked[1].startswith('Pay order 7.|<turn status="cancelled">') and said == ("user", "Stop it!")
    if within == "tool":
        assert "Tools called: pay (outcome unknown)." in asked[1]
    else:
        assert asked[1] == f"Pay order 7.|{CANCELLED}"
    assert [one["status"] for one in shown["messages"]][-2:] == ["succeeded", "succeeded"]
    checked = check(pair.books.db, PriceTable.load())
    assert (checked.faults, checked.held) == ([], 0)
