"""The copies of a finished run are rows that Slipway can use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest

from benchmarks.fill import family_id, fill, user_id
from benchmarks.processes import postgres_server
from tests.conftest import Model, RedisServer, slipway_server


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    with postgres_server(tmp_path) as (port, _):
        yield f"postgresql://bench@127.0.0.1:{port}/postgres"


def count(database: str, rows: str) -> int:
    with psycopg.connect(database) as db:
        found = db.execute(f"SELECT count(*) {rows}".encode()).fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.slow
def test_a_filled_database_serves(
    tmp_path: Path, database: str, redis_server: RedisServer, model: Model
) -> None:
    home, body = tmp_path / "home", {"input": "What is the capital of France?"}
    with slipway_server(home, redis_server.url, model.url, DATABASE_URL=database) as server:
        with server.client() as client:
            assert client.post("/v1/agents/assistant/invoke", json=body).status_code == 200
        of_run = "FROM {} WHERE run_id = (SELECT id FROM runs)"
        rows = {name: count(database, of_run.format(name)) for name in ("steps", "ledger")}
        assert rows["steps"] == 1
        fill(database, 500, 10)
        for name, each in rows.items():
            assert count(database, f"FROM {name} WHERE run_id LIKE 'run_0bench%'") == each * 500
        assert count(database, "FROM ledger WHERE entry_id LIKE 'hld_0bench%'") == 5 * 500
        assert count(database, f"FROM runs WHERE user_id = '{user_id(3)}'") == 50
        live = f"FROM token_families WHERE id = '{family_id(3)}' AND user_id = '{user_id(3)}'"
        assert count(database, f"{live} AND revoked_at IS NULL") == 1
        with server.client() as client:
            answer = client.get(f"/v1/runs/run_0bench{7:016d}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "succeeded"
        assert httpx2.get(f"{server.url}/ready", timeout=30, trust_env=False).status_code == 200


def test_there_must_be_a_run_to_copy(database: str) -> None:
    with psycopg.connect(database) as db:
        db.execute("CREATE TABLE runs (id TEXT, user_id TEXT, status TEXT)")
    with pytest.raises(LookupError):
        fill(database, 10, 1)
