"""Two turns of one session at once, over two processes and either database: refused, waiting, interrupting."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Model, RedisServer, Slipway, slipway_server
from tests.nginx.pair import database
from tests.web.conversations import asking, begin
from tests.web.test_doors import events_of

SLOW = "[offline tokens=200 token_ms=50] A long answer, please."


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def two(
    request: pytest.FixtureRequest, scratch: Path, redis_server: RedisServer, model: Model
) -> Iterator[Slipway]:
    """Two processes; who asks comes to any of them."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    with database(str(request.param), folder) as url:
        settings = {"DATABASE_URL": url, "WEB_CONCURRENCY": "2", "THREADS": "16"}
        with slipway_server(folder / "home", redis_server.url, model.url, **settings) as server:
            yield server


@pytest.fixture
def user(two: Slipway, model: Model) -> Iterator[httpx2.Client]:
    model.reset()
    with closing(two.client()) as client:
        yield client


def ask(client: httpx2.Client, session_id: str, door: str = "invoke", **more: Any) -> httpx2.Response:
    body = {"input": "Now?", "session_id": session_id, "cache": "bypass", **more}
    return client.post(f"/v1/agents/assistant/{door}", json=body)


def asked(client: httpx2.Client, session_id: str) -> list[tuple[str, str]]:
    messages = client.get(f"/v1/sessions/{session_id}").json()["messages"]
    return [(each["content"], each["status"]) for each in messages if each["role"] == "user"]


def hear(texts: Iterator[str]) -> None:
    """Listen until some of the answer was told."""
    told = ""
    while "text.delta" not in told:
        told += next(texts)


def test_turn_is_interrupted_on_any_worker(user: httpx2.Client) -> None:
    for door in ("invoke", "stream", "invoke", "stream"):
        session_id = begin(user)
        with asking(user, session_id, SLOW) as slow:
            texts = slow.iter_text()
            hear(texts)
            answer = ask(user, session_id, door, on_conflict="interrupt")
            assert answer.status_code == 200, answer.text
            assert "run.cancelled" in "".join(texts)
        if door == "stream":
            assert events_of(answer.text)[-1][1] == "run.completed"
        assert asked(user, session_id) == [(SLOW, "cancelled"), ("Now?", "succeeded")]
        told = user.get(f"/v1/sessions/{session_id}").json()["messages"][1]
        assert told["role"] == "assistant" and told["status"] == "cancelled" and told["content"]


def test_a_turn_waits_for_the_one_before(user: httpx2.Client) -> None:
    session_id = begin(user)
    with asking(user, session_id, "[offline tokens=10 token_ms=30] Slowly.") as slow:
        texts = slow.iter_text()
        next(texts)
        assert ask(user, session_id, on_conflict="reject").json()["code"] == "session_busy"
        assert ask(user, session_id).json()["code"] == "session_busy", "as the service is set"
        answer = ask(user, session_id, "stream", on_conflict="queue")
        assert events_of(answer.text)[-1][1] == "run.completed"
        assert "run.completed" in "".join(texts)
    assert [status for _, status in asked(user, session_id)] == ["succeeded", "succeeded"]


def test_queued_task_waits_and_is_stored_when_cancelled(user: httpx2.Client) -> None:
    session_id = begin(user)
    with asking(user, session_id, SLOW) as slow:
        texts = slow.iter_text()
        hear(texts)
        task = ask(user, session_id, "tasks", on_conflict="queue")
        assert task.status_code == 202, task.text
        assert user.post(f"{task.headers['Location']}/cancel").status_code == 202
        assert asked(user, session_id) == [("Now?", "cancelled")]
        assert ask(user, session_id, on_conflict="interrupt").status_code == 200
        "".join(texts)
    turns = [("Now?", "cancelled"), (SLOW, "cancelled"), ("Now?", "succeeded")]
    assert asked(user, session_id) == turns


def test_interruptions_at_once_all_end(user: httpx2.Client) -> None:
    session_id = begin(user)
    answers: list[httpx2.Response] = []
    with asking(user, session_id, SLOW) as slow:
        texts = slow.iter_text()
        hear(texts)
        threads = [
            threading.Thread(target=lambda: answers.append(ask(user, session_id, on_conflict="interrupt")))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert "run.cancelled" in "".join(texts)
    codes = [answer.json().get("code", "succeeded") for answer in answers]
    assert len(codes) == 4 and "succeeded" in codes
    assert set(codes) <= {"succeeded", "run_cancelled", "session_busy"}
    began = sum(code != "session_busy" for code in codes)
    assert len(asked(user, session_id)) == 1 + began
    assert ask(user, session_id).status_code == 200, "the session is free"


def test_an_interruption_asked_twice_is_one(user: httpx2.Client) -> None:
    session_id = begin(user)
    with asking(user, session_id, SLOW) as slow:
        texts = slow.iter_text()
        hear(texts)
        body = {"input": "Now?", "session_id": session_id, "on_conflict": "interrupt"}
        key = {"Idempotency-Key": f"once-{session_id}"}
        first, again = (user.post("/v1/agents/assistant/invoke", json=body, headers=key) for _ in range(2))
        "".join(texts)
    assert first.json()["run_id"] == again.json()["run_id"]
    assert asked(user, session_id) == [(SLOW, "cancelled"), ("Now?", "succeeded")]


@pytest.mark.parametrize("body,pointer", [
    ({"on_conflict": "push"}, "/on_conflict"),
    ({"parent_message_id": "msg_1"}, "/parent_message_id"),
    ({"parent_message_id": 7}, "/parent_message_id"),
])  # fmt: skip
def test_invalid_on_conflict_is_refused(user: httpx2.Client, body: dict[str, Any], pointer: str) -> None:
    for door in ("invoke", "stream", "tasks"):
        answer = ask(user, begin(user), door, **body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_a_parent_without_a_session_is_refused(user: httpx2.Client) -> None:
    body = {"input": "Now?", "parent_message_id": "msg_" + "0" * 26}
    answer = user.post("/v1/agents/assistant/invoke", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/parent_message_id")
