"""The copies of a finished run are rows that Slipway can use."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from benchmarks.fill import family_id, fill, user_id
from tests.conftest import Model, RedisServer, slipway_server


def count(db: sqlite3.Connection, rows: str) -> int:
    return int(db.execute(f"SELECT count(*) {rows}").fetchone()[0])


@pytest.mark.slow
def test_a_filled_database_serves(tmp_path: Path, redis_server: RedisServer, model: Model) -> None:
    home, body = tmp_path / "home", {"input": "What is the capital of France?"}
    with slipway_server(home, redis_server.url, model.url) as server, server.client() as client:
        assert client.post("/v1/agents/assistant/invoke", json=body).status_code == 200
    with closing(sqlite3.connect(home / "slipway.db")) as db:
        of_run = "FROM {} WHERE run_id = (SELECT id FROM runs)"
        rows = {name: count(db, of_run.format(name)) for name in ("steps", "ledger")}
        assert rows["steps"] == 1
    fill(home / "slipway.db", 500, 10)
    with closing(sqlite3.connect(home / "slipway.db")) as db:
        for name, each in rows.items():
            assert count(db, f"FROM {name} WHERE run_id LIKE 'run_0bench%'") == each * 500
        assert count(db, "FROM ledger WHERE entry_id LIKE 'hld_0bench%'") == 5 * 500
        assert count(db, f"FROM runs WHERE user_id = '{user_id(3)}'") == 50
        live = f"FROM token_families WHERE id = '{family_id(3)}' AND user_id = '{user_id(3)}'"
        assert count(db, f"{live} AND revoked_at IS NULL") == 1
    with slipway_server(home, redis_server.url, model.url) as server, server.client() as client:
        answer = client.get(f"/v1/runs/run_0bench{7:016d}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "succeeded"
        assert httpx2.get(f"{server.url}/ready", trust_env=False).status_code == 200


def test_there_must_be_a_run_to_copy(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "empty.db")) as db:
        db.execute("CREATE TABLE runs (id TEXT, user_id TEXT, status TEXT)")
    with pytest.raises(LookupError):
        fill(tmp_path / "empty.db", 10, 1)
