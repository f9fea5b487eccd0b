"""Webhooks, from the task that asked for one to the receiver that checks its signature."""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx2
import orjson
import pytest

from service.store.database import Database
from service.store.schema import metadata
from service.types import Run, RunRequest, RunStatus, now_ms
from service.webhooks import MAX_ATTEMPTS, MAX_DELAY, MAX_SENDERS, Webhooks, retry_delay, signed_headers
from tests.conftest import ROOT, Slipway, free_port
from tests.exhausted import no_threads
from tests.jobs.conftest import (
    _standing_worker,
    client,
    house,
    receiver,
    standing,
    task_redis,
    worker,
)
from tests.jobs.house import House, Receiver, TaskWorker, ended, until
from tests.webhook_db import db

__all__ = ["_standing_worker", "client", "db", "house", "receiver", "standing", "task_redis", "worker"]


def webhook(client: httpx2.Client, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/runs/{run_id}").json()["webhook"]
    return found


def verifier() -> Callable[[str, dict[str, str], bytes], bool]:
    """The example of the docs, word for word."""
    page = (ROOT / "docs/operator.md").read_text()
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "def is_from_slipway" in block
    )
    names: dict[str, Any] = {}
    exec(code, names)  # our own page
    return names["is_from_slipway"]  # type: ignore[no-any-return]


def test_delivery_is_signed(house: House, worker: TaskWorker, client: httpx2.Client) -> None:
    run_id = house.queue(client, "Tell my friend.", callback_url=house.receiver.url)
    ended(client, run_id)
    until(lambda: webhook(client, run_id)["status"] == "delivered", "the delivery")
    [delivery] = house.receiver.of(run_id)
    run = client.get(f"/v1/runs/{run_id}").json()
    about = {name: run[name] for name in ("agent", "agent_version", "user_id", "door", "input")}
    assert orjson.loads(delivery.body) == {"run_id": run_id, "status": "succeeded", **about}
    assert (about["door"], about["input"]) == ("task", "Tell my friend.")
    secret = client.get("/v1/webhooks/secret").json()["secret"]
    assert delivery.headers["webhook-id"].startswith(run_id)
    assert delivery.headers["X-Slipway-Delivery"] == delivery.headers["webhook-id"]
    is_from_slipway = verifier()
    assert is_from_slipway(secret, delivery.headers, delivery.body)
    assert not is_from_slipway("whsec_" + "A" * 43 + "=", delivery.headers, delivery.body)
    assert not is_from_slipway(secret, delivery.headers, delivery.body + b" ")
    for name, value in (("webhook-id", "run_another"), ("webhook-timestamp", str(int(time.time()) - 3600))):
        assert not is_from_slipway(secret, {**delivery.headers, name: value}, delivery.body)


def test_receiver_of_the_release_before_still_verifies() -> None:
    key = bytes(range(32))
    headers = signed_headers(key, "run_1-1", b"{}")
    timestamp = headers["X-Slipway-Timestamp"]
    signed = hmac.new(f"whsec_{key.hex()}".encode(), timestamp.encode() + b".{}", hashlib.sha256).hexdigest()
    assert headers["X-Slipway-Signature"] == f"v1={signed}"


def test_failed_delivery_is_retried(house: House, worker: TaskWorker, client: httpx2.Client) -> None:
    house.receiver.statuses = [500, 302]
    run_id = house.queue(client, "Tell my busy friend.", callback_url=house.receiver.url)
    for attempts, error in ((1, "Answered 500."), (2, "Answered 302.")):
        until(lambda error=error: webhook(client, run_id)["last_error"] == error, error)  # type: ignore[misc]
        shown = webhook(client, run_id)
        assert (shown["status"], shown["attempts"]) == ("pending", attempts)
        assert shown["next_at"] > client.get(f"/v1/runs/{run_id}").json()["finished_at"]
        house.sql("UPDATE webhooks SET next_at = 0 WHERE run_id = ?", run_id)  # the pause is over
    until(lambda: webhook(client, run_id)["status"] == "delivered", "the delivery")
    told = house.receiver.of(run_id)
    assert len(told) == 3
    assert len({delivery.headers["webhook-id"] for delivery in told}) == 1


def test_cancelled_task_is_delivered(house: House, client: httpx2.Client, worker: TaskWorker) -> None:
    house.model.control(first_token_ms=3000)
    busy = [house.queue(client, f"Take your time, {number}.") for number in range(2)]
    run_id = house.queue(client, "Never mind.", callback_url=house.receiver.url)
    assert webhook(client, run_id)["status"] == "waiting"
    assert client.post(f"/v1/runs/{run_id}/cancel").status_code == 202
    until(lambda: house.receiver.of(run_id), "the delivery")
    assert orjson.loads(house.receiver.of(run_id)[0].body)["status"] == "cancelled"
    for other in busy:
        client.post(f"/v1/runs/{other}/cancel")
        ended(client, other)


def test_a_run_without_one_shows_none(house: House, client: httpx2.Client) -> None:
    result = client.post("/v1/agents/assistant/invoke", json={"input": "Hello", "cache": "bypass"}).json()
    assert webhook(client, result["run_id"]) is None


def test_the_secret_is_each_users_own_and_not_for_keys(slipway: Slipway, db: Database) -> None:
    with slipway.client() as client:
        key = client.post("/v1/auth/keys", json={"name": "webhooks"}).json()["key"]
        assert client.get("/v1/webhooks/secret").json()["secret"].startswith("whsec_")
        answer = httpx2.get(
            f"{slipway.url}/v1/webhooks/secret", headers={"x-api-key": key}, timeout=30, trust_env=False
        )
        assert answer.status_code == 403
    hooks = Webhooks(db, "secret", allow_private=False)
    assert hooks.secret_of("usr_1") != hooks.secret_of("usr_2")


def test_retries_last_about_a_day() -> None:
    pauses = [retry_delay(attempts) for attempts in range(MAX_ATTEMPTS - 1)]
    assert 4 <= pauses[0] <= 6 and pauses[-1] <= MAX_DELAY * 1.2
    assert 0.8 * 86_400 <= sum(pauses) <= 1.2 * 86_400 + 3600


# --- without a server ---------------------------------------------------------------------------------


def run_of(db: Database, run_id: str, url: str) -> Run:
    """A finished run, with a webhook that is not due yet."""
    from service.store import runs

    asked = RunRequest("assistant", ({"role": "user", "content": "x"},), callback_url=url)
    run = Run(run_id, "usr_1", "assistant", "1", "task", asked, RunStatus.SUCCEEDED, finished_at=now_ms())
    with db.begin() as tx:
        runs.insert(tx, run, worker_id=None)
        runs.record_end(tx, run)
    return run


def test_one_process_sends_each(db: Database, receiver: Receiver) -> None:
    """Two processes, all their threads, and twice as many deliveries: nobody is told twice."""
    hooks = [Webhooks(db, "secret", allow_private=True) for _ in range(2)]
    made = [run_of(db, f"run_twice_{number}", receiver.url) for number in range(MAX_SENDERS * 4)]
    with db.begin() as tx:
        for run in made:
            hooks[0].schedule(tx, run)
    threads = [threading.Thread(target=hook.send_due) for hook in hooks for _ in range(MAX_SENDERS)]
    for thread in threads:
        thread.start()
    until(lambda: all(_status(hooks[0], run) == "delivered" for run in made), "every delivery")
    assert [len(receiver.of(run.id + '"')) for run in made] == [1] * len(made)


def test_sender_that_cannot_start_is_not_counted(db: Database, receiver: Receiver) -> None:
    run, hooks = run_of(db, "run_late", receiver.url), Webhooks(db, "secret", allow_private=True)
    with db.begin() as tx:
        hooks.schedule(tx, run)
    with no_threads(MAX_SENDERS) as times:
        for _ in times:
            with pytest.raises(RuntimeError):
                hooks.send_due()
    hooks.send_due()
    until(lambda: _status(hooks, run) == "delivered", "the delivery")


def test_delivery_of_a_dead_process_is_due_again(db: Database, receiver: Receiver) -> None:
    from service.store import webhooks as rows

    run, hooks = run_of(db, "run_crashed", receiver.url), Webhooks(db, "secret", allow_private=True)
    with db.begin() as tx:
        rows.schedule(tx, run, receiver.url, now_ms())
    with db.begin() as tx:
        [row], [other] = rows.due(tx, now_ms(), 10), rows.due(tx, now_ms(), 10)
        next_at = now_ms() + 5_000
        assert rows.claim(tx, row, next_at)
        assert not rows.claim(tx, other, next_at)
        assert rows.claim(tx, row, next_at), "the same transaction, run again"
        assert rows.due(tx, now_ms(), 10) == []  # nobody else meanwhile
        assert rows.due(tx, now_ms() + 5_001, 10) != []
    assert _status(hooks, run) == "pending"


def test_outcome_of_an_earlier_claim_does_not_count_for_the_next(db: Database) -> None:
    """The run was resumed and ended again while its first delivery was under way: the count begins anew."""
    from service.store import webhooks as rows

    run = run_of(db, "run_again", "http://127.0.0.1:9/")
    with db.begin() as tx:
        claimed = []
        for _ in range(2):
            rows.schedule(tx, run, "http://127.0.0.1:9/", now_ms())
            [due] = rows.due(tx, now_ms(), 10)
            assert rows.claim(tx, due, now_ms() + 5_000)
            claimed.append(due)
        rows.delivered(tx, claimed[0], now_ms())
        kept = rows.of_run(tx, run.id)
        assert kept is not None and kept["status"] == "pending"
        rows.delivered(tx, claimed[1], now_ms())
        kept = rows.of_run(tx, run.id)
        assert kept is not None and kept["status"] == "delivered"


def test_a_private_address_fails_for_good(db: Database) -> None:
    hooks = Webhooks(db, "secret", allow_private=False)
    run = run_of(db, "run_private", "http://127.0.0.1/hook")
    with db.begin() as tx:
        hooks.schedule(tx, run)
    until(lambda: _status(hooks, run) == "failed", "the refusal")
    shown = hooks.of_run(run)
    assert shown is not None
    assert (shown["attempts"], shown["next_at"]) == (1, None)
    assert shown["last_error"] == "The address must be a public address."


def test_the_last_attempt_is_the_last(db: Database) -> None:
    hooks = Webhooks(db, "secret", allow_private=True)
    run = run_of(db, "run_last", f"http://127.0.0.1:{free_port()}/nobody")
    with db.begin() as tx:
        hooks.schedule(tx, run)
    until(lambda: (hooks.of_run(run) or {})["last_error"], "the first attempt")
    with db.begin() as tx:
        tx.execute(metadata.tables["webhooks"].update().values(attempts=MAX_ATTEMPTS - 1, next_at=0))
    hooks.send_due()
    until(lambda: _status(hooks, run) == "failed", "the end")


def _status(hooks: Webhooks, run: Run) -> str:
    return str((hooks.of_run(run) or {})["status"])
