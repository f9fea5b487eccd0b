"""Sealed steps: a run whose worker is killed goes on with them, and its database has no word of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.houses import House
from tests.chaos.test_worker_killed import QUESTION, Reader
from tests.conftest import Model, RedisServer, slipway_server
from tests.privacy.canaries import in_files


@pytest.fixture
def sealed(scratch: Path, own_redis: RedisServer, model: Model, agents_dir: Path) -> Iterator[House]:
    home, lines = scratch / "sealed", scratch / "lines-sealed"
    settings = {
        "AGENTS_DIR": str(agents_dir),
        "TEST_LINES": str(lines),
        "WEB_CONCURRENCY": "2",
        "KEYRING_URL": f"sqlite:///{home}/keyring.db",
    }
    with slipway_server(home, own_redis.url, model.url, **settings) as server:
        yield House("sqlite", server, model, own_redis, lines)
    model.reset()


def test_killed_worker_resumes_from_sealed_steps(sealed: House) -> None:
    sealed.model.control(first_token_ms=30, token_ms=8)
    resumed = 0
    for kill_at in range(12, 72, 12):
        sealed.lines.write_text("")
        reader = Reader(sealed.server, kill_at)
        result = reader.read(QUESTION)
        names = [name for _, name, _ in reader.events]
        if "approval.required" not in names:  # else it was killed within the tool
            assert result["status"] == "succeeded", result.get("error")
            kept = reader.client.get(f"/v1/runs/{reader.run_id}").json()
            assert (kept["input"], kept["output"]) == (QUESTION["input"], result["output"])
            resumed += "run.resumed" in names
        reader.client.close()
    assert resumed
    folder = Path(sealed.server.env["SLIPWAY_HOME"])
    assert os.path.getsize(folder / "keyring.db") > 0
    for name, content in in_files(folder, "slipway.db*"):
        assert b"append_line tool" not in content, name
