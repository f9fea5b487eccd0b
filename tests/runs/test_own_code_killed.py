"""A worker that is lost in the middle of each step of an agent's own code, over either database.

The run is freed while the step is under way and taken up by another attempt; the first one may write no more.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.store import schema
from service.types import Event, Run
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import Exchange, WireServer
from tests.runs import coded, inside
from tests.runs.coded import WHOLE
from tests.runs.scripted import ask, call, calls, holds, kept, message, says, text_of

Losing = tuple[Services, Callable[[str], Run]]
PLAN, ANSWER = calls(call("echo", {"text": "all"})), message(says("Paid."))


@pytest.fixture
def lost_in(tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str) -> Iterator[Losing]:
    """The services, and a function that makes a run whose first attempt is lost in the named step."""
    with coded.services(tmp_path, redis_server.url, upstream, WHOLE, database_url=url) as wired:

        def lose() -> None:
            coded.take_over(wired)

        def run(step: str) -> Run:
            def losing(exchange: Exchange) -> None:
                lose()
                exchange.close()

            upstream.script = {
                "plan": [losing, PLAN, ANSWER],
                "answer": [PLAN, losing, ANSWER],
            }.get(step, [PLAN, ANSWER])
            coded.DURING.update({step: lose} if step in ("echo", "refund") else {})
            return ask(wired)

        yield wired, run


@pytest.mark.parametrize("step", ["plan", "echo", "answer"])
def test_the_next_attempt_ends_the_run_and_repeats_nothing(lost_in: Losing, step: str) -> None:
    wired, lose = lost_in
    run = lose(step)
    assert run.result is not None and (run.status, run.attempt) == ("succeeded", 2)
    whole(wired, run)
    assert coded.MADE == ["all"]


def test_a_call_under_way_is_put_to_a_person_and_not_repeated_once_reported(lost_in: Losing) -> None:
    wired, lose = lost_in
    run = lose("refund")
    assert run.status == "waiting_approval" and coded.MADE == ["all"]
    coded.approve(wired, run.id)
    assert wired.runs.execution.take_up(run.id)
    whole(wired, wired.runs.queries.get(run.id))
    assert coded.MADE == ["all"]  # the first attempt, lost but alive, has reported it


def test_code_that_asks_for_another_call_in_place_of_one_under_way_fails(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str
) -> None:
    code = """
ORDERS = iter("12")


def run(context):
    yield from context.steps.call_tool("pay", "refund", {"order": next(ORDERS)})
    return Answer("Paid.", "end_turn", "none")
"""
    with coded.services(tmp_path, redis_server.url, upstream, code, database_url=url) as wired:
        coded.DURING["refund"] = lambda: coded.take_over(wired)
        run = ask(wired)
    assert run.error is not None and (run.error["code"], coded.MADE) == ("agent_fault", ["1"])
    assert run.error["detail"].startswith("The code of this agent took other steps than before")


def whole(wired: Services, run: Run) -> None:
    """Check that clients were told one whole run, and that its cost is in the books once."""
    told = wired.runs.queries.so_far(run.id)
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    names = Counter(event.name for event in told)
    assert (names[Event.RUN_STARTED], names[Event.RUN_COMPLETED]) == (1, 1)
    called = [event.data["call_id"] for event in told if event.name is Event.TOOL_CALLED]
    assert len(called) == len(set(called)) == 2
    assert text_of(told) == "Paid."
    steps = [(row["kind"], row["name"]) for row in kept(wired, run) if row["kind"] != "note"]
    assert steps == [("model", "plan"), ("tools", "act"), ("tools", "pay"), ("model", "answer")]
    ledger = schema.ledger
    booked = sa.select(ledger).where(ledger.c.run_id == run.id, ledger.c.account == "upstream")
    rows = wired.infra.db.query(lambda tx: tx.rows(booked))
    assert abs(sum(row["amount_nano"] for row in rows)) == run.cost_nano and holds(wired) == 0


def test_hidden_answer_is_told_by_the_worker_that_ends_the_run(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str
) -> None:
    """The first worker stops once the last step is made, before the answer is told."""
    code = """
def run(context):
    reply = yield from context.steps.model("draft", Prompt("Be good.", context.messages, publish=False))
    from tests.runs.coded import DURING
    DURING.pop("code", lambda: None)()
    return Answer(reply.text.upper(), "end_turn", reply.model)
"""
    upstream.script = [message(says("A draft."))]
    with coded.services(tmp_path, redis_server.url, upstream, code, database_url=url) as wired:

        def stop() -> None:
            [row] = coded.all_runs(wired)
            handle = wired.runs.execution.slots.get(row["id"])
            assert handle is not None
            handle.stop("drain")
            time.sleep(1)  # longer than the run waits before it looks

        coded.DURING["code"] = stop
        request = inside.request("Do it.", cache="bypass")
        queued = wired.runs.start.queue(inside.ADA, request, None, "req").run
        for _ in range(2):
            assert wired.runs.execution.take_up(queued.id)
        run, told = wired.runs.queries.get(queued.id), wired.runs.queries.so_far(queued.id)
    assert run.result is not None and text_of(told) == run.result["output"] == "A DRAFT."
    assert (run.attempt, len(upstream.requests)) == (2, 1)
