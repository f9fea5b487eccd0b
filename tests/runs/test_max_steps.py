"""`max_steps`: fewer model calls than the agent may make, whatever its pattern."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.errors import Invalid
from service.store import schema
from service.store.database import Transaction
from service.wiring import Services
from tests.conftest import Model, RedisServer
from tests.llm.wire_server import WireServer
from tests.runs import inside
from tests.runs.scripted import ask, call, calls, holds
from tests.runs.test_kept_output import says_and_calls

ROUTER = """description: A test router.
pattern: router
limits: {steps: 3}
categories:
  one: {description: One}
  two: {description: Two}
"""


@pytest.fixture
def routed(tmp_path: Path, redis_server: RedisServer, model: Model) -> Iterator[Services]:
    for name in ("one", "two"):
        folder = tmp_path / "agents" / "probe" / "knowledge" / name
        folder.mkdir(parents=True)
        (folder / "page.md").write_text(f"# {name}\n\nAll about {name}.\n")
    model.reset()
    with inside.services(tmp_path, redis_server.url, model.url, {"probe": ROUTER}) as wired:
        yield wired


def test_the_last_step_that_was_asked_for_has_to_answer(acting: Services, upstream: WireServer) -> None:
    upstream.script.append(calls(call("echo", {"text": "a"})))
    assert ask(acting, max_steps=2).status == "succeeded"
    choices = [exchange.json.get("tool_choice") for exchange in upstream.requests]
    assert choices == [None, {"type": "none"}]


def test_without_an_answer_by_then_the_run_has_met_its_limit(acting: Services, upstream: WireServer) -> None:
    upstream.script.append(calls(call("echo", {"text": "a"})))
    run = ask(acting, max_steps=1)
    assert (run.status, run.error and run.error["code"]) == ("failed", "run_limit")
    assert (len(upstream.requests), holds(acting)) == (1, 0)


def test_every_pattern_is_bound(routed: Services, model: Model) -> None:
    run = ask(routed, max_steps=1)
    assert (run.status, run.error and run.error["code"]) == ("failed", "run_limit")
    assert model.stats()["calls"] == 1
    assert run.result is not None and run.result["steps"] == 1
    assert run.result["output"] == ""  # what the model classified is told to nobody
    assert ask(routed, max_steps=2).status == "succeeded"


@pytest.mark.parametrize("steps", [4, 101, 10**30])
def test_more_than_the_agent_takes_is_refused(acting: Services, upstream: WireServer, steps: int) -> None:
    request = inside.request("Do it.", max_steps=steps)
    for start in (acting.runs.start.invoke, acting.runs.start.stream, acting.runs.start.queue):
        with pytest.raises(Invalid) as refused:
            start(inside.ADA, request, None, "req")
        assert [fault["pointer"] for fault in refused.value.errors] == ["/max_steps"]
    assert upstream.requests == []


def test_as_many_as_the_agent_takes_are_taken(acting: Services) -> None:
    assert ask(acting, max_steps=3).status == "succeeded"


def test_an_agent_that_takes_fewer_by_now_is_still_bound(acting: Services, upstream: WireServer) -> None:
    """A task that waited while its agent was changed."""
    upstream.script += [says_and_calls("Hm. ", call("echo", {"text": "a"}, f"toolu_{n}")) for n in range(5)]
    run = acting.runs.start.queue(inside.ADA, inside.request("Do it.", max_steps=3), None, "req").run
    acting.infra.db.transact(lambda tx: _ask_for_more(tx, run.id))
    assert acting.runs.execution.take_up(run.id)
    ended = acting.runs.queries.get(run.id)
    assert ended.request.max_steps == 50
    assert (ended.error and ended.error["code"], len(upstream.requests)) == ("run_limit", 3)


def _ask_for_more(tx: Transaction, run_id: str) -> None:
    mine = schema.runs.c.id == run_id
    (row,) = tx.rows(sa.select(schema.runs.c.request).where(mine))
    more = tx.sealed(schema.runs, {"request": {**row["request"], "max_steps": 50}}, inside.ADA.user_id)
    tx.execute(sa.update(schema.runs).where(mine).values(more))
