"""Questions of two sub-agents, with workers killed before and after the decisions: each call is made as decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.store.approvals import of_run
from service.types import Event, Run
from service.wiring import Services
from tests.conftest import RedisServer
from tests.runs import inside, newsroom
from tests.runs.newsroom import Script, assert_whole, told, uses
from tests.runs.scripted import Upstream, message, says
from tests.runs.test_tree_killed import Killed, Worker
from tests.runs.test_tree_steps import decide

PLAN = [("worker", "Work 1."), ("writer", "Write."), ("worker", "Work 2.")]


@pytest.fixture
def script() -> Script:
    paid = {n: [uses("refund", {"order": n}, f"toolu_{n}"), message(says("Paid or not."))] for n in "12"}
    return Script(PLAN, {f"Work {number}": replies for number, replies in paid.items()})


@pytest.fixture
def asking(tmp_path: Path, redis_server: RedisServer, script: Script, url: str) -> Iterator[Services]:
    upstream = Upstream(script)
    with newsroom.services(tmp_path, redis_server.url, upstream.url, database_url=url) as wired:
        yield wired
    upstream.stop()


def taken_up(wired: Services, run_id: str, writes: int) -> Run:
    """Return the run after an attempt with so many writes, and another."""
    for allowed in (writes, 10_000):
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            Worker(wired, patch, allowed)
            wired.runs.execution.take_up(run_id)
    return wired.runs.queries.get(run_id)


def test_each_decided_call_is_made_once_whenever_workers_are_killed(asking: Services) -> None:
    for before, after in zip(range(3, 24, 2), range(22, 0, -2), strict=True):
        run = asking.runs.start.queue(inside.ADA, inside.request("Of cats."), None, "req").run
        run = taken_up(asking, run.id, before)
        assert run.status == "waiting_approval", (before, run.error)
        assert len(asking.infra.db.query(lambda tx: of_run(tx, run.id))) == 2  # noqa: B023
        assert_whole(asking, run.id)
        decide(asking, run, toolu_1="approve", toolu_2="deny")
        run = taken_up(asking, run.id, after)
        if run.status == "waiting_approval":  # killed within the call: a person is asked whether to repeat it
            decide(asking, run, toolu_1="deny")
            run = taken_up(asking, run.id, 10_000)
        assert run.status == "succeeded", (before, after, run.error)
        finished = [event.data for event in told(asking, run) if event.name is Event.TOOL_FINISHED]
        oks = {data["call_id"]: data["ok"] for data in finished if data["call_id"].startswith("toolu")}
        assert oks.keys() == {"toolu_1", "toolu_2"} and not oks["toolu_2"]
        decided = Counter(
            event.data["approval_id"] for event in told(asking, run) if event.name is Event.APPROVAL_DECIDED
        )
        assert max(decided.values()) == 1
        assert_whole(asking, run.id)
