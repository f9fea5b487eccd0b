"""An agent served alone before the real gateway: ledger rows, caps, kept calls and ends are those of its run."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from service.store.schema import ledger
from service.types import Run
from service.usage.ledger import check
from tests.agent_server import house
from tests.agent_server.house import Piece, asks
from tests.agent_server.room import CALL, QUESTION, TABLE
from tests.conftest import ROOT, RedisServer, children_of, wait_until
from tests.gateway.house import Gateway, gateway
from tests.messages_api.asked import Asked, Said
from tests.runs import inside
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
AGENTS = ("research", "writer")


class Script:
    """Model that answers by what it is asked; while `waits` is set, it does so only once `go_on` is."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.waits = False
        self.go_on = threading.Event()

    def __call__(self, asked: Asked) -> Said:
        self.asked.append(asked.prompt)
        if self.waits and len(self.asked) % 2 == 0:  # the second call of `research`
            self.go_on.wait(30)
        return Said([{"type": "text", "text": f"Blocks, by {len(asked.prompt)} characters."}])


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    """Agents whose prompts have no marker, as those of agents served alone have none: it costs tokens."""
    for name in AGENTS:
        shutil.copytree(ROOT / "agents" / name, tmp_path / "agents" / name)
        with (tmp_path / "agents" / name / "agent.yaml").open("a") as spec:
            spec.write("\nprompt_secret: false\n")
    return tmp_path / "agents"


@pytest.fixture
def door(
    tmp_path: Path, redis_server: RedisServer, url: str, script: Script, agents: Path
) -> Iterator[Gateway]:
    with gateway(tmp_path, redis_server.url, script, database_url=url, agents_dir=agents) as opened:
        yield opened


@pytest.fixture
def pieces(tmp_path: Path, agents: Path) -> Iterator[Piece]:
    with house.served(tmp_path / "pieces.log", [agents / name for name in AGENTS]) as running:
        yield running


def body(door: Gateway, run: Run) -> dict[str, Any]:
    return asks(door.url, QUESTION, run_id=run.id, attempt=run.attempt, run_token=door.token(run))


def calls(door: Gateway, run: Run) -> Counter[tuple[Any, ...]]:
    """Return the ledger's rows of a run's model calls, without ids and times."""
    rows = sa.select(*(ledger.c[name] for name in CALL)).where(
        ledger.c.account == "upstream", ledger.c.kind == "settle", ledger.c.run_id == run.id
    )
    return Counter(tuple(row.values()) for row in door.services.infra.db.query(lambda tx: tx.rows(rows)))


def assert_books_balance(door: Gateway) -> None:
    checked = check(door.services.infra.db, TABLE)
    assert (checked.faults, checked.held) == ([], 0)


@pytest.mark.parametrize("agent", AGENTS)
def test_ledger_has_the_rows_of_the_same_agent_in_slipway(door: Gateway, pieces: Piece, agent: str) -> None:
    one = inside.ask(door.services, QUESTION, agent=agent, cache="bypass")
    assert one.result is not None and one.status == "succeeded", one.error
    run = door.run(agent=agent)
    answer = pieces.ask(agent, **body(door, run)).json()
    assert (answer["status"], answer["output"]) == ("succeeded", one.result["output"])
    assert calls(door, run) == calls(door, one) != Counter()
    assert_books_balance(door)


def test_streamed_answer_costs_the_same(door: Gateway, pieces: Piece) -> None:
    one, run = (
        inside.ask(door.services, QUESTION, agent="research", cache="bypass"),
        door.run(agent="research"),
    )
    assert pieces.events("research", **body(door, run))[-1][0] == "run.completed"
    assert calls(door, run) == calls(door, one) != Counter()


def test_cap_stops_all_pieces_together(
    tmp_path: Path, redis_server: RedisServer, url: str, script: Script, pieces: Piece
) -> None:
    cap = "0.001600"
    with gateway(
        tmp_path,
        redis_server.url,
        script,
        database_url=url,
        agents_dir=ROOT / "agents",
        budget_user_day_usd=cap,
    ) as door:
        runs = [door.run(agent=AGENTS[number % 2]) for number in range(18)]
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda run: pieces.ask(run.agent, **body(door, run)).json(), runs))
        codes = {answer.get("error", {}).get("code") for answer in answers}
        assert "budget_exceeded" in codes and codes <= {None, "budget_exceeded"}
        assert 0 < door.spent <= float(cap) * 1e9 and door.held == 0
        assert_books_balance(door)


def test_next_attempt_pays_for_no_call_that_is_kept(door: Gateway, pieces: Piece, script: Script) -> None:
    run = door.run(agent="research")
    first = pieces.events("research", **body(door, run))
    asked, rows = len(script.asked), calls(door, run)
    again = pieces.events("research", **body(door, door.again(run)))
    assert again[-1][1]["output"] == first[-1][1]["output"]
    assert (len(script.asked), calls(door, run)) == (asked, rows)


def test_piece_that_is_killed_in_mid_answer_pays_once_for_what_is_kept(
    door: Gateway, pieces: Piece, script: Script
) -> None:
    script.waits = True
    run = door.run(agent="research")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(pieces.events, "research", **body(door, run))
        wait_until(lambda: len(script.asked) == 2, "the second call")
        (worker,) = children_of(pieces.child.pid)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(httpx2.HTTPError):
            answer.result(20)
    script.waits = False
    script.go_on.set()
    wait_until(lambda: door.held == 0, "the settlement of the call that was under way")
    again = door.again(run)
    events = wait_until(lambda: pieces.events("research", **body(door, again)), "the next process")
    assert events[-1][0] == "run.completed"
    assert len(script.asked) == 3  # the plan was kept, and the second call made again
    assert_books_balance(door)


def test_token_of_a_run_that_has_ended_is_the_end(door: Gateway, pieces: Piece, script: Script) -> None:
    run = door.run(agent="writer")
    given = body(door, run)
    door.services.auth.run_tokens.end(given["run_token"])
    answer = pieces.ask("writer", **given).json()
    assert (answer["status"], answer["error"]["code"]) == ("failed", "run_cancelled")
    assert not script.asked
