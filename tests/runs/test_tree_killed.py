"""Sub-agents whose worker is killed: after any number of writes, and again in the attempt that goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.types import Event
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer
from tests.runs import inside, newsroom
from tests.runs.newsroom import Script, assert_whole, told, uses
from tests.runs.scripted import Upstream, message, says

PLAN = [("writer", "Write of cats."), ("worker", "Work 1."), ("worker", "Work 2.")]
WRITES = 22  # of a run without a kill, about


class Killed(BaseException):
    """Raised in every thread of a worker that is killed, wherever it would write next."""


@pytest.fixture(scope="module")
def script() -> Script:
    used = [uses("echo", {"text": "woof"}), message(says("Dogs bark."))]
    return Script(PLAN, {"Work 1": used, "Work 2": used})


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, script: Script
) -> Iterator[Services]:
    upstream: WireServer = Upstream(script)
    home: Path = tmp_path_factory.mktemp("killed")
    with newsroom.services(home, redis_server.url, upstream.url) as wired:
        yield wired
    upstream.stop()


class Worker:
    """The writes of a worker, of which so many succeed before it is killed."""

    def __init__(self, wired: Services, patch: pytest.MonkeyPatch, writes: int) -> None:
        self._left = writes
        self._lock = threading.Lock()
        self._transact = wired.infra.db.transact
        patch.setattr(wired.infra.db, "transact", self.transact)

    def transact(self, *args: Any, **options: Any) -> Any:
        with self._lock:
            self._left -= 1
            if self._left < 0:
                raise Killed
        return self._transact(*args, **options)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=st.integers(1, WRITES), again=st.integers(2, WRITES))
def test_run_goes_on_where_each_branch_was(killed: Services, script: Script, first: int, again: int) -> None:
    """Whenever its worker is killed, each event is told once, and every cap and call is accounted for."""
    before = len(script.asked)
    run_id = killed.runs.start.queue(inside.ADA, inside.request("Of cats and dogs."), None, "req").run.id
    for writes in (first, again, 10_000):
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            Worker(killed, patch, writes)
            killed.runs.execution.take_up(run_id)
    run = killed.runs.queries.get(run_id)
    assert run.result is not None and run.status == "succeeded", run.error
    assert run.result["output"] == "Joined." and run.result["steps"] == 9
    assert len(run.result["tools"]) == 5
    events = told(killed, run)
    assert sum(event.name is Event.RUN_STARTED for event in events) == 1
    assert_whole(killed, run_id)
    assert len(script.asked) - before <= 5 + 2 * len(PLAN)  # a kill repeats one call of each branch at most
