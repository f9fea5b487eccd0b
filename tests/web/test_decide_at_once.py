"""One approval, many decisions at the same moment: one counts, on either database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from service.ids import new_id
from service.store import approvals as rows
from service.store import runs
from service.store.database import Database
from service.types import Run, RunRequest
from tests.conftest import Model, RedisServer, Slipway, slipway_server
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
AT_ONCE, APPROVALS, TRIES = 20, 12, 50


@pytest.fixture
def house(url: str, tmp_path: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    settings = {"WEB_CONCURRENCY": "2", "THREADS": "16", "DATABASE_URL": url}
    with slipway_server(tmp_path / "house", redis_server.url, model.url, **settings) as server:
        yield server


@pytest.fixture
def admin(house: Slipway) -> Iterator[httpx2.Client]:
    with closing(house.client()) as client:
        yield client


@pytest.fixture
def asked(house: Slipway, admin: httpx2.Client) -> list[str]:
    """Approvals that wait. Each run has another one, so that it goes on waiting."""
    user_id = admin.get("/v1/auth/me").json()["id"]
    request = RunRequest("clerk", ({"role": "user", "content": "Do it."},))
    about = {
        "user_id": user_id,
        "agent": "analyst",
        "name": "calculator",
        "reason": "policy",
        "arguments": {"expression": "1 + 1"},
    }
    url = house.env["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
    ids = []
    with closing(Database(url)) as db:
        for _ in range(APPROVALS):
            run = Run(new_id("run"), user_id, "clerk", "1", "stream", request, attempt=1)
            waits = [{**about, "id": new_id("apr"), "run_id": run.id, "call_id": f"c{n}"} for n in (1, 2)]
            db.transact(lambda tx: runs.insert(tx, run, worker_id="wrk"))  # noqa: B023
            db.transact(lambda tx: runs.suspend(tx, run, 1))  # noqa: B023
            db.transact(lambda tx: rows.ask(tx, waits))  # noqa: B023
            ids.append(waits[0]["id"])
    return ids


def decide(
    house: Slipway, admin: httpx2.Client, approval_id: str, headers: dict[str, str] | None = None
) -> list[tuple[str, httpx2.Response]]:
    """Each decision with its answer; approvals and denials in turn, all sent at once."""
    together = threading.Barrier(AT_ONCE, timeout=60)
    signed = {"Authorization": admin.headers["Authorization"], **(headers or {})}

    def post(number: int) -> tuple[str, httpx2.Response]:
        decision = "approve" if number % 2 or headers else "deny"
        with httpx2.Client(base_url=house.url, timeout=60, trust_env=False, headers=signed) as client:
            client.get("/health")  # the connection is there
            together.wait()
            for _ in range(TRIES):
                answer = client.post(f"/v1/approvals/{approval_id}", json={"decision": decision})
                if answer.status_code != 503:  # a busy machine has too many writers of SQLite at once
                    break
            return decision, answer

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(post, range(AT_ONCE)))


def test_of_many_decisions_at_once_one_counts(house: Slipway, admin: httpx2.Client, asked: list[str]) -> None:
    for approval_id in asked:
        answers = decide(house, admin, approval_id)
        won = [(decision, answer) for decision, answer in answers if answer.status_code == 200]
        lost = [answer for _, answer in answers if answer.status_code != 200]
        assert len(won) == 1, [answer.status_code for _, answer in answers]
        assert {(answer.status_code, answer.json()["code"]) for answer in lost} == {(409, "already_decided")}
        kept = next(
            row for row in admin.get("/v1/approvals?limit=100").json()["data"] if row["id"] == approval_id
        )
        assert kept["status"] == {"approve": "approved", "deny": "denied"}[won[0][0]]
        assert kept == won[0][1].json()


def test_one_idempotency_key_replays_the_first_answer(
    house: Slipway, admin: httpx2.Client, asked: list[str]
) -> None:
    answers = decide(house, admin, asked[0], {"Idempotency-Key": "one"})
    assert {answer.status_code for _, answer in answers} == {200}
    assert len({answer.text for _, answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for _, answer in answers) == AT_ONCE - 1
