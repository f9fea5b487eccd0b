"""Conversations over a real Gunicorn."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import httpx2
import pytest

from tests.conftest import Model, Slipway, wait_until
from tests.web.conversations import ask, asking, begin, quick
from tests.web.people import join
from tests.web.test_doors import events_of

__all__ = ["quick"]


def test_session_remembers_earlier_turns(client: httpx2.Client) -> None:
    session_id = begin(client)
    first = ask(client, session_id, "My name is Ada.")
    assert first.json()["session_id"] == session_id
    assert "Ada" in ask(client, session_id, "What is my name?").json()["output"]
    streamed = events_of(ask(client, session_id, "And what is my name?", "stream").text)
    assert "Ada" in streamed[-1][2]["output"]
    session = client.get(f"/v1/sessions/{session_id}").json()
    assert [message["role"] for message in session["messages"]] == ["user", "assistant"] * 3
    assert session["messages"][0]["content"] == "My name is Ada." == session["title"]
    assert session["expires_at"] > session["updated_at"] > session["created_at"]


def test_without_the_session_nothing_is_remembered(client: httpx2.Client) -> None:
    ask(client, begin(client), "My name is Ada.")
    assert "Ada" not in ask(client, begin(client), "What is my name?").json()["output"]


def test_kept_read_renamed_and_deleted(client: httpx2.Client) -> None:
    session_id = begin(client, title="First", metadata={"ticket": 7})
    path = f"/v1/sessions/{session_id}"
    run_id = ask(client, session_id, "Hello?").json()["run_id"]
    assert client.get("/v1/sessions?limit=1").json()["data"][0]["id"] == session_id
    changed = client.patch(path, json={"title": "Second"})
    assert (changed.json()["title"], changed.json()["metadata"]) == ("Second", {"ticket": 7})
    assert client.patch(path, json={"metadata": None}).json()["metadata"] is None
    assert client.patch(path, json={}).status_code == 422
    assert client.delete(path).status_code == 204
    for gone in (path, f"/v1/runs/{run_id}", f"/v1/runs/{run_id}/events"):
        assert client.get(gone).status_code == 404
    assert client.delete(path).status_code == client.patch(path, json={"title": "x"}).status_code == 404


def test_pages_of_sessions_and_of_messages(client: httpx2.Client) -> None:
    ids = [begin(client) for _ in range(3)]
    page = client.get("/v1/sessions?limit=2").json()
    rest = client.get(f"/v1/sessions?limit=1&cursor={page['next_cursor']}").json()
    assert [item["id"] for item in page["data"] + rest["data"]] == ids[::-1]
    for n in range(2):
        ask(client, ids[0], f"Question {n}?")
    last = client.get(f"/v1/sessions/{ids[0]}?limit=3").json()
    assert [message["seq"] for message in last["messages"]] == [2, 3, 4]
    first = client.get(f"/v1/sessions/{ids[0]}?limit=3&cursor={last['next_cursor']}").json()
    assert ([message["seq"] for message in first["messages"]], first["next_cursor"]) == ([1], None)
    assert client.get(f"/v1/sessions/{ids[0]}?cursor=x").status_code == 422


def test_invalid_session_fields_are_refused(client: httpx2.Client) -> None:
    for body in (
        {},
        {"agent": "nobody"},
        {"agent": "assistant", "titel": "x"},
        {"agent": "assistant", "title": "\x00"},
    ):
        assert client.post("/v1/sessions", json=body).status_code == 422
    of_support = begin(client, "support")
    wrong = ask(client, of_support, "Hello?")
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/session_id")
    assert ask(client, "ses_" + "0" * 26, "Hello?").status_code == 404


def test_session_of_another_user_is_not_found(client: httpx2.Client, slipway: Slipway) -> None:
    with closing(join(slipway, client)) as ada, closing(join(slipway, client)) as bob:
        session_id = begin(ada)
        path = f"/v1/sessions/{session_id}"
        assert bob.get(path).status_code == bob.delete(path).status_code == 404
        assert (
            bob.patch(path, json={"title": "x"}).status_code
            == ask(bob, session_id, "Hello?").status_code
            == 404
        )
        assert bob.get("/v1/sessions").json()["data"] == []
        assert bob.get("/v1/sessions?scope=all").status_code == 403
        assert client.get("/v1/sessions?scope=all&limit=1").json()["data"][0]["id"] == session_id
        assert client.get(path).status_code == 200
        assert client.delete(path).status_code == ask(client, session_id, "Hello?").status_code == 404


def test_begun_once_under_one_key(client: httpx2.Client) -> None:
    headers = {"Idempotency-Key": "one-session-only"}
    answers: list[httpx2.Response] = []

    def post() -> None:
        answers.append(client.post("/v1/sessions", json={"agent": "assistant"}, headers=headers))

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 7
    other = client.post("/v1/sessions", json={"agent": "support"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_a_second_turn_at_once_is_refused(client: httpx2.Client, model: Model) -> None:
    session_id = begin(client)
    model.control(first_token_ms=1_500)
    with asking(client, session_id, "Slow?") as slow:
        texts = slow.iter_text()
        assert "run.started" in next(texts)
        second = ask(client, session_id, "Now?")
        assert (second.status_code, second.json()["code"]) == (409, "session_busy")
        assert "run.completed" in "".join(texts)
    model.control()
    assert ask(client, session_id, "Now?").status_code == 200
    messages = client.get(f"/v1/sessions/{session_id}").json()["messages"]
    assert [message["content"] for message in messages if message["role"] == "user"] == ["Slow?", "Now?"]


def test_a_cancelled_turn_stays_and_frees_the_session(client: httpx2.Client, model: Model) -> None:
    session_id = begin(client)
    model.control(first_token_ms=5_000)
    with asking(client, session_id, "Slow?") as slow:
        texts = slow.iter_text()
        run_id = next(texts).split("id: ")[1].split(":")[0]
        assert client.post(f"/v1/runs/{run_id}/cancel").status_code == 202
        assert "run.cancelled" in "".join(texts)
    model.control()
    (question,) = client.get(f"/v1/sessions/{session_id}").json()["messages"]
    assert (question["content"], question["status"], question["run_id"]) == ("Slow?", "cancelled", run_id)
    assert ask(client, session_id, "Hello?").status_code == 200


def test_deleting_a_session_cancels_its_turn(client: httpx2.Client, model: Model) -> None:
    session_id = begin(client)
    model.control(first_token_ms=60_000)
    with asking(client, session_id, "Slow?") as slow:
        texts = slow.iter_text()
        next(texts)
        wait_until(lambda: model.stats()["calls"], "the upstream call")
        assert client.delete(f"/v1/sessions/{session_id}").status_code == 204
        "".join(texts)  # it ends
    wait_until(lambda: model.stats()["closed_early"] == 1, "the end of the upstream call")
    assert client.get(f"/v1/runs?session_id={session_id}").json()["data"] == []


def test_turns_that_queue_are_all_answered(quick: httpx2.Client, model: Model) -> None:
    session_id = begin(quick)
    model.control(first_token_ms=300)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(ask(quick, session_id, f"Turn {n}?").status_code))
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join(30)
    assert answers == [200, 200]
    messages = quick.get(f"/v1/sessions/{session_id}").json()["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2


@pytest.mark.parametrize("door", ["invoke", "stream", "tasks"])
def test_the_key_of_a_turn_that_was_deleted_with_its_session_says_so(
    client: httpx2.Client, door: str
) -> None:
    session_id = client.post("/v1/sessions", json={"agent": "assistant"}).json()["id"]
    body, headers = {"input": "Once.", "session_id": session_id}, {"Idempotency-Key": f"deleted-{session_id}"}
    assert client.post(f"/v1/agents/assistant/{door}", json=body, headers=headers).status_code in (200, 202)
    [run] = client.get(f"/v1/runs?session_id={session_id}").json()["data"]
    if door == "tasks":
        assert client.post(f"/v1/runs/{run['run_id']}/cancel").status_code == 202
    assert client.delete(f"/v1/sessions/{session_id}").status_code == 204
    again = client.post(f"/v1/agents/assistant/{door}", json=body, headers=headers)
    assert (again.status_code, again.json()["code"]) == (409, "run_deleted")
