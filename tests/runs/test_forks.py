"""Forks: kept steps as they were, tools answered from the record, paid by who forks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service import approvals
from service.errors import Forbidden, Invalid, NotForkable, NotFound
from service.runs.forks import Wanted
from service.runs.recorded_calls import NOT_MADE
from service.store import runs as rows
from service.store import schema
from service.store.approvals import Decision
from service.types import Caller, Event, RunStatus
from service.usage.ledger import check
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import Exchange, WireServer, whole
from tests.runs import guarded, inside
from tests.runs.forking import OPERATOR, approvals_of, claims, fork, queued, reply, steps
from tests.runs.scripted import ask, bodies, call, holds, says
from tests.usage.house import TABLE


@pytest.fixture(autouse=True)
def good_day(upstream: WireServer) -> None:
    """Answer tasks too, which are streamed."""
    upstream.otherwise = reply(says("Good day."))


BOB = Caller("usr_bob", "bob", "user")


def told_results(upstream: WireServer, number: int) -> list[str]:
    """Contents of the tool results in the last turn of a request."""
    content = bodies(upstream)[number]["messages"][-1]["content"]
    return [
        block["content"] if isinstance(block["content"], str) else block["content"][0]["text"]
        for block in content
    ]


def done(wired: Services) -> list[str]:
    """Effects that the tool `refund` has had."""
    tool = wired.agents.agents["probe"].tools["refund"]
    found: list[str] = tool.run.__closure__[-1].cell_contents.__globals__["DONE"]  # type: ignore[attr-defined]
    return found


def refunded(wired: Services, upstream: WireServer) -> Any:
    """A run that paid money back in its second step, and answered in its third."""
    upstream.script = [reply(call("refund", {"order": "7"})), reply(says("Paid 7."))]
    run = ask(wired)
    assert run.status == "succeeded" and len(steps(wired, run)) == 3
    return run


def test_answer_is_made_anew_from_kept_steps(kept_in_each: Services, upstream: WireServer) -> None:
    wired, run = kept_in_each, refunded(kept_in_each, upstream)
    upstream.script = [reply(says("Paid, thank you."))]
    again = fork(wired, run, 3)
    assert again.result is not None and again.result["output"] == "Paid, thank you."
    assert [attempt for _, _, attempt in steps(wired, again)] == [0, 0, 1]
    assert [step[:2] for step in steps(wired, again)] == [step[:2] for step in steps(wired, run)]
    assert bodies(upstream)[2]["messages"] == bodies(upstream)[1]["messages"]
    assert [use["name"] for use in again.result["tools"]] == ["refund"]
    assert done(wired) == ["7"] and not claims(wired, again)


def test_only_new_calls_are_paid(kept_in_each: Services, upstream: WireServer) -> None:
    wired, run = kept_in_each, refunded(kept_in_each, upstream)
    one = fork(wired, run, 3)
    assert 0 < one.cost_nano == run.cost_nano // 2
    assert (holds(wired), check(wired.infra.db, TABLE).faults) == (0, [])
    nothing_kept = fork(wired, run, 1)
    assert nothing_kept.cost_nano == run.cost_nano // 2, "its only reply calls no tool"


def test_same_call_has_the_recorded_result(acting: Services, upstream: WireServer) -> None:
    run = refunded(acting, upstream)
    upstream.script = [reply(call("refund", {"order": "7"}, "toolu_9")), reply(says("Paid."))]
    again = fork(acting, run, 1)
    assert (again.status, done(acting), claims(acting, again)) == ("succeeded", ["7"], set())
    assert told_results(upstream, 3) == ["refunded 7"]


def test_another_call_is_not_made(acting: Services, upstream: WireServer) -> None:
    run = refunded(acting, upstream)
    upstream.script = [reply(call("refund", {"order": "8"}), call("echo", {"text": "x"}, "toolu_2"))]
    again = fork(acting, run, 1)
    assert again.result is not None and [use["ok"] for use in again.result["tools"]] == [False, False]
    assert told_results(upstream, 3) == [NOT_MADE, NOT_MADE]
    assert (done(acting), claims(acting, again), approvals_of(acting, again)) == (["7"], set(), 0)


def test_decisions_are_replayed_and_nobody_is_asked(acting_asking: Services, upstream: WireServer) -> None:
    wired = acting_asking
    upstream.script = [reply(call("refund", {"order": "7"}))]
    run = ask(wired)
    assert run.status == "waiting_approval"
    with pytest.raises(NotForkable, match="waiting_approval"):
        queued(wired, run, 1)
    [approval] = (run.result or {})["approvals"]
    decision = Decision("approve", None, {"order": "6"}, "dec_1")
    wired.infra.db.transact(lambda tx: approvals.decide(tx, OPERATOR, approval, decision))
    assert wired.runs.execution.take_up(run.id)
    upstream.script = [
        reply(call("refund", {"order": "7"}, "toolu_9"), call("refund", {"order": "6"}, "toolu_8"))
    ]
    again = fork(wired, wired.runs.queries.get(run.id), 1)
    assert (again.status, done(wired), approvals_of(wired, again)) == ("succeeded", ["6"], 0)
    assert told_results(upstream, 3) == ["refunded 6", NOT_MADE], "by what the model asked for"


def test_prompt_and_model_are_an_operators(acting: Services, upstream: WireServer) -> None:
    run = refunded(acting, upstream)
    again = fork(acting, run, 3, prompt="Be brief.", model="claude-sonnet-5")
    asked = bodies(upstream)[2]
    assert asked["model"] == "claude-sonnet-5" and "Be brief." in str(asked["system"])
    assert "Be good." not in str(asked["system"]) and again.status == "succeeded"
    for override in ({"prompt": "Be brief."}, {"model": "claude-sonnet-5"}):
        with pytest.raises(Forbidden):
            queued(acting, run, 3, inside.ADA, **override)
    assert fork(acting, run, 3, inside.ADA).status == "succeeded"
    with pytest.raises(Invalid):
        queued(acting, run, 3, model="gpt-0")
    scoped = OPERATOR._replace(scopes=("models:claude-haiku-5-5",))
    with pytest.raises(Forbidden):
        queued(acting, run, 3, scoped, model="claude-sonnet-5")


def test_whose_runs_are_forked(acting: Services, upstream: WireServer) -> None:
    run = refunded(acting, upstream)
    for caller in (BOB, BOB._replace(role="operator", workspace_id="wsp_other")):
        with pytest.raises(NotFound):
            queued(acting, run, 1, caller)
    elsewhere = BOB._replace(role="operator", workspace_id="wsp_other")
    with acting.infra.db.engine.begin() as connection:
        connection.execute(sa.update(schema.runs).values(workspace_id="wsp_other"))
    service_admin = BOB._replace(role="admin")
    with pytest.raises(NotForkable):
        queued(acting, run, 1, service_admin)
    assert acting.runs.forks.request(elsewhere, run.id, Wanted(1)).fork["user_id"] == inside.ADA.user_id  # type: ignore[index]


@pytest.mark.parametrize("step", [0, 4, 99])
def test_unknown_step(acting: Services, upstream: WireServer, step: int) -> None:
    run = refunded(acting, upstream)
    with pytest.raises(Invalid) as refused:
        queued(acting, run, step)
    assert refused.value.errors[0]["pointer"] == "/from_step"


def test_run_that_is_gone_before_its_fork_begins(acting: Services, upstream: WireServer) -> None:
    run = refunded(acting, upstream)
    made = queued(acting, run, 3)
    assert acting.infra.db.transact(lambda tx: rows.delete(tx, [run.id])) == 1
    assert acting.runs.execution.take_up(made.id)
    ended = acting.runs.queries.get(made.id)
    assert (ended.status, (ended.error or {})["code"]) == ("failed", "not_forkable")
    with pytest.raises(NotFound):
        queued(acting, run, 3)


def test_fork_goes_on_after_its_worker_was_lost(acting: Services, upstream: WireServer) -> None:
    """Kill it between its tool step and its answer: the next attempt counts the calls as the first did."""
    run = refunded(acting, upstream)
    made = queued(acting, run, 1)
    upstream.script = [reply(call("refund", {"order": "7"}, "toolu_9"))]

    def lose(exchange: Any) -> None:
        assert acting.runs.execution.take_up(made.id)
        reply(says("Too late."))(exchange)

    upstream.script += [lose, reply(says("Paid."))]
    with acting.infra.db.engine.begin() as connection:
        connection.execute(sa.delete(schema.workers))  # without a lease each run is abandoned
    assert acting.runs.execution.take_up(made.id)
    ended = acting.runs.queries.wait(made.id)
    assert (ended.status, ended.attempt, (ended.result or {})["output"]) == ("succeeded", 2, "Paid.")
    assert (done(acting), holds(acting)) == (["7"], 0)


def test_difference_is_told(acting: Services, upstream: WireServer) -> None:
    run = refunded(acting, upstream)
    upstream.script = [reply(says("Paid 8."))]
    again = fork(acting, run, 3)
    shown = acting.runs.forks.shown(again, OPERATOR)
    assert shown["forked_from"] == {"run_id": run.id, "step": 3, "model": None, "own_prompt": False}
    told = shown["difference"]
    assert (
        told["output_same"] is False
        and "-Paid 7." in told["output_diff"]
        and "+Paid 8." in told["output_diff"]
    )
    assert told["model_calls"] == {"before": 1, "after": 1} and told["tool_calls"] == {
        "before": 0,
        "after": 0,
    }
    assert told["cost_usd"]["before"] == told["cost_usd"]["after"] != "0.000000"
    assert acting.runs.forks.shown(again, BOB)["difference"] is None
    assert acting.runs.forks.shown(run, OPERATOR) == {"forked_from": None, "difference": None}


def test_fork_of_a_fork_and_its_events(acting: Services, upstream: WireServer) -> None:
    run = refunded(acting, upstream)
    first = fork(acting, run, 3)
    second = fork(acting, first, 3)
    assert second.status == "succeeded" and second.request.fork["run_id"] == first.id  # type: ignore[index]
    events = acting.runs.queries.so_far(second.id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[0].name is Event.RUN_STARTED and events[-1].name is Event.RUN_COMPLETED
    assert [event.data["step"] for event in events if event.name is Event.STEP_STARTED] == [3]


def test_code_that_knows_no_forks_has_no_tools(acting: Services, upstream: WireServer) -> None:
    """Workers of an older version may take a fork while both run."""
    made = queued(acting, refunded(acting, upstream), 3)
    assert made.request.tool_scopes == ("tools:none",)
    scoped = OPERATOR._replace(scopes=("tools:read",))
    run = refunded(acting, upstream)
    again = fork(acting, run, 1, scoped)
    assert [tool["name"] for tool in bodies(upstream)[-1]["tools"]] == ["echo", "odd"]
    assert again.status == "succeeded"


def test_failed_run_is_forked_from_its_last_step(acting: Services, upstream: WireServer) -> None:
    upstream.script = [reply(call("refund", {"order": "7"})), reply(says(""), stop="refusal")]
    run = ask(acting)
    assert run.status is RunStatus.FAILED
    for step in (len(steps(acting, run)), len(steps(acting, run)) + 1):
        again = fork(acting, run, step)
        assert (again.status, done(acting)) == ("succeeded" if step == 3 else "failed", ["7"])
    upstream.script = [whole({}, 400)]
    cut_off = ask(acting)
    assert (cut_off.status, steps(acting, cut_off)) == ("failed", [])
    assert fork(acting, cut_off, 1).status == "succeeded"


def test_guarded_call_has_its_recorded_result(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    """The model of the fork reads the same placeholder, and its answer shows none of what is kept from users."""

    def send(exchange: Exchange) -> None:
        [mark] = set(re.findall(r"\[EMAIL_[0-9]+\]", str(exchange.json["messages"])))
        marks.add(mark)
        reply(call("send", {"to": mark}))(exchange)

    marks: set[str] = set()
    rails = "guardrails: {input: {email: redact}, output: {email: mask}}\n"
    with guarded.services(tmp_path, redis_server.url, upstream, rails) as wired:
        upstream.script = [send, reply(says("Sent."))]
        run = inside.ask(wired, f"Send a mail to {guarded.MAIL}.", cache="bypass")
        upstream.script = [send, reply(says(f"Sent to {guarded.OTHER}."))]
        again = fork(wired, run, 1)
        assert (guarded.sent(wired, again), claims(wired, again)) == ([f"sent to {guarded.MAIL}"], set())
        assert len(marks) == 1 and again.result is not None
        assert guarded.OTHER not in again.result["output"]


def test_fork_of_an_old_version_is_under_the_guardrails_of_today(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    with guarded.services(tmp_path, redis_server.url, upstream, "", reload=True) as wired:
        upstream.script = [reply(call("look_up", {"who": "her"})), reply(says("Done."))]
        run = inside.ask(wired, f"Who is {guarded.MAIL}?", cache="bypass")
        rails = "guardrails: {input: {email: redact}, output: {email: mask}}\n"
        (tmp_path / "agents" / "probe" / "agent.yaml").write_text(guarded.SPEC + rails)
        wired.agents.refresh()
        assert wired.agents.agents["probe"].version != run.agent_version
        upstream.script = [reply(says(f"It is {guarded.OTHER}."))]
        again = fork(wired, run, 3)
        assert again.agent_version == run.agent_version
        read = str(bodies(upstream)[-1])
    assert guarded.MAIL not in read and guarded.OTHER not in read
    assert again.result is not None and again.result["output"] == "It is [EMAIL]."
