"""Kill switch: no call of a stopped agent begins, its runs wait, and go on after its release where they were."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service import approvals
from service.audit.record import Action
from service.errors import AgentStopped, NotFound
from service.runs import billing
from service.store import runs as rows
from service.store import schema
from service.store.approvals import Decision
from service.types import Event, Run, RunStatus
from service.usage.ledger import check
from service.usage.reservation import Spending
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import MESSAGE, Exchange, Handler, WireServer, whole
from tests.runs import inside, scripted, turns
from tests.runs.scripted import call, calls, holds, message, says, stream_of
from tests.runs.test_kept_output import says_and_calls
from tests.runs.test_tool_execution import LOOK, PAY, PAY_TOO, Desk


@pytest.fixture
def wired(kept_in_each: Services) -> Services:
    return kept_in_each


def stop(wired: Services, agent: str = "probe") -> None:
    wired.infra.db.transact(lambda tx: wired.runs.stops.stop(tx, agent, "It sends mail to everybody."))


def release(wired: Services, agent: str = "probe") -> None:
    wired.runs.stops.release(agent)


def meanwhile(act: Callable[[], None], answer: Handler) -> Handler:
    """A handler: acts while the model call is under way, then answers."""

    def handler(exchange: Exchange) -> None:
        act()
        answer(exchange)

    return handler


def count(wired: Services, table: sa.Table, *where: Any) -> int:
    query = sa.select(sa.func.count().label("n")).select_from(table).where(*where)
    return int(wired.infra.db.query(lambda tx: tx.rows(query))[0]["n"])


def only_run(wired: Services) -> Run:
    [row] = wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.runs.c.id)))
    return wired.runs.queries.get(row["id"])


def taken_up(wired: Services, run: Run) -> Run:
    assert wired.runs.execution.take_up(run.id)
    return wired.runs.queries.get(run.id)


def is_sound(wired: Services) -> None:
    assert check(wired.infra.db, wired.usage.prices).faults == []
    assert holds(wired) == 0


def test_new_runs_are_refused_without_a_trace(wired: Services, upstream: WireServer) -> None:
    session_id = turns.begin(wired)
    stop(wired)
    for fields in ({}, {"session_id": session_id}):
        with pytest.raises(AgentStopped, match="The agent probe is stopped"):
            scripted.ask(wired, **fields)
        with pytest.raises(AgentStopped):
            scripted.tell(wired, **fields)
        with pytest.raises(AgentStopped):
            wired.runs.start.queue(inside.ADA, inside.request("Do it.", **fields), None, "req")
    assert (upstream.requests, count(wired, schema.runs), holds(wired)) == ([], 0, 0)
    release(wired)
    assert scripted.ask(wired, session_id=session_id).status is RunStatus.SUCCEEDED


def test_stop_is_recorded_once_and_needs_an_agent(wired: Services) -> None:
    with pytest.raises(NotFound):
        stop(wired, "none")
    for change in (stop, stop, release, release):
        change(wired)
    found = wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.audit).order_by(schema.audit.c.id)))
    told = [(row["action"], row["subject"], row["details"]) for row in found]
    assert told == [
        (Action.AGENT_STOPPED, "agent:probe", {}),
        (Action.AGENT_RELEASED, "agent:probe", {}),
    ]


def test_run_under_way_is_billed_and_waits_and_goes_on(wired: Services, upstream: WireServer) -> None:
    asks = calls(says("Let me look. "), call("echo", {"text": "a"}))
    upstream.script += [meanwhile(lambda: stop(wired), asks), message(says("It says a."))]
    run = scripted.ask(wired)
    assert (run.status, run.result and run.result["status"]) == (RunStatus.PAUSED, RunStatus.PAUSED)
    assert run.cost_nano > 0 and len(upstream.requests) == 1
    assert only_run(wired).status is RunStatus.PAUSED
    is_sound(wired)
    assert not wired.runs.execution.take_up(run.id), "claimed while it is stopped"
    release(wired)
    ended = taken_up(wired, run)
    assert (ended.status, ended.attempt, ended.losses) == (RunStatus.SUCCEEDED, 2, 0)
    assert ended.result is not None and ended.result["output"] == "It says a."
    assert len(upstream.requests) == 2 and ended.cost_nano > run.cost_nano
    is_sound(wired)


def test_stream_ends_with_a_reconnect_and_its_followers_too(wired: Services, upstream: WireServer) -> None:
    asks = says_and_calls("Let me look. ", call("echo", {"text": "a"}))
    upstream.script += [meanwhile(lambda: stop(wired), asks), stream_of("It says a.")]
    told = scripted.tell(wired)
    assert told[-1].name is Event.RECONNECT and scripted.text_of(told) == "Let me look. "
    run = only_run(wired)
    assert [[event.name for event in batch] for batch in wired.runs.queries.follow(run.id, told[-1].seq)] == [
        [Event.RECONNECT]
    ]
    assert wired.runs.queries.wait(run.id).status is RunStatus.PAUSED
    release(wired)
    taken_up(wired, run)
    rest = [event for batch in wired.runs.queries.follow(run.id, told[-1].seq) for event in batch]
    assert [event.name for event in [*told, *rest]].count(Event.TOOL_CALLED) == 1
    assert rest[-1].name is Event.RUN_COMPLETED and scripted.text_of(rest) == "It says a."


def test_retry_is_a_call_too(wired: Services, upstream: WireServer) -> None:
    failing = whole({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, status=529)
    upstream.script += [meanwhile(lambda: stop(wired), failing), whole(MESSAGE)]
    run = scripted.ask(wired)
    assert (run.status, len(upstream.requests)) == (RunStatus.PAUSED, 1)
    is_sound(wired)
    release(wired)
    assert taken_up(wired, run).status is RunStatus.SUCCEEDED and len(upstream.requests) == 2
    is_sound(wired)


def test_stop_during_a_tool_call_repeats_nothing(wired: Services) -> None:
    """The call under way is made once and kept; those after it are made after the release, without a person."""
    desk = Desk(wired)
    desk.while_called = lambda: stop(wired)
    with pytest.raises(AgentStopped):
        desk.use(PAY, PAY_TOO, LOOK)
    desk.journal.leave(RunStatus.PAUSED, rows.pause)
    assert desk.made == ["1"] and desk.statuses() == {"toolu_pay": "done"}
    told = [(action, result) for action, result, *_ in audited(wired)]
    assert told == [
        (Action.TOOL_CALLED, "ok"),
        (Action.TOOL_CALLED, "ok"),
        (Action.TOOL_CALLED, "ok"),
        (Action.TOOL_FINISHED, "ok"),
        (Action.TOOL_FINISHED, "refused"),
        (Action.TOOL_FINISHED, "refused"),
    ]
    desk.while_called = lambda: None
    release(wired)
    desk._take()
    assert [result.content for result in desk.use(PAY, PAY_TOO, LOOK)] == ["made 1", "made 3", "made 2"]
    assert desk.made == ["1", "3", "2"] and count(wired, schema.approvals) == 0


def audited(wired: Services) -> list[tuple[str, str]]:
    found = wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.audit).order_by(schema.audit.c.id)))
    return [(row["action"], row["result"]) for row in found if row["action"].startswith("tool.")]


def test_call_that_begins_late_after_its_hold_is_checked_again(
    wired: Services, upstream: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the answer to a commit hung, or the process did."""
    reserve = Spending.reserve

    def then_hang(self: Spending, *args: Any) -> Any:
        reserved = reserve(self, *args)
        stop(wired)
        return reserved

    monkeypatch.setattr(Spending, "reserve", then_hang)
    monkeypatch.setattr(billing, "LATE", -1.0)
    run = scripted.ask(wired)
    assert (run.status, run.cost_nano, upstream.requests) == (RunStatus.PAUSED, 0, [])
    is_sound(wired)


def test_paused_run_can_be_cancelled(wired: Services, upstream: WireServer) -> None:
    upstream.script.append(meanwhile(lambda: stop(wired), calls(call("echo", {"text": "a"}))))
    run = scripted.ask(wired)
    wired.runs.cancellation.cancel(run)
    assert wired.runs.queries.get(run.id).status is RunStatus.CANCELLED


def test_run_cancelled_just_before_it_paused_ends_though_its_agent_is_stopped(
    wired: Services, upstream: WireServer
) -> None:
    def act() -> None:
        stop(wired)
        wired.infra.db.transact(lambda tx: rows.ask_cancel(tx, running_id(wired)))

    upstream.script.append(meanwhile(act, calls(call("echo", {"text": "a"}))))
    run = scripted.ask(wired)
    assert run.status is RunStatus.PAUSED
    assert [row["id"] for row in wired.infra.db.query(lambda tx: rows.waiting(tx, 9))] == [run.id]
    assert taken_up(wired, run).status is RunStatus.CANCELLED


def running_id(wired: Services) -> str:
    query = sa.select(schema.runs.c.id).where(schema.runs.c.status == RunStatus.RUNNING)
    return str(wired.infra.db.query(lambda tx: tx.rows(query))[0]["id"])


def test_queued_tasks_wait_in_the_queue(wired: Services, upstream: WireServer) -> None:
    upstream.script.append(stream_of("Done."))  # its events can be followed
    run = wired.runs.start.queue(inside.ADA, inside.request("Do it."), None, "req").run
    stop(wired)
    assert not wired.runs.execution.take_up(run.id)
    assert wired.infra.db.query(lambda tx: rows.waiting(tx, 9)) == [] and upstream.requests == []
    release(wired)
    assert [row["id"] for row in wired.infra.db.query(lambda tx: rows.waiting(tx, 9))] == [run.id]
    assert taken_up(wired, run).status is RunStatus.SUCCEEDED


def test_decided_run_waits_for_the_release(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str
) -> None:
    upstream.script += [says_and_calls("I pay. ", call("refund", {"order": "7"})), stream_of("Paid.")]
    spec = f"{scripted.REACT}approvals: [refund]\n"
    with scripted.services(tmp_path, redis_server.url, upstream, spec, database_url=url) as wired:
        run = wired.runs.start.queue(inside.ADA, inside.request("Do it."), None, "req").run
        assert taken_up(wired, run).status is RunStatus.WAITING_APPROVAL
        stop(wired)
        [asked] = wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.approvals)))
        yes = Decision("approve", None, None, "dec_1")
        operator = inside.ADA._replace(role="operator")
        wired.infra.db.transact(lambda tx: approvals.decide(tx, operator, asked["id"], yes))
        assert only_run(wired).status is RunStatus.QUEUED and not wired.runs.execution.take_up(run.id)
        release(wired)
        assert taken_up(wired, run).status is RunStatus.SUCCEEDED and len(upstream.requests) == 2
        is_sound(wired)


def test_cached_answers_of_a_stopped_agent_are_refused(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str
) -> None:
    spec = inside.SINGLE + "cache: {ttl_seconds: 600}\n"
    with scripted.services(tmp_path, redis_server.url, upstream, spec, database_url=url) as wired:

        def caches() -> list[str]:
            return [inside.ask(wired, "What is cached?").cache for _ in range(2)]

        assert caches()[1] == "hit"
        stop(wired)
        with pytest.raises(AgentStopped):
            inside.ask(wired, "What is cached?")
        wired.infra.redis_store.client.delete("slipway:distrusted")  # evicted
        for _ in range(2):  # the second one reads what was loaded for the first
            with pytest.raises(AgentStopped):
                inside.ask(wired, "What is cached?")
        release(wired)
        assert caches()[1] == "hit"
        # A mark that outlives its stop is no stop.
        wired.infra.redis_store.client.hset("slipway:distrusted", "agent:probe", "9" * 15)
        assert caches()[1] == "hit"


def test_no_hold_is_committed_after_the_stop(wired: Services) -> None:
    """A stop waits for holds under way, and each later one is refused: whatever runs at once."""
    of_agent = (schema.ledger.c.kind == "hold",)
    ended: list[str] = []

    def ask() -> None:
        for _ in range(20):
            try:
                ended.append(str(scripted.ask(wired).status))
            except AgentStopped:
                return

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    while len(ended) < 12:
        threads[0].join(0.01)
    stop(wired)
    held = count(wired, schema.ledger, *of_agent)
    for thread in threads:
        thread.join()
    assert count(wired, schema.ledger, *of_agent) == held > 0
    assert 12 <= len(ended) < 120 and set(ended) == {"succeeded"}
    is_sound(wired)
