"""Trials of a cap under eight calls at once: whole, streamed, and streams whose reader leaves.

`GATEWAY_TRIALS` says how many.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.ids import new_id
from service.runs.gateway_call import AT_ONCE
from service.store import users
from service.store.schema import gateway_calls, holds, ledger
from service.types import NANO, Caller, now_ms
from service.usage.ledger import check
from service.usage.prices import PriceTable
from tests.conftest import RedisServer, wait_until
from tests.gateway import house
from tests.gateway.house import HELLO, Gateway
from tests.messages_api.asked import Asked, Said, says

TRIALS = int(os.environ.get("GATEWAY_TRIALS", "6"))
CAP = 75_000  # nano-dollars, per user and day: some three of the eight calls fit
KINDS = ("whole", "streamed", "left")


class Ward:
    """Script of the model that looks at the money of the caller at each request."""

    def __init__(self) -> None:
        self.gateway: Gateway | None = None
        self.over: list[int] = []

    def __call__(self, asked: Asked) -> Said:
        assert self.gateway is not None
        spent, held = money(self.gateway, asked.prompt)
        if spent + held > CAP or held <= 0:
            self.over.append(spent + held)
        return says("word " * 200)  # more than any call's `max_tokens`, so its cost is close to its hold


def money(gateway: Gateway, user_id: str) -> tuple[int, int]:
    """Return what a user has spent and holds, in one look."""
    paid = sa.select(sa.func.coalesce(sa.func.sum(ledger.c.amount_nano), 0))
    paid = paid.where(ledger.c.account == "upstream", ledger.c.user_id == user_id)
    held = sa.select(sa.func.coalesce(sa.func.sum(holds.c.amount_nano), 0)).where(holds.c.user_id == user_id)
    both = sa.select(paid.scalar_subquery().label("paid"), held.scalar_subquery().label("held"))
    row = gateway.services.infra.db.query(lambda tx: tx.row(both))
    assert row is not None
    return abs(int(row["paid"])), int(row["held"])


def token_of_somebody_new(gateway: Gateway) -> tuple[str, str]:
    """Return the id of a new user, whose cap is whole, and the token of a run of theirs."""
    user_id = new_id("usr")
    row = {"id": user_id, "username": user_id, "password_hash": "", "role": "user", "created_at": now_ms()}
    gateway.services.infra.db.transact(lambda tx: users.insert(tx, row))
    return user_id, gateway.token(gateway.run(caller=Caller(user_id, user_id, "user")), most_calls=100)


def ask(gateway: Gateway, token: str, user_id: str, kind: str, start: threading.Barrier) -> int:
    """Ask once, when all are ready; return the status."""
    body = {**HELLO, "messages": [{"role": "user", "content": user_id}], "stream": kind != "whole"}
    body["max_tokens"] = random.randint(20, 60)
    start.wait(30)
    headers = {"x-api-key": token}
    with gateway.client.stream("POST", "/v1/messages", json=body, headers=headers, timeout=300) as answer:
        for _ in answer.iter_raw():
            if kind == "left":
                break
        return answer.status_code


@pytest.fixture
def ward(tmp_path: Path, redis_server: RedisServer, url: str) -> Iterator[Ward]:
    script = Ward()
    more = {"database_url": url, "threads": 32, "budget_user_day_usd": f"{CAP / NANO:.9f}"}
    with house.gateway(tmp_path, redis_server.url, script, **more) as gateway:
        script.gateway = gateway
        yield script


@pytest.mark.timeout(60 + 5 * TRIALS)
def test_cap_is_never_passed_and_every_hold_released(ward: Ward) -> None:
    gateway = ward.gateway
    assert gateway is not None
    statuses: Counter[int] = Counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number in range(TRIALS):
            user_id, token = token_of_somebody_new(gateway)
            start = threading.Barrier(AT_ONCE)
            kinds = random.choices(KINDS, k=AT_ONCE)
            asked = [pool.submit(ask, gateway, token, user_id, kind, start) for kind in kinds]
            statuses.update(one.result(300) for one in asked)
            wait_until(lambda user=user_id: money(gateway, user)[1] == 0, "the end of every hold")  # type: ignore[misc]
            spent, _ = money(gateway, user_id)
            assert 0 < spent <= CAP, (number, kinds)
            if number % 100 == 99:
                print(
                    f"{number + 1} trials: {dict(statuses)}, {len(ward.over)} calls over the cap", flush=True
                )
    assert ward.over == []
    assert set(statuses) <= {200, 402} and min(statuses[200], statuses[402]) >= TRIALS, statuses
    is_open = sa.select(gateway_calls.c.id).where(gateway_calls.c.state == "open")
    wait_until(lambda: not gateway.services.infra.db.query(lambda tx: tx.rows(is_open)), "the calls' ends")
    checked = check(gateway.services.infra.db, PriceTable.load())
    assert (checked.faults, checked.held) == ([], 0)
