"""Warnings of caps by webhook: from two spending workers to a receiver that checks the signature."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx2
import orjson
import pytest
from standardwebhooks import Webhook

from tests.conftest import PYTHON, ROOT, Model, RedisServer, Slipway, slipway_server
from tests.jobs.house import Receiver, until

QUESTION = {"input": "Tell me a story.", "cache": "bypass", "tier": "simple", "max_tokens": 200}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with closing(Receiver()) as somebody:
        yield somebody


@pytest.fixture
def bank(scratch: Path, redis_server: RedisServer, model: Model, receiver: Receiver) -> Iterator[Slipway]:
    settings = {
        "WEB_CONCURRENCY": "2",
        "BUDGET_USER_DAY_USD": "0.01",
        "BUDGET_WEBHOOK_URL": receiver.url,
        "WEBHOOK_ALLOW_PRIVATE": "1",
    }
    model.control(tokens=100)
    with slipway_server(scratch / "told", redis_server.url, model.url, **settings) as server:
        yield server
    model.reset()


def secret(bank: Slipway) -> str:
    """What the operator is told to give the receiver."""
    command = [PYTHON, "-m", "flask", "--app", "wsgi", "budgets", "webhook-secret"]
    said = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **bank.env},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return said.stdout.strip()


def make_due(bank: Slipway) -> None:
    """The pause before the next attempt is over."""
    path = f"{bank.env['SLIPWAY_HOME']}/slipway.db"
    with closing(sqlite3.connect(path, timeout=10)) as connection, connection:
        connection.execute("UPDATE notices SET next_at = 0 WHERE status = 'pending'")


def test_each_warning_level_is_delivered_once_and_signed(bank: Slipway, receiver: Receiver) -> None:
    receiver.statuses = [500]  # whoever is told first is busy, and told again
    with bank.client() as client, ThreadPoolExecutor(4) as pool:

        def ask(_: int) -> int:
            answer: httpx2.Response = client.post("/v1/agents/assistant/invoke", json=QUESTION)
            return answer.status_code

        while set(pool.map(ask, range(8))) != {402}:
            pass
        user_id = client.get("/v1/auth/me").json()["id"]

    def told() -> set[int]:
        make_due(bank)
        return {orjson.loads(delivery.body)["percent"] for delivery in receiver.deliveries}

    until(lambda: told() == {50, 80, 100} and len(receiver.deliveries) == 4, "every warning")
    key, names = secret(bank), []
    for delivery in receiver.deliveries:
        body = orjson.loads(delivery.body)
        assert (body["event"], body["scope"], body["period"]) == ("budget_warning", f"user:{user_id}", "day")
        assert body["amount_usd"] == "0.010000" and "default" not in body
        assert float(body["spent_usd"]) >= 0.01 * min(body["percent"], 80) / 100
        Webhook(key).verify(delivery.body, delivery.headers)  # raises if it is not ours
        names.append(delivery.headers["webhook-id"])
    assert names[0] in names[1:] and len(set(names)) == 3  # the one that was told again is known by its name
