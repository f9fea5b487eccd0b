"""`tier: auto` in a run: the cheap model is asked where signals contradict each other, in a step that is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.agents.pattern import Prompt
from service.runs.attempt import Attempt
from service.runs.journal import Journal
from service.runs.slots import Handle
from service.runs.steps import RunSteps
from service.store import steps as step_rows
from service.store.database import Row
from service.wiring import Services
from tests.conftest import Model, RedisServer
from tests.runs.inside import SINGLE, ask, services

LONG = "Could you compare the two plans for a team of ten, and say which suits us better? " * 30
CODE = "Why is this slow?\n```\nfor x in y: ...\n```"


def steps(wired: Services, run_id: str) -> list[Row]:
    return wired.infra.db.query(lambda tx: step_rows.of_run(tx, run_id))


def test_plain_question_needs_no_routing_call(
    tmp_path: Path, redis_server: RedisServer, model: Model
) -> None:
    with services(tmp_path, redis_server.url, model.url) as wired:
        run = ask(wired)
        assert (run.status, run.tier) == ("succeeded", "simple"), run.error
        assert [row["name"] for row in steps(wired, run.id)] == ["answer"]


def test_where_signs_contradict_each_other_the_cheap_model_decides(
    tmp_path: Path, redis_server: RedisServer, model: Model
) -> None:
    model.reset()
    with services(tmp_path, redis_server.url, model.url) as wired:
        run = ask(wired, CODE)
        kept = steps(wired, run.id)
    assert [row["name"] for row in kept] == ["route", "answer"]
    assert kept[0]["reply"]["model"].endswith("haiku-5-5")
    assert f'"{run.tier}"' in kept[0]["reply"]["content"][0]["text"]
    assert run.cost_nano == sum(row["cost_nano"] for row in kept) and kept[0]["cost_nano"] > 0
    assert model.stats()["calls"] == 2


@pytest.mark.parametrize("tier", ["  ask: false", "  floor: medium\n  ceiling: medium"])
def test_an_agent_may_do_without(tmp_path: Path, redis_server: RedisServer, model: Model, tier: str) -> None:
    with services(tmp_path, redis_server.url, model.url, {"probe": f"{SINGLE}tier:\n{tier}\n"}) as wired:
        run = ask(wired, LONG)
        assert run.tier == "medium"
        assert [row["name"] for row in steps(wired, run.id)] == ["answer"]


def test_where_the_cheap_model_is_down_the_run_goes_on(
    tmp_path: Path, redis_server: RedisServer, model: Model
) -> None:
    """And says so in a kept step: another worker that takes the run up must come to the same steps."""
    with services(tmp_path, redis_server.url, model.url, model_retries=0) as wired:
        model.control(fault="garbage", times=1)
        run = ask(wired, CODE)
        kept = steps(wired, run.id)
    assert (run.status, run.tier) == ("succeeded", "medium"), run.error
    assert [row["name"] for row in kept] == ["route", "answer"]
    assert kept[0]["reply"]["content"] == []


def test_resumed_run_repeats_no_routing_call(tmp_path: Path, redis_server: RedisServer, model: Model) -> None:
    with services(tmp_path, redis_server.url, model.url) as wired:
        first = ask(wired, CODE)
        model.reset()
        run = wired.runs.queries.get(first.id)
        run.tier = None  # as in a run that was lost on its way: it is written at the end
        journal = Journal(wired.infra.db, run, lambda events: None, stored=steps(wired, run.id))
        steps_of, agent = wired.runs.execution.runner.steps, wired.runs.start.new_runs.agent("probe")
        again = RunSteps(steps_of, agent, Attempt(run, journal, Handle(run.id, 10)))
        assert list(again.model("answer", Prompt("", run.request.messages))) == []
        assert (run.tier, journal.steps, model.stats()["calls"]) == (first.tier, 2, 0)
