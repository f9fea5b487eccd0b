"""Sub-agents and their writer, whose worker is killed after any number of writes: no hold is left at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.types import Event
from service.usage.ledger import check
from service.wiring import Services
from tests.conftest import RedisServer
from tests.runs import inside, newsroom
from tests.runs.newsroom import LEAD, Script, assert_whole, told
from tests.runs.scripted import Upstream
from tests.runs.test_tree_killed import Killed, Worker, script
from tests.usage.house import TABLE

__all__ = ["script"]
WRITES = 25  # of a run without a kill, at most
JOINED = LEAD.replace("agents: [writer, worker]", "agents: [writer, worker]\nwriter: writer")


@pytest.fixture(scope="module")
def joined(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, script: Script
) -> Iterator[Services]:
    upstream = Upstream(script)
    home: Path = tmp_path_factory.mktemp("joined")
    agents = {**newsroom.AGENTS, "probe": JOINED}
    with newsroom.services(home, redis_server.url, upstream.url, agents) as wired:
        yield wired
    upstream.stop()


@pytest.mark.parametrize("writes", range(1, WRITES))
def test_killed_tree_with_a_writer_leaves_no_hold(joined: Services, writes: int) -> None:
    run_id = joined.runs.start.queue(inside.ADA, inside.request("Of cats and dogs."), None, "req").run.id
    for allowed in (writes, 10_000):
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            Worker(joined, patch, allowed)
            joined.runs.execution.take_up(run_id)
    run = joined.runs.queries.get(run_id)
    assert run.result is not None and run.status == "succeeded", run.error
    events = told(joined, run)
    assert [event.data["text"] for event in events if event.name is Event.TEXT_DELTA] == ["Joined."]
    assert sum(event.name is Event.RUN_STARTED for event in events) == 1
    assert_whole(joined, run_id)


def test_killed_tree_that_is_cancelled_leaves_no_hold(joined: Services) -> None:
    run = joined.runs.start.queue(inside.ADA, inside.request("Of cats and dogs."), None, "req").run
    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        Worker(joined, patch, 6)
        joined.runs.execution.take_up(run.id)
    assert check(joined.infra.db, TABLE).held > 0
    joined.runs.cancellation.cancel(joined.runs.queries.get(run.id))
    joined.runs.execution.take_up(run.id)
    assert joined.runs.queries.get(run.id).status == "cancelled"
    assert_whole(joined, run.id)
