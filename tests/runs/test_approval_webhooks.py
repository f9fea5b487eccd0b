"""Webhooks of approvals: one for each call that waits, in the transaction that asks, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook

from service.store import schema, webhooks
from service.types import now_ms, rfc3339
from service.wiring import Services
from tests.conftest import RedisServer, wait_until
from tests.jobs.house import Receiver
from tests.llm.wire_server import WireServer
from tests.runs import inside, scripted, waiting
from tests.runs.scripted import call, stream_of
from tests.runs.test_kept_output import says_and_calls

PAY = [call("refund", {"order": f"secret {n}"}, f"toolu_{n}") for n in (1, 2)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with closing(Receiver()) as somebody:
        yield somebody


@pytest.fixture
def telling(tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str) -> Iterator[Services]:
    options = {"database_url": url, "webhook_allow_private": True}
    with scripted.services(tmp_path, redis_server.url, upstream, waiting.ASKS, **options) as services:
        yield services


def test_each_approval_is_told_once_and_signed(
    telling: Services, upstream: WireServer, receiver: Receiver
) -> None:
    upstream.script = [says_and_calls("I pay secretly. ", *PAY), stream_of("Done.")]
    run = waiting.begin(telling, callback_url=receiver.url)
    asked = waiting.asked(telling, run)
    wait_until(lambda: len(receiver.of(run.id)) == 2, "both deliveries")
    verifier = Webhook(telling.webhooks.secret_of(inside.ADA.user_id))
    for row in asked:
        [told] = receiver.of(row["id"])
        assert told.headers["webhook-id"] == row["id"]
        at = {name: rfc3339(row[name]) for name in ("created_at", "expires_at")}
        about = {
            name: row[name] for name in ("id", "run_id", "user_id", "agent", "call_id", "name", "reason")
        }
        data = {**about, **at, "session_id": None, "input": "Do it.", "status": "pending"}
        body = {"type": "approval.required", "timestamp": at["created_at"], "data": data}
        assert verifier.verify(told.body, told.headers) == body
        assert b"secret" not in told.body
        waiting.decide(telling, row, "deny")
    waiting.go_on(telling, run)
    wait_until(lambda: len(receiver.of(run.id)) == 3, "the delivery of the end")
    assert run.id.encode() in receiver.of('"status":"succeeded"')[0].body


def test_failed_delivery_of_an_approval_is_retried(
    telling: Services, upstream: WireServer, receiver: Receiver
) -> None:
    receiver.statuses = [500]
    upstream.script = [says_and_calls("", PAY[0])]
    run = waiting.begin(telling, callback_url=receiver.url)
    table = schema.approval_webhooks

    def row() -> webhooks.Row | None:
        return telling.infra.db.query(lambda tx: tx.row(sa.select(table)))

    wait_until(lambda: (row() or {})["last_error"] == "Answered 500.", "the first attempt")
    waiting.decide(telling, waiting.asked(telling, run)[0], "deny")
    telling.infra.db.transact(lambda tx: tx.execute(sa.update(table).values(next_at=now_ms())))
    telling.webhooks.send_due()
    wait_until(lambda: (row() or {})["status"] == "delivered", "the second attempt")
    assert b'"status":"denied"' in receiver.of(run.id)[-1].body


def test_run_without_a_callback_tells_nobody(telling: Services, upstream: WireServer) -> None:
    upstream.script = [says_and_calls("", PAY[0])]
    waiting.begin(telling)
    assert telling.infra.db.query(lambda tx: tx.rows(sa.select(schema.approval_webhooks))) == []
