"""`kill -9` of the worker that asks a model about an image: another replica asks again, with the same image."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.chaos.replicas import replicas
from tests.conftest import Model, RedisServer, Slipway, wait_until
from tests.web.made_files import block, made, sentence

SLOW = "[offline tokens=60 token_ms=50] What is this?"


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(
    request: pytest.FixtureRequest, own_redis: RedisServer, model: Model, tmp_path: Path
) -> Iterator[Sequence[Slipway]]:
    url = f"sqlite:///{tmp_path}/files.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").create("files")
    with replicas(2, tmp_path, url, own_redis, model) as servers:
        yield servers


def test_another_replica_asks_again_with_the_same_image(pair: Sequence[Slipway]) -> None:
    first, second = pair
    image = made("image/png", 2_000_000)
    content = [block("image/png", image), {"type": "text", "text": SLOW}]
    body = {
        "model": "assistant",
        "max_tokens": 500,
        "stream": True,
        "messages": [{"role": "user", "content": content}],
    }
    client, other = first.client(), second.client()

    def ask() -> None:
        with suppress(httpx2.HTTPError), client.stream("POST", "/v1/messages", json=body) as answer:
            for _ in answer.iter_raw():
                pass

    asking = threading.Thread(target=ask)
    asking.start()

    def under_way() -> Any:
        found = other.get("/v1/runs?status=running").json()["data"]
        return found and other.get(
            f"/v1/runs/{found[0]['run_id']}/events", headers={"Accept": "application/json"}
        )

    wait_until(under_way, "the run")
    [run] = other.get("/v1/runs?status=running").json()["data"]
    for pid in first.workers():
        os.kill(pid, signal.SIGKILL)
    asking.join(30)

    def ended() -> Any:
        found = other.get(f"/v1/runs/{run['run_id']}").json()
        return found if found["status"] in ("succeeded", "failed") else None

    done = wait_until(ended, "the end of the run", 60)
    assert done["status"] == "succeeded", done
    assert sentence("image/png", image) in done["output"]
    client.close()
    other.close()
