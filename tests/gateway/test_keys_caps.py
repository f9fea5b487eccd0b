"""Trials of a cap under many calls at once with one key: whole, streamed, and streams whose reader leaves.

`GATEWAY_TRIALS` says how many, for each number of calls.
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

from service.types import NANO
from service.usage.ledger import check
from service.usage.prices import PriceTable
from tests.conftest import RedisServer, wait_until
from tests.gateway import house
from tests.gateway.house import Gateway
from tests.gateway.test_cap_trials import CAP, KINDS, Ward, ask, money
from tests.gateway.test_keys import somebody_new

TRIALS = int(os.environ.get("GATEWAY_TRIALS", "2"))


@pytest.fixture
def ward(tmp_path: Path, redis_server: RedisServer, url: str) -> Iterator[Ward]:
    script = Ward()
    more = {
        "database_url": url,
        "threads": 80,
        "budget_user_day_usd": f"{CAP / NANO:.9f}",
        "limit_runs": "9999/minute",
    }
    with house.gateway(tmp_path, redis_server.url, script, **more) as gateway:
        script.gateway = gateway
        yield script


def calls(gateway: Gateway, at_once: int) -> Counter[int]:
    """Make calls at once as somebody new; return their statuses."""
    user_id, key = somebody_new(gateway)
    start = threading.Barrier(at_once)
    kinds = random.choices(KINDS, k=at_once)
    with ThreadPoolExecutor(at_once) as pool:
        asked = [pool.submit(ask, gateway, key, user_id, kind, start) for kind in kinds]
        statuses = Counter(one.result(300) for one in asked)
    wait_until(lambda: money(gateway, user_id)[1] == 0, "the end of every hold", 30)
    spent, _ = money(gateway, user_id)
    assert 0 < spent <= CAP, kinds
    return statuses


@pytest.mark.timeout(90 + 20 * TRIALS)
def test_cap_is_never_passed_and_every_hold_released(ward: Ward) -> None:
    gateway = ward.gateway
    assert gateway is not None
    statuses: Counter[int] = Counter()
    for at_once in (8, 64):
        for _ in range(TRIALS):
            statuses += calls(gateway, at_once)
    assert ward.over == []
    assert set(statuses) <= {200, 402} and min(statuses[200], statuses[402]) >= TRIALS, statuses
    checked = check(gateway.services.infra.db, PriceTable.load())
    assert (checked.faults, checked.held) == ([], 0)
