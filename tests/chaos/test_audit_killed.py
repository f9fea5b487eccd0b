"""Workers killed while they link the audit: the chain has no gap and no row twice, and is soon whole again."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from service.audit.verify import verify_all
from service.store.database import Database
from tests.chaos.conftest import Postgres
from tests.conftest import Model, RedisServer, slipway_server, wait_until

KILLS = 6
LIMITS = dict.fromkeys(("LIMIT_LOGIN", "LIMIT_WRITES", "LIMIT_READS"), "none")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_workers_killed_while_they_link(
    kind: str, request: pytest.FixtureRequest, own_redis: RedisServer, model: Model, tmp_path: Path
) -> None:
    settings = {**LIMITS, "WEB_CONCURRENCY": "2", "SWEEP_SECONDS": "0.5"}
    url = f"sqlite:///{tmp_path}/audit.db"
    if kind == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.create("audit_killed")
    over, made = threading.Event(), []
    with slipway_server(tmp_path / "home", own_redis.url, model.url, DATABASE_URL=url, **settings) as server:
        token = server.client().headers["Authorization"]

        def make_keys() -> None:
            """Make keys and revoke them: two rows each."""
            while not over.is_set():
                with suppress(httpx2.HTTPError), server.visitor() as client:
                    client.headers["Authorization"] = token
                    answer = client.post("/v1/auth/keys", json={"name": "k"})
                    if answer.status_code == 201:
                        made.append(answer.json()["id"])
                        client.delete(f"/v1/auth/keys/{made[-1]}")

        threads = [threading.Thread(target=make_keys) for _ in range(4)]
        for thread in threads:
            thread.start()
        for kill in range(KILLS):
            wait_until(lambda: len(made) > 10 * (kill + 1), "keys")  # noqa: B023
            time.sleep(0.1)  # into the time when rows are linked
            with suppress(ProcessLookupError, IndexError):
                os.kill(server.workers()[kill % 2], signal.SIGKILL)
        own_redis.kill()
        try:
            wait_until(lambda: len(made) > 10 * (KILLS + 2), "keys without Redis")
        finally:
            over.set()
            own_redis.start()
        for thread in threads:
            thread.join(60)
        db = Database(url.replace("postgresql:", "postgresql+psycopg:"))
        try:
            wait_until(lambda: all(found.ok and not found.unlinked for found in verify_all(db)), "the links")
            (found,) = verify_all(db)
        finally:
            db.close()
    assert found.checked >= len(made) > 10 * KILLS
