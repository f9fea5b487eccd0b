"""Sessions over HTTP: begun and asked in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Model, RedisServer, slipway_server


def begin(client: httpx2.Client, agent: str = "assistant", **more: Any) -> str:
    answer = client.post("/v1/sessions", json={"agent": agent, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def ask(
    client: httpx2.Client, session_id: str, question: str, door: str = "invoke", **more: Any
) -> httpx2.Response:
    body = {"input": question, "session_id": session_id, **more}
    return client.post(f"/v1/agents/assistant/{door}", json=body)


@pytest.fixture
def quick(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[httpx2.Client]:
    """Turns queue, and little history fits a prompt."""
    model.reset()
    settings = {"SESSION_CONFLICT": "queue", "SESSION_HISTORY_TOKENS": "500", "THREADS": "20"}
    with (
        slipway_server(scratch / "queueing", redis_server.url, model.url, **settings) as server,
        closing(server.client()) as client,
    ):
        yield client


def asking(client: httpx2.Client, session_id: str, question: str) -> AbstractContextManager[httpx2.Response]:
    """Stream a turn, to read its events as they come."""
    body = {"input": question, "session_id": session_id}
    return client.stream("POST", "/v1/agents/assistant/stream", json=body)
