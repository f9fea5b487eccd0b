"""Order in which workers take tasks, on either database: fair between workspaces and users, whatever they queue."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import islice

import pytest
import sqlalchemy as sa

from service.runs.waiting_runs import BATCH, HIGH, NORMAL, orders
from service.store import runs as rows
from service.store import task_line
from service.store.schema import IN_LINE, runs, task_turns
from service.types import DEFAULT_WORKSPACE, RunStatus
from service.wiring import Services
from tests.llm.wire_server import WireServer
from tests.runs import inside
from tests.runs.queueing import ACME, add_users, queue, taken
from tests.runs.scripted import stream_of
from tests.runs.turns import begin, said


@pytest.fixture
def wired(kept_in_each: Services) -> Services:
    add_users(kept_in_each.infra.db, ["bob", "eve"])
    return kept_in_each


def test_ten_tasks_are_done_within_a_hundred_beside_ten_thousand(wired: Services) -> None:
    many = queue(wired.infra.db, "ada", 10_000)
    assert taken(wired, 30) == ["ada"] * 30
    queue(wired.infra.db, "bob", 10)
    order = taken(wired, 100)
    assert order[:20].count("bob") == 10 and order[20:] == ["ada"] * 80
    depth = wired.infra.db.query(task_line.depth)
    assert {priority: row["count"] for priority, row in depth.items()} == {"normal": 10_000 - 120}
    assert wired.runs.queries.get(many[119]).status is RunStatus.RUNNING, "the oldest of a user first"
    assert wired.runs.queries.get(many[120]).status is RunStatus.QUEUED


def test_workspaces_share_before_their_users(wired: Services) -> None:
    names = [f"u{n:02}" for n in range(50)]
    add_users(wired.infra.db, names)
    add_users(wired.infra.db, ["zoe"], ACME)
    for name in names:
        queue(wired.infra.db, name, 20)
    queue(wired.infra.db, "zoe", 60, workspace=ACME)
    order = taken(wired, 100)
    assert order.count("zoe") == 50, "half of all turns, though fifty others wait"
    assert set(Counter(name for name in order if name != "zoe").values()) == {1}


def test_who_waits_for_nothing_saves_up_no_turns(wired: Services) -> None:
    queue(wired.infra.db, "ada", 100)
    taken(wired, 50)
    queue(wired.infra.db, "bob", 100)
    assert Counter(taken(wired, 20)) == {"ada": 10, "bob": 10}


def test_tasks_that_were_cancelled_cost_no_turns(wired: Services) -> None:
    queue(wired.infra.db, "ada", 5)
    for run_id in queue(wired.infra.db, "bob", 50):
        wired.runs.cancellation.cancel(wired.runs.queries.get(run_id))
    queue(wired.infra.db, "bob", 5)
    assert Counter(taken(wired, 6)) == {"ada": 3, "bob": 3}


def test_no_priority_waits_for_ever(wired: Services) -> None:
    queue(wired.infra.db, "ada", 200, priority="high")
    queue(wired.infra.db, "bob", 200, priority="normal")
    queue(wired.infra.db, "eve", 200, priority="batch")
    assert Counter(taken(wired, 100)) == {"ada": 75, "bob": 20, "eve": 5}


def test_turns_of_a_priority_that_waits_for_none_go_to_the_others(wired: Services) -> None:
    queue(wired.infra.db, "bob", 90, priority="normal")
    queue(wired.infra.db, "eve", 90, priority="batch")
    assert Counter(taken(wired, 100)) == {"bob": 80, "eve": 20}
    assert taken(wired, 81)[-1] == "" and taken(wired, 1) == [""]


def test_high_comes_first_three_times_of_four() -> None:
    assert list(islice(orders(), 5)) == [
        [HIGH, NORMAL, BATCH],
        [HIGH, NORMAL, BATCH],
        [HIGH, NORMAL, BATCH],
        [NORMAL, BATCH, HIGH],
        [HIGH, BATCH, NORMAL],
    ]


def test_tasks_of_a_stopped_agent_keep_nobody_waiting(wired: Services) -> None:
    stopped = queue(wired.infra.db, "ada", 100)
    queue(wired.infra.db, "bob", 2, agent="other")
    wired.infra.db.transact(lambda tx: wired.runs.stops.stop(tx, "probe", "It runs wild."))
    assert taken(wired, 3) == ["bob", "bob", ""]
    wired.runs.stops.release("probe")
    assert taken(wired, 100) == ["ada"] * 100
    assert wired.runs.queries.get(stopped[-1]).status is RunStatus.RUNNING


def test_workers_that_take_at_once_take_each_task_once(wired: Services) -> None:
    tasks = (
        queue(wired.infra.db, "ada", 20) + queue(wired.infra.db, "bob", 20) + queue(wired.infra.db, "eve", 2)
    )
    found: list[str] = []

    def take() -> None:
        while (run := wired.runs.execution.waiting.next_task()) is not None:
            found.append(run.id)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == sorted(tasks)


def test_tasks_of_a_busy_session_wait_beside_the_line(wired: Services, upstream: WireServer) -> None:
    session_id = begin(wired)
    upstream.script += [stream_of("Done.")] * 4
    asked = [inside.request(f"Turn {n}.", session_id=session_id, on_conflict="queue") for n in range(3)]
    tasks = [wired.runs.start.queue(inside.ADA, each, None, "req").run.id for each in asked]
    other = wired.runs.start.queue(inside.ADA, inside.request("And this."), None, "req").run.id
    assert in_line(wired) == [tasks[0], other]
    for run_id, woken_for in zip((*tasks, other), (*reversed(tasks), tasks[0]), strict=True):
        assert run_id in in_line(wired)
        assert wired.runs.execution.take_turn(woken_for), "a wake-up is for one turn, whoever's it is"
        assert wired.runs.queries.get(run_id).status is RunStatus.SUCCEEDED
    assert not wired.runs.execution.take_turn(other)
    asked_in_turn = [content for role, content, _ in said(wired, session_id) if role == "user"]
    assert asked_in_turn == ["Turn 0.", "Turn 1.", "Turn 2."]


def test_a_task_whose_session_was_taken_steps_aside(wired: Services, upstream: WireServer) -> None:
    """As where a turn that interrupts comes between the end of one and the next task."""
    session_id = begin(wired)
    upstream.script += [stream_of("Done.")]
    first, second = (
        wired.runs.start.queue(
            inside.ADA, inside.request(text, session_id=session_id, on_conflict="queue"), None, "req"
        ).run
        for text in ("First.", "Second.")
    )
    put = sa.update(runs).where(runs.c.id == second.id).values(in_line=True)
    take = sa.update(runs).where(runs.c.id == first.id).values(status=RunStatus.RUNNING)
    wired.infra.db.transact(lambda tx: (tx.execute(put), tx.execute(take)))
    assert wired.runs.execution.waiting.next_task() is None
    assert in_line(wired) == [] and wired.runs.queries.get(second.id).attempt == 0
    wired.infra.db.transact(lambda tx: tx.execute(take.values(status=RunStatus.QUEUED)))
    assert wired.runs.execution.take_turn(second.id)
    assert in_line(wired) == [second.id], "the end of the turn puts the next one in line"


def test_a_run_that_has_begun_goes_on_before_others(wired: Services, upstream: WireServer) -> None:
    queue(wired.infra.db, "bob", 3)
    upstream.script += [stream_of("Done.")]
    task = wired.runs.start.queue(inside.ADA, inside.request("Do it."), None, "req").run
    wired.infra.db.transact(lambda tx: rows.claim(tx, task.id, "wrk_gone"))
    run = wired.runs.queries.get(task.id)
    assert wired.infra.db.transact(lambda tx: rows.release(tx, run, run.attempt))
    assert wired.runs.execution.take_turn(task.id)
    assert wired.runs.queries.get(task.id).status is RunStatus.SUCCEEDED
    assert len(in_line(wired)) == 3


def test_a_claim_whose_answer_was_lost_is_the_workers_own(
    wired: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction runs again after its commit, as where the database goes away before it answers."""
    first, second = queue(wired.infra.db, "bob", 2)
    transact = wired.infra.db.transact
    with monkeypatch.context() as patched:
        patched.setattr(
            type(wired.infra.db), "transact", lambda db, work: (transact(work), transact(work))[1]
        )
        run = wired.runs.execution.waiting.next_task()
    assert run is not None and run.id == first
    assert in_line(wired) == [second]


def test_turns_given_long_ago_are_forgotten(wired: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_line, "FORGOTTEN_AFTER", 4)
    queue(wired.infra.db, "bob", 1)
    queue(wired.infra.db, "ada", 5)
    taken(wired, 6)
    assert wired.infra.db.transact(lambda tx: task_line.expire(tx, 10)) == 1
    left = wired.infra.db.query(lambda tx: tx.rows(sa.select(task_turns.c.holder)))
    assert sorted(row["holder"] for row in left) == ["usr_ada", DEFAULT_WORKSPACE]


def in_line(wired: Services) -> list[str]:
    query = sa.select(runs.c.id).where(sa.text(IN_LINE)).order_by(runs.c.id)
    return [row["id"] for row in wired.infra.db.query(lambda tx: tx.rows(query))]
