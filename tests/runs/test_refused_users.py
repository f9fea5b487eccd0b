"""A user who is disabled or deleted, or whose workspace is: none of their runs goes on, wherever it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.auth.users import User
from service.runs.slots import USER_REFUSED
from service.store import runs as rows
from service.store import schema, users
from service.store.database import Transaction
from service.types import Caller, Run, RunStatus
from service.wiring import Services
from tests.conftest import RedisServer, wait_until
from tests.llm.wire_server import WireServer
from tests.runs import inside
from tests.runs.scripted import REACT, call, holds, services
from tests.runs.test_kept_output import and_then_silence, says_and_calls

PASSWORD = "a-long-password"
Refuse = Callable[[Services, User], object]
WAYS: dict[str, Refuse] = {
    "disabled": lambda wired, user: wired.auth.users.change(user.id, disabled=True),
    "deleted": lambda wired, user: wired.auth.users.delete(user.id),
    "workspace": lambda wired, user: wired.auth.workspaces.change(user.workspace_id, disabled=True),
}


@pytest.fixture(params=WAYS)
def refuse(request: pytest.FixtureRequest) -> Refuse:
    return WAYS[request.param]


@pytest.fixture
def wired(tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str) -> Iterator[Services]:
    with services(
        tmp_path, redis_server.url, upstream, f"{REACT}approvals: [refund]\n", database_url=url
    ) as made:
        yield made


@pytest.fixture
def eve(wired: Services) -> User:
    row = wired.auth.workspaces.new_row("acme")
    wired.infra.db.transact(lambda tx: wired.auth.workspaces.insert(tx, row))
    return wired.auth.users.create("eve", PASSWORD, workspace_id=row["id"])


def caller(user: User) -> Caller:
    return Caller(user.id, user.username, user.role, workspace_id=user.workspace_id)


def queue(wired: Services, who: Caller) -> Run:
    return wired.runs.start.queue(who, inside.request("Do it."), None, "req").run


def status(wired: Services, run: Run) -> RunStatus:
    return wired.runs.queries.get(run.id).status


def reason(wired: Services, run: Run) -> str:
    """Detail of the problem that a run ended with, which its result has too."""
    found = wired.runs.queries.get(run.id)
    assert found.error is not None and found.result is not None
    assert found.result["error"] == found.error and found.error["code"] == "run_cancelled"
    return str(found.error["detail"])


def test_running_run_is_stopped_and_billed(
    wired: Services, upstream: WireServer, eve: User, refuse: Refuse
) -> None:
    upstream.script.append(and_then_silence("Half an ", "answer"))
    started, told = wired.runs.start.stream(
        caller(eve), inside.request("Do it.", cache="bypass"), None, "req"
    )
    reader = threading.Thread(target=lambda: [None for _ in told])
    reader.start()
    wait_until(lambda: upstream.requests, "the call")
    wired.runs.supervisor._tick(0.0)
    assert status(wired, started.run) is RunStatus.RUNNING
    refuse(wired, eve)
    wired.runs.supervisor._tick(0.0)
    reader.join(20)
    ended = wired.runs.queries.get(started.run.id)
    assert ended.status is RunStatus.CANCELLED and ended.cost_nano > 0 and holds(wired) == 0
    assert reason(wired, ended) == USER_REFUSED


def test_waiting_runs_end_and_their_approvals_are_withdrawn(
    wired: Services, upstream: WireServer, eve: User, refuse: Refuse
) -> None:
    upstream.script += [says_and_calls("I pay. ", call("refund", {"order": "7"}))] * 2
    asks, others = queue(wired, caller(eve)), queue(wired, inside.ADA)
    for run in (asks, others):
        assert wired.runs.execution.take_up(run.id)
        assert status(wired, run) is RunStatus.WAITING_APPROVAL
    queued = queue(wired, caller(eve))
    refuse(wired, eve)
    assert [status(wired, run) for run in (asks, queued)] == [RunStatus.CANCELLED] * 2
    found = wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.approvals)))
    assert {row["run_id"]: row["status"] for row in found} == {asks.id: "cancelled", others.id: "pending"}
    assert {reason(wired, run) for run in (asks, queued)} == {USER_REFUSED}
    assert status(wired, others) is RunStatus.WAITING_APPROVAL
    wired.runs.cancellation.cancel(wired.runs.queries.get(others.id))
    assert reason(wired, others) == "The run was cancelled"


def test_run_that_was_admitted_just_before_is_cancelled_by_its_worker(
    wired: Services, upstream: WireServer, eve: User, refuse: Refuse
) -> None:
    refuse(wired, eve)
    run = queue(wired, caller(eve))
    assert wired.runs.execution.take_up(run.id)
    assert status(wired, run) is RunStatus.CANCELLED and upstream.requests == []
    assert reason(wired, run) == USER_REFUSED


def test_one_thread_cancels_for_those_who_come_meanwhile(
    wired: Services, eve: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their requests are answered at once, and their users' runs are cancelled all the same."""
    bob = wired.auth.users.create("bob", PASSWORD)
    runs = [queue(wired, caller(user)) for user in (eve, bob)]
    reached, released, db = threading.Event(), threading.Event(), wired.infra.db
    found = rows.waiting_of_refused

    def held(tx: Transaction, limit: int) -> list[str]:
        due = found(tx, limit)
        if not reached.is_set():
            reached.set()
            released.wait(30)
        return due

    monkeypatch.setattr(rows, "waiting_of_refused", held)
    first = threading.Thread(target=lambda: wired.auth.users.change(eve.id, disabled=True))
    first.start()
    assert reached.wait(30)
    db.transact(lambda tx: users.update(tx, bob.id, {"disabled": True}))
    second = threading.Thread(target=wired.runs.cancellation.of_refused)
    second.start()
    second.join(30)
    assert first.is_alive() and not second.is_alive()
    released.set()
    first.join(30)
    assert [status(wired, run) for run in runs] == [RunStatus.CANCELLED] * 2
