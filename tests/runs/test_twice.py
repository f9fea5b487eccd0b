"""Every write gives the same result when it runs twice: after a lost answer to COMMIT, and after a rollback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import sqlalchemy as sa

from service import approvals
from service.ids import new_id
from service.runs.idempotency import Key
from service.store import batches, runs, schema, workers
from service.store.approvals import Decision
from service.types import Caller, Event, Run, RunStatus, now_ms
from service.usage.ledger import check
from service.wiring import Services
from tests.conftest import Model, RedisServer
from tests.llm.wire_server import WireServer
from tests.runs import inside, scripted, turns
from tests.runs.batch.test_submitter import until_answered
from tests.runs.scripted import call, calls, message, says, stream_of
from tests.runs.test_kept_output import says_and_calls
from tests.twice import Way, write_twice

OPERATOR = Caller(inside.ADA.user_id, "ada", "operator")


@pytest.fixture(params=get_args(Way))
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


def leased(wired: Services) -> Services:
    """Give the worker a lease: without one, a run that it claims counts as abandoned."""
    worker_id = wired.runs.execution.worker_id
    wired.infra.db.transact(lambda tx: workers.register(tx, worker_id, "web", "here", 1, 60_000))
    return wired


@pytest.fixture
def careful(
    tmp_path: Path,
    redis_server: RedisServer,
    upstream: WireServer,
    url: str,
    way: Way,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Services]:
    """Writes twice, and asks a person before a refund."""
    spec = f"{scripted.REACT}approvals: [refund]\n"
    with scripted.services(tmp_path, redis_server.url, upstream, spec, database_url=url) as wired:
        write_twice(way, monkeypatch)
        yield leased(wired)


def count(wired: Services, table: sa.Table) -> int:
    query = sa.select(sa.func.count().label("n")).select_from(table)
    return int(wired.infra.db.query(lambda tx: tx.rows(query))[0]["n"])


def losses(wired: Services, run: Run) -> tuple[int, int]:
    """Attempts at a run, and how many of them lost their worker."""
    query = sa.select(schema.runs.c.attempt, schema.runs.c.losses).where(schema.runs.c.id == run.id)
    [row] = wired.infra.db.query(lambda tx: tx.rows(query))
    return row["attempt"], row["losses"]


def is_sound(wired: Services) -> None:
    assert check(wired.infra.db, wired.usage.prices).faults == []
    assert count(wired, schema.holds) == 0


def test_turn_with_a_key_under_a_cap(careful: Services, upstream: WireServer) -> None:
    careful.usage.budgets.put("user:usr_ada", "day", 10**10)
    session_id = turns.begin(careful)
    upstream.script += [calls(call("echo", {"text": "a"})), message(says("Four."))]
    asked = inside.request("Two and two?", session_id=session_id)
    key = Key(inside.ADA.user_id, "once", "the same")
    run = careful.runs.start.invoke(inside.ADA, asked, key, "req").run
    assert (run.status, run.attempt) == (RunStatus.SUCCEEDED, 1)
    again = careful.runs.start.invoke(inside.ADA, asked, key, "req")
    assert again.replayed and again.run.id == run.id
    assert [text for _, text, _ in turns.said(careful, session_id)] == ["Two and two?", "Four."]
    assert len(scripted.kept(careful, run)) == 3
    is_sound(careful)


def test_task_that_waits_for_a_person(careful: Services, upstream: WireServer) -> None:
    upstream.script += [says_and_calls("I pay. ", call("refund", {"order": "7"})), stream_of("Done.")]
    run = careful.runs.start.queue(inside.ADA, inside.request("Do it."), None, "req").run
    assert careful.runs.execution.take_up(run.id)
    [asked] = careful.infra.db.query(lambda tx: tx.rows(sa.select(schema.approvals)))
    told = [event.name for event in careful.runs.queries.so_far(run.id)]
    assert careful.runs.queries.get(run.id).status is RunStatus.WAITING_APPROVAL
    decision = Decision("approve", None, None, new_id("dec"))
    _, resumes = careful.infra.db.transact(lambda tx: approvals.decide(tx, OPERATOR, asked["id"], decision))
    assert resumes and careful.runs.execution.take_up(run.id)
    ended = careful.runs.queries.get(run.id)
    assert (ended.status, losses(careful, run)) == (RunStatus.SUCCEEDED, (2, 0))
    assert [event.name for event in careful.runs.queries.so_far(run.id)][: len(told)] == told
    assert count(careful, schema.tool_calls) == 1
    is_sound(careful)


def test_run_that_leaves_its_attempt_has_not_lost_its_lease(
    careful: Services, upstream: WireServer, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.script.append(says_and_calls("I pay. ", call("refund", {"order": "7"})))
    assert Event.APPROVAL_REQUIRED in [event.name for event in scripted.tell(careful)]
    assert "run_released" not in caplog.messages


def test_batch(
    tmp_path: Path, redis_server: RedisServer, model: Model, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inside.services(tmp_path, redis_server.url, model.url, batch_max_wait_seconds=0) as wired:
        write_twice(way, monkeypatch)
        leased(wired)
        asked = inside.request("What time is it?", priority="batch")
        run = wired.runs.start.queue(inside.ADA, asked, None, "req").run
        assert wired.runs.execution.take_up(run.id)
        assert until_answered(wired, run) == "done"
        assert wired.runs.execution.take_up(run.id)
        ended = wired.runs.queries.get(run.id)
        assert (ended.status, losses(wired, run)) == (RunStatus.SUCCEEDED, (2, 0))
        assert wired.infra.db.query(batches.waiting) == (0, 0)
        assert (count(wired, schema.batch_items), count(wired, schema.batches)) == (0, 0)
        is_sound(wired)


def test_failed_run_is_queued_again(careful: Services, upstream: WireServer) -> None:
    upstream.script.append(message(says("I would rather not."), stop="refusal"))
    run, now = scripted.ask(careful), now_ms()

    def queued(was: RunStatus, at: int) -> Any:
        return careful.infra.db.transact(lambda tx: runs.requeue(tx, run.id, [was], at))

    assert queued(RunStatus.FAILED, now)
    assert not queued(RunStatus.FAILED, now + 1)


def test_one_thread_of_a_process_claims_a_run_at_a_time(acting: Services) -> None:
    """Or a claim that is run again could take another thread's attempt for its own."""
    execution = acting.runs.execution
    run = acting.runs.start.queue(inside.ADA, inside.request("Do it."), None, "req").run
    with execution.slots.claiming(run.id) as alone:
        assert alone and not execution.take_up(run.id)
        assert not execution.take_up(run.id), "the second refusal has not freed it"
    assert acting.runs.queries.get(run.id).status is RunStatus.QUEUED
    assert execution.take_up(run.id)
