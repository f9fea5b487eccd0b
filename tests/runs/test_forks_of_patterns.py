"""Forks of every pattern, from each of its steps, with the agents of this repository and the offline model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import NotForkable
from service.wiring import Services
from tests.conftest import ROOT, Model, RedisServer
from tests.llm.wire_server import WireServer
from tests.runs import coded, inside, newsroom
from tests.runs.forking import claims, fork, queued, reply, steps
from tests.runs.scripted import ask, bodies, call, holds, kept, says, services

QUESTIONS = {
    "assistant": "What can you do?",
    "analyst": "What is 17% of 2340?",
    "support": "Within how many days can I get a refund?",
    "research": "How does delta sync save bandwidth?",
    "writer": "Write a short note about backups.",
    "newsroom": "Compare sync and backup.",
}


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, model: Model
) -> Iterator[Services]:
    home = tmp_path_factory.mktemp("forks")
    with inside.services(home, redis_server.url, model.url, agents_dir=ROOT / "agents") as services:
        yield services


@pytest.mark.parametrize("agent", QUESTIONS)
def test_each_step_can_be_forked(house: Services, agent: str) -> None:
    run = inside.ask(house, QUESTIONS[agent], agent=agent, cache="bypass")
    assert run.status == "succeeded" and run.result is not None
    rows = [row for row in kept(house, run) if row["kind"] != "note"]
    for row in rows[:: max(1, len(rows) // 3)]:
        again = fork(house, run, row["n"])
        assert again.result is not None and again.status == "succeeded", again.error
        made = steps(house, again)
        before = [one for one in rows if one["n"] < row["n"]]
        assert made[: len(before)] == [(one["kind"], one["name"], 0) for one in before]
        assert all(attempt == 1 for _, _, attempt in made[len(before) :])
        assert again.result["output"] == run.result["output"]
        paid = sum(one["cost_nano"] for one in rows if one["n"] >= row["n"])
        assert again.cost_nano <= paid and not claims(house, again)
    assert holds(house) == 0


def test_call_of_own_code_has_its_recorded_result(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    upstream.script = [reply(call("echo", {"text": "all"})), reply(says("Paid."))]
    upstream.otherwise = reply(says("Paid again."))
    with coded.services(tmp_path, redis_server.url, upstream, coded.WHOLE) as wired:
        run = ask(wired)
        assert coded.MADE == ["all"]
        for step in (2, 3, 4):
            again = fork(wired, run, step)
            assert (again.status, coded.MADE, claims(wired, again)) == ("succeeded", ["all"], set())
            assert bodies(upstream)[-1]["messages"] == bodies(upstream)[1]["messages"]


def test_calls_of_sub_agents_are_not_made_again(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    agents = {**newsroom.AGENTS, "worker": newsroom.WORKER.replace("approvals: [refund]\n", "")}
    turns = [reply(call("refund", {"order": "7"})), reply(says("Did it."))]
    script = newsroom.Script([("worker", "One."), ("worker", "Two.")], {"One.": turns, "Two.": turns})
    upstream.otherwise = script
    with newsroom.services(tmp_path, redis_server.url, upstream.url, agents) as wired:
        run = ask(wired)
        assert len(claims(wired, run)) == 2
        for step in [row["n"] for row in kept(wired, run) if row["kind"] != "note"]:
            again = fork(wired, run, step)
            assert (again.status, claims(wired, again)) == ("succeeded", set())
            results = [
                body["messages"][2]["content"][0] for body in script.bodies if len(body["messages"]) == 3
            ]
            assert {result["content"] for result in results} == {"refunded 7"}
            newsroom.assert_whole(wired, again.id)


def test_conversation_is_that_of_the_forked_turn(acting: Services, upstream: WireServer) -> None:
    upstream.otherwise = reply(says("Good day."))
    session_id = acting.sessions.begin_for(inside.ADA, "probe")
    turns = [ask(acting, session_id=session_id) for _ in range(3)]
    asked = bodies(upstream)[1]["messages"]
    again = fork(acting, turns[1], 1)
    assert bodies(upstream)[-1]["messages"] == asked and again.request.session_id is None
    assert fork(acting, again, 1).status == "succeeded" and bodies(upstream)[-1]["messages"] == asked
    assert len(acting.sessions.messages(session_id, limit=100, before=None)) == 6
    made = queued(acting, turns[1], 1)
    assert acting.sessions.delete(session_id)
    assert acting.runs.execution.take_up(made.id)
    assert (acting.runs.queries.get(made.id).error or {})["code"] == "not_forkable"
    with pytest.raises(NotForkable):
        queued(acting, again, 1)


def test_kept_summary_is_used(tmp_path: Path, redis_server: RedisServer, upstream: WireServer) -> None:
    """Fork a turn whose first step sums up the session, although the session has that summary by now."""
    upstream.otherwise = reply(says("Long ago. " * 60))
    with services(tmp_path, redis_server.url, upstream, session_history_tokens=500) as wired:
        session_id = wired.sessions.begin_for(inside.ADA, "probe")
        turns = [ask(wired, session_id=session_id) for _ in range(6)]
        [summed, *_] = [run for run in turns if ("model", "summarise", 1) in steps(wired, run)]
        asked = [body["messages"] for body in bodies(upstream)]
        for step, names in ((1, ["think 1"]), (2, ["summarise", "think 1"])):  # the first uses the session's
            again = fork(wired, summed, step)
            assert (again.status, [name for _, name, _ in steps(wired, again)]) == ("succeeded", names)
            assert bodies(upstream)[-1]["messages"] in asked
