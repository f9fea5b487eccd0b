"""The run result: one whole truth, at every door and in every state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import RunFinished
from service.runs.idempotency import Key
from service.store import runs as rows
from service.store import schema
from service.store.database import Transaction
from service.types import Event, Run, RunStatus
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer
from tests.runs import inside
from tests.runs.inside import ADA, SINGLE
from tests.runs.scripted import REACT, ask, call, calls, message, says, services, stream_of, tell
from tests.runs.test_kept_output import says_and_calls

ASKS_FIRST = f"{REACT}approvals: [refund, echo]\n"
TOLD = ("input", "user_id", "door", "agent_version", "structured")


def told(result: Any) -> tuple[Any, ...]:
    return tuple(result[name] for name in TOLD)


def row_of(wired: Services, run_id: str) -> Any:
    query = sa.select(schema.runs).where(schema.runs.c.id == run_id)
    return wired.infra.db.query(lambda tx: tx.row(query))


def change(wired: Services, run_id: str, **values: Any) -> None:
    def work(tx: Transaction) -> None:
        sealed = tx.sealed(schema.runs, values, inside.ADA.user_id)
        tx.execute(sa.update(schema.runs).where(schema.runs.c.id == run_id).values(sealed))

    wired.infra.db.transact(work)


@pytest.fixture
def careful(tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str) -> Iterator[Services]:
    """Asks a person before it calls a tool."""
    with services(tmp_path, redis_server.url, upstream, ASKS_FIRST, database_url=url) as wired:
        yield wired


# --- what was asked, and by whom ------------------------------------------------------------------------


def test_result_names_question_and_user_at_every_door(kept_in_each: Services) -> None:
    wired = kept_in_each
    version = wired.agents.agents["probe"].version

    def expected(door: str) -> tuple[Any, ...]:
        return ("Do it.", ADA.user_id, door, version, None)

    key = Key(ADA.user_id, "once", "the same")
    request = inside.request("Do it.", cache="bypass")
    invoked = wired.runs.start.invoke(ADA, request, key, "req").run
    again = wired.runs.start.invoke(ADA, request, key, "req")
    assert again.replayed and again.run.result == invoked.result
    assert told(invoked.result) == told(wired.runs.queries.get(invoked.id).result) == expected("invoke")

    last = tell(wired)[-1]
    assert told(last.data) == expected("stream")
    assert wired.runs.queries.so_far(last.data["run_id"])[-1].data == last.data

    queued = wired.runs.start.queue(ADA, request, None, "req").run
    assert told(wired.runs.queries.result(queued)) == expected("task")
    assert wired.runs.execution.take_up(queued.id)
    assert told(wired.runs.queries.get(queued.id).result) == expected("task")


def test_result_of_a_failed_run_names_the_question(acting: Services, upstream: WireServer) -> None:
    upstream.script.append(stream_of("No.", stop="refusal"))
    last = tell(acting)[-1]
    assert (last.name, last.data["input"], last.data["door"]) == (Event.RUN_FAILED, "Do it.", "stream")


def test_cached_answer_names_the_current_question(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    spec = f"{SINGLE}cache: {{ttl_seconds: 600}}\n"
    with services(tmp_path, redis_server.url, upstream, spec) as wired:
        results = [inside.ask(wired, text).result for text in ("Is it so?", "is it so", "Is it so?")]
    assert [(one and one["input"], one and one["cache"]) for one in results] == [
        ("Is it so?", "miss"),
        ("is it so", "near"),
        ("Is it so?", "hit"),
    ]


def test_the_input_is_kept_once(kept_in_each: Services) -> None:
    run = ask(kept_in_each)
    assert row_of(kept_in_each, run.id)["result"]["input"] is None
    assert kept_in_each.runs.queries.get(run.id).result == run.result


def test_a_run_of_an_older_version_has_the_same_result(kept_in_each: Services) -> None:
    run = ask(kept_in_each)
    assert run.result is not None
    older = {name: value for name, value in run.result.items() if name not in TOLD}
    change(kept_in_each, run.id, result=older)
    assert kept_in_each.runs.queries.get(run.id).result == run.result


def test_a_request_of_a_newer_version_can_be_read(kept_in_each: Services) -> None:
    run = ask(kept_in_each)
    kept = row_of(kept_in_each, run.id)["request"]
    assert not {name for name, value in kept.items() if value is None}  # older code does not know every field
    change(kept_in_each, run.id, request={**kept, "of_tomorrow": 1})
    assert kept_in_each.runs.queries.get(run.id).request == run.request


# --- while it waits -------------------------------------------------------------------------------------


def test_waiting_run_names_its_approvals(careful: Services, upstream: WireServer) -> None:
    upstream.script.append(
        calls(says("May I?"), call("echo", {"text": "a"}, "toolu_a"), call("refund", {}, "toolu_b"))
    )
    key = Key(ADA.user_id, "once", "the same")
    request = inside.request("Do it.", cache="bypass")
    run = careful.runs.start.invoke(ADA, request, key, "req").run
    assert run.result is not None
    asked = careful.infra.db.query(lambda tx: tx.rows(sa.select(schema.approvals.c.id)))
    assert run.result["status"] == "waiting_approval" and len(asked) == 2
    assert run.result["approvals"] == sorted(row["id"] for row in asked)
    assert run.result["output"] == "May I?"
    again = careful.runs.start.invoke(ADA, request, key, "req")
    assert again.replayed and again.run.result == run.result == careful.runs.queries.result(
        careful.runs.queries.get(run.id)
    )
    careful.runs.cancellation.cancel(careful.runs.queries.get(run.id))
    ended = careful.runs.queries.get(run.id).result
    assert ended is not None and "approvals" not in ended and ended["output"] == "May I?"


# --- a run without an answer keeps what was told --------------------------------------------------------


def test_failed_invoked_run_keeps_the_model_text(acting: Services, upstream: WireServer) -> None:
    upstream.script += [
        calls(says("I look. "), call("echo", {"text": "a"})),
        message(says("I would rather not."), stop="refusal"),
    ]
    run = ask(acting)
    assert (run.status, run.error and run.error["code"]) == (RunStatus.FAILED, "model_refused")
    assert run.result is not None and run.result["output"] == "I look. I would rather not."
    spoken = [
        event.data["text"] for event in acting.runs.queries.so_far(run.id) if event.name is Event.TEXT_DELTA
    ]
    assert "".join(spoken) == run.result["output"]


def test_whole_reply_is_published_once_before_its_usage(acting: Services) -> None:
    run = ask(acting)
    names = [event.name for event in acting.runs.queries.so_far(run.id)]
    assert names.count(Event.TEXT_DELTA) == 1
    assert names.index(Event.TEXT_DELTA) < names.index(Event.USAGE)


def lost_in_its_last_step(wired: Services, run: Run, **values: Any) -> None:
    """As if its worker had died in the last model call, once the text was told."""

    def lose(tx: Transaction) -> None:
        steps = schema.steps
        tx.execute(sa.delete(steps).where(steps.c.run_id == run.id, steps.c.n > 2))

    wired.infra.db.transact(lose)
    change(wired, run.id, status=RunStatus.QUEUED, finished_at=None, result=None, worker_id=None, **values)


@pytest.mark.parametrize("agent", ["probe", "retired"])
def test_lost_run_keeps_text_and_tools(acting: Services, upstream: WireServer, agent: str) -> None:
    upstream.script += [says_and_calls("I look. ", call("echo", {"text": "a"})), stream_of("It is so.")]
    request = inside.request("Do it.", cache="bypass")
    started, events = acting.runs.start.stream(ADA, request, None, "req")
    for _ in events:
        pass
    lost_in_its_last_step(acting, started.run, losses=3, agent=agent)
    acting.runs.execution.take_up(started.run.id)
    run = acting.runs.queries.get(started.run.id)
    assert (run.status, run.error and run.error["code"]) == (RunStatus.FAILED, "worker_lost")
    assert run.result is not None
    assert (run.result["output"], run.result["steps"]) == ("I look. It is so.", 2)
    assert [(use["name"], use["ok"]) for use in run.result["tools"]] == [("echo", True)]


def test_a_run_whose_agent_is_gone_can_be_cancelled(acting: Services) -> None:
    run = acting.runs.start.queue(ADA, inside.request("Do it."), None, "req").run
    change(acting, run.id, agent="retired")
    assert acting.infra.db.transact(lambda tx: rows.claim(tx, run.id, "wrk_gone"))
    acting.runs.cancellation.cancel(acting.runs.queries.get(run.id))
    acting.runs.execution.take_up(run.id)
    ended = acting.runs.queries.get(run.id)
    assert (ended.status, ended.error and ended.error["code"]) == (RunStatus.CANCELLED, "run_cancelled")


def test_a_cancellation_whose_commit_was_answered_to_nobody_succeeds(
    acting: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is then run again, and finds the run ended, by itself."""
    run = acting.runs.start.queue(ADA, inside.request("Do it."), None, "req").run
    transact = acting.infra.db.transact
    with monkeypatch.context() as patched:
        patched.setattr(acting.infra.db, "transact", lambda work: (transact(work), transact(work))[1])
        acting.runs.cancellation.cancel(run)
    assert acting.runs.queries.get(run.id).status is RunStatus.CANCELLED
    with pytest.raises(RunFinished):
        acting.runs.cancellation.cancel(run)
