"""Sub-agents of one run: their events, results, failures, questions, and the bounds of their tree."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import approvals
from service.errors import BudgetExceeded, Overloaded
from service.store.approvals import Decision
from service.store.approvals import of_run as approvals_of
from service.types import Caller, Event, Run
from service.usage.ledger import check
from service.wiring import Services
from tests.conftest import RedisServer, wait_until
from tests.llm.wire_server import Exchange, WireServer, error, silent
from tests.runs import inside, newsroom
from tests.runs.newsroom import LEAD, PLAN, Script, assert_whole, of_branch, told, uses
from tests.runs.scripted import Upstream, message, says
from tests.usage.house import TABLE, at_once

OPERATOR = Caller("usr_op", "op", "operator")


@pytest.fixture
def script() -> Script:
    return Script(PLAN, {})


@pytest.fixture
def upstream(script: Script) -> Iterator[WireServer]:
    server = Upstream(script)
    yield server
    server.stop()


@pytest.fixture
def room(tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str) -> Iterator[Services]:
    with newsroom.services(tmp_path, redis_server.url, upstream.url, database_url=url) as wired:
        yield wired


@pytest.fixture
def small(tmp_path: Path, redis_server: RedisServer, upstream: WireServer) -> Iterator[Services]:
    """Of SQLite alone: for what does not depend on the database."""
    with newsroom.services(tmp_path, redis_server.url, upstream.url) as wired:
        yield wired


def ask(wired: Services, **fields: object) -> Run:
    return inside.ask(wired, "Of cats and dogs.", cache="bypass", **fields)


def code_of(run: Run) -> object:
    return run.error and run.error["code"]


def test_events_of_sub_agents_are_labelled_and_the_answers_text_is_alone(
    room: Services, script: Script
) -> None:
    script.replies["Work"] = [uses("echo", {"text": "woof"}), message(says("Dogs bark."))]
    run = ask(room)
    assert run.result is not None and run.status == "succeeded", run.error
    assert run.result["output"] == "Joined."
    assert (run.result["steps"], run.usage.output_tokens) == (6, 5 * 4)
    assert {use["name"] for use in run.result["tools"]} == {"agent:writer", "agent:worker", "echo"}
    events = told(room, run)
    assert [event.data["text"] for event in events if event.name is Event.TEXT_DELTA] == ["Joined."]
    step = [("step.started", "answer"), ("usage", None)]
    assert of_branch(events, "1") == [("tool.called", "agent:writer"), *step, ("tool.finished", None)]
    assert {event.data["agent"] for event in events if event.data.get("branch") == "2"} == {"worker"}
    assert ("tool.called", "echo") in of_branch(events, "2")
    assert '"result": "Dogs bark."' in script.joins[0]
    assert_whole(room, run.id)


def test_sub_agent_is_run_with_its_own_request(small: Services, script: Script) -> None:
    """The caller's limits and tier are the lead's."""
    run = ask(small, max_tokens=77, tier="complex")
    assert run.status == "succeeded" and run.tier == "complex"
    by_task = {body["messages"][0]["content"]: body for body in script.bodies}
    assert by_task["Write of cats."]["max_tokens"] == 1024
    assert by_task["Write of cats."]["model"] == "claude-haiku-5-5"


def test_failed_sub_agent_is_told_to_the_lead(small: Services, script: Script) -> None:
    script.replies["Write"] = error(400, "invalid_request_error")
    run = ask(small)
    assert run.result is not None and run.status == "succeeded", run.error
    assert {use["name"]: use["ok"] for use in run.result["tools"]} == {
        "agent:writer": False,
        "agent:worker": True,
    }
    assert '"ok": false' in script.joins[0] and "UPSTREAM WORDS" not in script.joins[0]
    assert_whole(small, run.id)


def test_stopped_sub_agent_fails_alone(small: Services, script: Script) -> None:
    small.infra.db.transact(lambda tx: small.runs.stops.stop(tx, "writer", "It misbehaves."))
    run = ask(small)
    assert run.status == "succeeded" and script.asked == ["Work on dogs."]
    assert "The agent writer is stopped." in script.joins[0]


def test_tree_that_does_not_fit_a_cap_is_refused_before_it_begins(room: Services, script: Script) -> None:
    room.usage.budgets.put("user:usr_ada", "day", 90_000_000)
    run = ask(room)
    assert (run.status, code_of(run), script.asked) == ("failed", "budget_exceeded", [])
    assert_whole(room, run.id)


def test_call_that_does_not_fit_the_tree_ends_the_run(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str, script: Script
) -> None:
    spec = LEAD.replace("0.10", "0.000002")
    agents = {**newsroom.AGENTS, "probe": spec}
    with newsroom.services(tmp_path, redis_server.url, upstream.url, agents, database_url=url) as wired:
        run = ask(wired)
        assert (run.status, code_of(run), script.asked) == ("failed", "budget_exceeded", [])
        assert run.error is not None and run.error["budget"]["scope"] == "tree"
        assert_whole(wired, run.id)


def test_tree_with_more_model_calls_than_the_run_has_left_is_refused(small: Services, script: Script) -> None:
    run = ask(small, max_steps=5)  # plan, 1 of the writer, 3 of the worker, join: 6
    assert (run.status, code_of(run), script.asked) == ("failed", "run_limit", [])
    assert ask(small, max_steps=6).status == "succeeded"


def decide(wired: Services, run: Run, **decision: str) -> None:
    rows = wired.infra.db.query(lambda tx: approvals_of(tx, run.id))
    for row in [row for row in rows if row["status"] == "pending"]:
        said = Decision(decision[row["call_id"]], None, None, row["id"][-26:])  # type: ignore[arg-type]
        wired.infra.db.transact(lambda tx: approvals.decide(tx, OPERATOR, row["id"], said))  # noqa: B023


def test_questions_of_branches_are_asked_together_and_each_is_decided(room: Services, script: Script) -> None:
    script.plan = [("worker", "Work 1."), ("writer", "Write."), ("worker", "Work 2.")]
    for number in "12":
        pays = uses("refund", {"order": number}, f"toolu_{number}")
        script.replies[f"Work {number}"] = [pays, message(says("Paid or not."))]
    run = ask(room)
    assert run.result is not None and run.status == "waiting_approval"
    assert len(run.result["approvals"]) == 2 and sorted(script.asked) == ["Work 1.", "Work 2.", "Write."]
    assert_whole(room, run.id)  # nothing is held while it waits
    asked = [event.data for event in told(room, run) if event.name is Event.APPROVAL_REQUIRED]
    assert [(data["agent"], data["branch"]) for data in asked] == [("worker", "1"), ("worker", "3")]

    decide(room, run, toolu_1="approve", toolu_2="deny")
    assert room.runs.execution.take_up(run.id)
    run = room.runs.queries.get(run.id)
    assert run.result is not None and run.status == "succeeded", run.error
    finished = [event.data for event in told(room, run) if event.name is Event.TOOL_FINISHED]
    decided = {data["call_id"]: data["ok"] for data in finished if data["call_id"].startswith("toolu")}
    assert decided == {"toolu_1": True, "toolu_2": False}
    assert sorted(script.asked) == ["Work 1."] * 2 + ["Work 2."] * 2 + ["Write."]
    assert_whole(room, run.id)


def test_calls_of_branches_with_one_id_are_told_apart(small: Services, script: Script) -> None:
    script.plan = [("worker", "Work 1."), ("worker", "Work 2.")]
    script.replies["Work"] = [uses("echo", {"text": "a"}), message(says("Done."))]
    run = ask(small)
    called = [event.data["call_id"] for event in told(small, run) if event.data.get("name") == "echo"]
    assert len(set(called)) == 2
    assert_whole(small, run.id)


def test_cancel_aborts_the_calls_of_all_branches(
    room: Services, script: Script, upstream: WireServer
) -> None:
    script.replies = {"Write": silent, "Work": silent}
    request = inside.request("Of cats and dogs.", cache="bypass")
    started, batches = room.runs.start.stream(inside.ADA, request, None, "req")
    events = []
    reader = threading.Thread(target=lambda: [events.extend(batch) for batch in batches])
    reader.start()
    wait_until(lambda: len(script.asked) == 2, "both branches")
    room.runs.cancellation.cancel(started.run)
    reader.join(60)
    assert events[-1].name is Event.RUN_CANCELLED
    assert_whole(room, started.run.id)


def test_run_handed_over_in_the_middle_of_its_branches_goes_on_elsewhere(
    room: Services, script: Script
) -> None:
    script.replies = {"Work": silent}
    started, batches = room.runs.start.stream(
        inside.ADA, inside.request("Of cats and dogs.", cache="bypass"), None, "req"
    )
    reader = threading.Thread(target=lambda: [None for _ in batches])
    reader.start()
    done = lambda: "tool.finished" in str(of_branch(told(room, started.run), "1"))  # noqa: E731
    wait_until(lambda: len(script.asked) == 2 and done(), "one branch to end and one to wait")
    handle = room.runs.execution.slots.get(started.run.id)
    assert handle is not None
    handle.stop("drain")
    reader.join(60)
    assert_whole(room, started.run.id)
    script.replies = {}
    assert room.runs.execution.take_up(started.run.id)
    assert room.runs.queries.get(started.run.id).status == "succeeded"
    assert script.asked.count("Write of cats.") == 1
    assert_whole(room, started.run.id)


def test_run_of_a_stopped_lead_waits_with_its_branches(room: Services, script: Script) -> None:
    def stops(exchange: Exchange) -> None:
        room.infra.db.transact(lambda tx: room.runs.stops.stop(tx, "probe", "It misbehaves."))
        uses("echo", {"text": "a"})(exchange)

    script.replies["Work"] = [stops, message(says("Done."))]
    run = ask(room)
    assert run.status == "paused"
    assert_whole(room, run.id)
    room.runs.stops.release("probe")
    assert room.runs.execution.take_up(run.id)
    assert room.runs.queries.get(run.id).status == "succeeded"
    assert_whole(room, run.id)


def test_deadline_is_that_of_the_run(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, script: Script
) -> None:
    script.replies = {"Write": silent, "Work": silent}
    agents = {**newsroom.AGENTS, "probe": LEAD.replace("seconds: 20", "seconds: 1")}
    with newsroom.services(tmp_path, redis_server.url, upstream.url, agents) as wired:
        run = ask(wired)
        assert (run.status, code_of(run)) == ("failed", "run_timeout")
        assert_whole(wired, run.id)


def test_writer_joins_and_its_answer_is_the_runs(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, script: Script
) -> None:
    lead = LEAD.replace("agents: [writer, worker]", "agents: [worker]\nwriter: writer")
    script.plan = [("worker", "Work on dogs.")]
    with newsroom.services(
        tmp_path, redis_server.url, upstream.url, {**newsroom.AGENTS, "probe": lead}
    ) as wired:
        run = ask(wired)
        assert run.result is not None and (run.status, run.result["output"]) == ("succeeded", "Joined.")
        events = told(wired, run)
        assert [event.data["text"] for event in events if event.name is Event.TEXT_DELTA] == ["Joined."]
        assert of_branch(events, "2")[0] == ("tool.called", "agent:writer")
        assert_whole(wired, run.id)


def test_no_cap_is_passed_by_trees_side_by_side(room: Services, script: Script) -> None:
    """A cap with room for three trees at once, and ten runs: each succeeds or is refused."""
    room.usage.budgets.put("user:usr_ada", "day", 310_000_000)
    outcomes = at_once(10, lambda number: ask(room))
    assert {type(one) for one in outcomes} <= {Run, BudgetExceeded, Overloaded}
    runs = [one for one in outcomes if isinstance(one, Run)]
    assert any(run.status == "succeeded" for run in runs)
    assert {code_of(run) for run in runs} <= {None, "budget_exceeded"}
    checked = check(room.infra.db, TABLE)
    assert (checked.faults, checked.held) == ([], 0)
