"""Order in which workers take tasks, on either database: fair between workspaces and users, whatever they queue."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import islice

import pytest

from service.runs.waiting_runs import BATCH, HIGH, NORMAL, orders
from service.store import task_line
from service.types import RunStatus
from service.wiring import Services
from tests.runs.queueing import ACME, add_users, queue, taken


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
