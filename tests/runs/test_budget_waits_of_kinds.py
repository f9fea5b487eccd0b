"""Waits for money of trees, batches and cached agents; of refused users; without Redis; and where writes run twice."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from service.errors import BudgetExceeded
from service.types import NANO, Caller, Event, Run, RunStatus
from service.wiring import Services
from tests.conftest import Model, RedisServer
from tests.llm.wire_server import MESSAGE, WireServer, whole
from tests.runs import inside, newsroom, scripted
from tests.runs.batch.test_submitter import finish, is_sound, item, until_answered
from tests.runs.newsroom import PLAN, Script, assert_whole, told
from tests.runs.scripted import Upstream, call, calls
from tests.runs.test_budget_waits import cap, either, look, named, status, waiting
from tests.runs.test_stops import meanwhile, taken_up
from tests.twice import Way, write_twice

CACHED = "cache: {ttl_seconds: 600}\n"


def test_tree_waits_for_its_whole_hold(tmp_path: Path, redis_server: RedisServer, url: str) -> None:
    script = Script(PLAN, {})
    upstream = Upstream(script)
    with newsroom.services(tmp_path, redis_server.url, upstream.url, database_url=url) as wired:
        cap(wired, 50_000_000)  # half of the tree
        run = inside.ask(wired, "Of cats and dogs.", cache="bypass", on_cap="pause")
        assert run.status is RunStatus.WAITING_BUDGET and run.result is not None
        assert run.result["waits_for"]["needed_usd"] == "0.100000" and script.asked == []
        cap(wired, NANO)
        look(wired)
        ended = taken_up(wired, run)
        assert ended.status is RunStatus.SUCCEEDED and len(script.asked) == 2
        assert [body for body in script.bodies if "output_config" in body][1:] == [], "planned again"
        assert_whole(wired, run.id)
        assert sum(event.name is Event.BUDGET_REQUIRED for event in told(wired, ended)) == 1
    upstream.stop()


def test_bounds_that_are_no_caps_end_the_run(tmp_path: Path, redis_server: RedisServer) -> None:
    upstream = Upstream(whole(MESSAGE))
    few = scripted.services(tmp_path, redis_server.url, upstream, budget_run_usd="0.000001")
    with few as wired, pytest.raises(BudgetExceeded):
        scripted.ask(wired, on_cap="pause")
    upstream.stop()


def test_step_of_a_batch_waits(tmp_path: Path, redis_server: RedisServer, model: Model) -> None:
    model.reset()
    with inside.services(tmp_path, redis_server.url, model.url, batch_max_wait_seconds=0) as wired:
        cap(wired, 1)
        run = waiting(wired, priority="batch", tier="medium")
        assert item(wired, run) is None
        cap(wired, NANO)
        look(wired)
        assert finish(wired, run).status is RunStatus.QUEUED and item(wired, run) is not None
        until_answered(wired, run)
        assert finish(wired, run).status is RunStatus.SUCCEEDED
        is_sound(wired)


@pytest.mark.parametrize("way", ["disabled", "deleted"])
def test_run_of_a_refused_user_ends(acting: Services, upstream: WireServer, way: str) -> None:
    eve = acting.auth.users.create("eve", "a-long-password")
    cap(acting, 1, "agent:probe")
    asked = inside.request("Do it.", on_cap="pause")
    run = acting.runs.start.queue(Caller(eve.id, "eve", "user"), asked, None, "req").run
    assert taken_up(acting, run).status is RunStatus.WAITING_BUDGET
    if way == "disabled":
        acting.auth.users.change(eve.id, disabled=True)
    else:
        acting.auth.users.delete(eve.id)
    assert status(acting, run) is RunStatus.CANCELLED


def test_waiting_run_holds_up_no_other_with_its_question(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    upstream.otherwise = either
    spec = f"{inside.SINGLE}tier: {{default: simple, ask: false}}\n{CACHED}"
    with scripted.services(tmp_path, redis_server.url, upstream, spec) as wired:
        cap(wired, 1)
        for _ in range(2):
            assert scripted.ask(wired, cache="default", on_cap="pause").status is RunStatus.WAITING_BUDGET
        cap(wired, NANO)
        assert scripted.ask(wired, cache="default").status is RunStatus.SUCCEEDED
        assert scripted.ask(wired, cache="default").cache == "hit"


def test_without_redis_a_run_waits_and_goes_on(tmp_path: Path, upstream: WireServer) -> None:
    upstream.otherwise = either
    with scripted.services(tmp_path, "redis://127.0.0.1:9/0", upstream) as wired:
        cap(wired, 1)
        run = waiting(wired)
        cap(wired, NANO)
        look(wired)
        assert taken_up(wired, run).status is RunStatus.SUCCEEDED
        assert named(wired, run).count(Event.BUDGET_REQUIRED) == 1


@pytest.mark.parametrize("way", get_args(Way))
def test_writes_that_run_twice_wait_once(
    kept_in_each: Services, upstream: WireServer, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    wired = kept_in_each
    upstream.otherwise = either
    upstream.script += [meanwhile(lambda: cap(wired, 1), calls(call("echo", {"text": "a"})))]
    write_twice(way, monkeypatch)
    run = scripted.ask(wired, on_cap="pause")
    assert run.status is RunStatus.WAITING_BUDGET
    cap(wired, NANO)
    look(wired)
    ended: Run = taken_up(wired, run)
    assert ended.status is RunStatus.SUCCEEDED and len(upstream.requests) == 2
    assert named(wired, run).count(Event.BUDGET_REQUIRED) == 1
    is_sound(wired)
