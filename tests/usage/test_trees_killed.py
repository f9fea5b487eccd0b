"""Trees side by side at the edge of a cap, all killed at once at any moment: the cap holds, and all is settled."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.usage.ledger import check
from service.wiring import Services
from tests.conftest import RedisServer
from tests.runs import inside, newsroom
from tests.runs.newsroom import Script, uses
from tests.runs.scripted import Upstream, message, says
from tests.runs.test_tree_killed import PLAN, Killed, Worker
from tests.usage.house import TABLE, at_once

TREES = 8
CAP = 210_000_000  # nano-dollars: room for two trees at once
WRITES = 22 * 4  # of half of them, about


@pytest.fixture
def room(tmp_path: Path, redis_server: RedisServer, url: str) -> Iterator[Services]:
    used = [uses("echo", {"text": "woof"}), message(says("Dogs bark."))]
    upstream = Upstream(Script(PLAN, {"Work 1": used, "Work 2": used}))
    with newsroom.services(tmp_path, redis_server.url, upstream.url, database_url=url) as wired:
        yield wired
    upstream.stop()


def test_no_cap_is_passed_by_trees_that_are_killed(room: Services) -> None:
    room.usage.budgets.put("user:usr_ada", "day", CAP)
    random.seed(8)
    ended = set()
    for _ in range(6):
        request = inside.request("Of cats and dogs.")
        runs = [room.runs.start.queue(inside.ADA, request, None, "req").run.id for _ in range(TREES)]
        for writes in (random.randint(1, WRITES), random.randint(1, WRITES), 10_000):
            with pytest.MonkeyPatch.context() as patch:
                Worker(room, patch, writes)
                at_once(TREES, lambda number: taken_up(room, runs[number]))  # noqa: B023
            assert check(room.infra.db, TABLE).faults == []  # a passed cap is one
        for run_id in runs:  # a claim under load may be left to the next sweep
            taken_up(room, run_id)
        found = [room.runs.queries.get(run_id) for run_id in runs]
        assert all(run.status in ("succeeded", "failed") for run in found), [run.status for run in found]
        assert {run.error and run.error["code"] for run in found} <= {None, "budget_exceeded"}
        assert check(room.infra.db, TABLE).held == 0
        ended |= {run.status for run in found}
    assert "succeeded" in ended


def taken_up(wired: Services, run_id: str) -> None:
    with suppress(Killed):
        wired.runs.execution.take_up(run_id)
