"""Approvals that nobody decides about in time: denied by the sweep, on both databases, also where writes run twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import sqlalchemy as sa

from service import approvals
from service.audit.record import Action
from service.errors import AlreadyDecided
from service.store import schema, sweep, workers
from service.store.sweep import Work
from service.types import Event, RunStatus, now_ms
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer
from tests.runs import scripted, waiting
from tests.runs.scripted import bodies, call, stream_of
from tests.runs.test_kept_output import says_and_calls
from tests.twice import Way, write_twice

WEEK = 604_800_000


@pytest.fixture(params=get_args(Way))
def wired(
    tmp_path: Path,
    redis_server: RedisServer,
    upstream: WireServer,
    url: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Services]:
    with scripted.services(tmp_path, redis_server.url, upstream, waiting.ASKS, database_url=url) as services:
        write_twice(request.param, monkeypatch)
        worker_id = services.runs.execution.worker_id
        services.infra.db.transact(lambda tx: workers.register(tx, worker_id, "web", "here", 1, 60_000))
        yield services


def let_expire(wired: Services, approval_id: str) -> None:
    row = sa.update(schema.approvals).where(schema.approvals.c.id == approval_id)
    wired.infra.db.transact(lambda tx: tx.execute(row.values(expires_at=now_ms() - 1)))


def is_due(wired: Services) -> bool:
    due = wired.infra.db.query(lambda tx: sweep.due(tx, wired.runs.execution.worker_id))
    return Work.EXPIRED_APPROVALS in due


def test_undecided_call_is_denied_and_the_run_goes_on(wired: Services, upstream: WireServer) -> None:
    pay = [call("refund", {"order": str(n)}, f"toolu_{n}") for n in (1, 2)]
    upstream.script = [says_and_calls("I pay. ", *pay), stream_of("Only one.")]
    run = waiting.begin(wired)
    first, second = waiting.asked(wired, run)
    assert abs(first["expires_at"] - first["created_at"] - WEEK) < 60_000
    assert not is_due(wired)
    waiting.decide(wired, first, "approve")
    let_expire(wired, second["id"])
    assert is_due(wired)
    with pytest.raises(AlreadyDecided, match="has expired"):
        waiting.decide(wired, second, "approve")
    approvals.expire(wired.infra.db, wired.infra.metrics.approval)
    approvals.expire(wired.infra.db, wired.infra.metrics.approval)
    assert not is_due(wired)
    counted = wired.infra.metrics.render()[0].decode()
    assert f'slipway_escalations_total{{agent="{run.agent}"}} 1.0' in counted  # of two calls
    assert f'slipway_approvals_total{{agent="{run.agent}",decision="expired"}} 1.0' in counted
    assert waiting.go_on(wired, run).status is RunStatus.SUCCEEDED
    assert waiting.made(wired, run) == [("refund", {"order": "1"})]
    results = bodies(upstream)[-1]["messages"][-1]["content"]
    assert results[1]["content"] == "Nobody approved this call in time, so it was not made."
    told = [event.data for event in wired.runs.queries.so_far(run.id) if event.name is Event.APPROVAL_DECIDED]
    assert [(data["decision"], data["comment"]) for data in told] == [
        ("approve", None),
        ("deny", "Nobody decided in time."),
    ]
    audited = wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.audit).order_by(schema.audit.c.id)))
    denied = [row for row in audited if row["action"] == Action.APPROVAL_DENIED]
    assert [(row["actor"], row["subject"]) for row in denied] == [("service", f"approval:{second['id']}")]


def test_decision_in_time_stands(wired: Services, upstream: WireServer) -> None:
    upstream.script = [says_and_calls("I pay. ", call("refund", {"order": "1"})), stream_of("Done.")]
    run = waiting.begin(wired)
    [asked] = waiting.asked(wired, run)
    waiting.decide(wired, asked, "approve")
    let_expire(wired, asked["id"])
    assert not is_due(wired)
    approvals.expire(wired.infra.db)
    assert [row["status"] for row in waiting.asked(wired, run)] == ["approved"]


def test_cancelled_run_has_nothing_to_expire(wired: Services, upstream: WireServer) -> None:
    upstream.script = [says_and_calls("I pay. ", call("refund", {"order": "1"}))]
    run = waiting.begin(wired)
    [asked] = waiting.asked(wired, run)
    wired.runs.cancellation.cancel(run)
    let_expire(wired, asked["id"])
    assert not is_due(wired)
    approvals.expire(wired.infra.db)
    assert [row["status"] for row in waiting.asked(wired, run)] == ["cancelled"]
