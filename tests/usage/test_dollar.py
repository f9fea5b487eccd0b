"""One dollar, two replicas with two workers each, five hundred requests for more: with kills, and with Redis wiped."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from service.store import holds
from service.store.database import Database
from service.types import NANO, Usage
from service.usage.ledger import check
from tests.conftest import Slipway, model_server, redis_in, slipway_server, wait_until
from tests.usage.house import CENT, SONNET, TABLE

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]
QUESTION = {"input": "Tell me a story.", "cache": "bypass", "tier": "medium", "max_tokens": 700}
SETTINGS = {
    "WEB_CONCURRENCY": "2",
    "THREADS": "16",
    "LIMIT_RUNS": "100000/minute",
    "BUDGET_SERVICE_DAY_USD": "1.00",
}


def test_a_dollar_is_a_dollar(scratch: Path, url: str) -> None:
    folder = scratch / f"dollar{abs(hash(url)) % 10**6}"
    settings = {**SETTINGS, "DATABASE_URL": url}
    with ExitStack() as stack:
        redis = stack.enter_context(redis_in(folder / "redis"))
        model = stack.enter_context(model_server())
        model.control(tokens=600, first_token_ms=50)
        replicas = [
            stack.enter_context(slipway_server(folder / name, redis.url, model.url, **settings))
            for name in "ab"
        ]
        database = Database(url)
        stack.callback(database.close)
        clients = [stack.enter_context(replica.client()) for replica in replicas]
        answers: Counter[int] = Counter()

        until = datetime.now(UTC) + timedelta(seconds=3)
        # The dollar is back by itself, under load.
        less = {"amount_usd": "0.20", "period": "day", "until": until.isoformat()}
        assert clients[0].put("/v1/admin/budgets/service", json=less).status_code == 200

        def ask(number: int) -> None:
            for turn in range(10):
                with suppress(httpx2.HTTPError):  # a worker that is killed answers nobody
                    client = clients[(number + turn) % 2]
                    answers[client.post("/v1/agents/assistant/invoke", json=QUESTION).status_code] += 1

        askers = [threading.Thread(target=ask, args=(number,)) for number in range(50)]
        for asker in askers:
            asker.start()
        time.sleep(1)
        _disturb(replicas, redis.stop, redis.start)
        for asker in askers:
            asker.join(200)
        wait_until(lambda: not database.query(holds.every), "the end of every hold", 150)
        wait_until(lambda: datetime.now(UTC) > until, "the end of the override")
        while (status := clients[0].post("/v1/agents/assistant/invoke", json=QUESTION).status_code) != 402:
            assert status == 200
        spent = Counter(model.stats())
        checked = check(database, TABLE)
    assert checked.faults == []
    upstream = SONNET.cost(
        Usage(
            spent["input_tokens"],
            spent["output_tokens"],
            spent["cache_read_input_tokens"],
            spent["cache_creation_input_tokens"],
        )
    )
    print(dict(answers), "upstream", upstream / NANO, "booked", checked.spent / NANO)
    assert upstream <= checked.spent <= NANO and checked.held == 0
    assert NANO - checked.spent < CENT


def _disturb(replicas: list[Slipway], stop: object, start: object) -> None:
    """Kill a worker of each replica, and take Redis away with all it knew."""
    for replica in replicas:
        os.kill(random.choice(replica.workers()), signal.SIGKILL)
        time.sleep(0.5)
    stop()  # type: ignore[operator]
    time.sleep(1)
    start()  # type: ignore[operator]
