"""Conversations over a real Gunicorn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Model, RedisServer, Slipway, slipway_server, wait_until
from tests.web.people import join
from tests.web.test_doors import events_of


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


def asking(client: httpx2.Client, session_id: str, question: str) -> AbstractContextManager[httpx2.Response]:
    """A turn whose events can be heard as they come."""
    body = {"input": question, "session_id": session_id}
    return client.stream("POST", "/v1/agents/assistant/stream", json=body)


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
    model.control(first_token_ms=8_000)
    with asking(client, session_id, "Slow?") as slow:
        texts = slow.iter_text()
        next(texts)
        assert client.delete(f"/v1/sessions/{session_id}").status_code == 204
        "".join(texts)  # it ends
    wait_until(lambda: model.stats()["closed_early"] == 1, "the end of the upstream call", 5)
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


def test_history_over_the_limit_is_summarised_once(quick: httpx2.Client, model: Model) -> None:
    session_id = begin(quick)
    ask(quick, session_id, "My name is Ada and I sell boats in Oslo. " + "The boats are blue. " * 30)
    for n in range(2):
        ask(quick, session_id, f"Question {n}: " + "is the weather fine today? " * 20)
    before = model.stats()["calls"]
    result = ask(quick, session_id, "Which boats do I sell in Oslo?").json()
    assert (result["status"], result["steps"], model.stats()["calls"]) == ("succeeded", 2, before + 2)
    steps = quick.get(f"/v1/runs/{result['run_id']}").json()["step_list"]
    assert [step["name"] for step in steps] == ["summarise", "answer"]
    assert float(steps[0]["cost_usd"]) > 0
    again = ask(quick, session_id, "Thanks!").json()
    assert (again["steps"], model.stats()["calls"]) == (1, before + 3), "the summary is used again"
    assert len(quick.get(f"/v1/sessions/{session_id}").json()["messages"]) == 10


def messages_of(client: httpx2.Client, session_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/v1/sessions/{session_id}").json()["messages"]
    return found


def test_sources_and_tools_are_read_again(client: httpx2.Client) -> None:
    session_id = begin(client, "support")
    body = {"input": "Within how many days can I get a refund?", "session_id": session_id}
    result = client.post("/v1/agents/support/invoke", json=body).json()
    question, answer = messages_of(client, session_id)
    assert result["sources"] and (answer["sources"], answer["tools"]) == (result["sources"], result["tools"])
    assert (question["parent_message_id"], answer["parent_message_id"]) == (None, question["id"])
    assert {each["run_id"] for each in (question, answer)} == {result["run_id"]}


def test_a_question_is_edited_and_asked_again(client: httpx2.Client) -> None:
    session_id = begin(client)
    ask(client, session_id, "My name is Ada.")
    ask(client, session_id, "I live in Oslo.")
    first, _, second, _ = messages_of(client, session_id)
    again = ask(client, session_id, "My name is Grace.", parent_message_id=first["parent_message_id"])
    assert again.status_code == 200, again.text
    told = ask(client, session_id, "What is my name?").json()["output"]
    assert "Grace" in told and "Ada" not in told
    beside = ask(client, session_id, "What is my name?", "stream", parent_message_id=second["id"])
    told = events_of(beside.text)[-1][2]["output"]
    assert "Ada" in told and "Grace" not in told
    found = messages_of(client, session_id)
    assert [each["seq"] for each in found] == list(range(1, 11))
    assert (found[4]["parent_message_id"], found[8]["parent_message_id"]) == (None, second["id"])
    page = client.get(f"/v1/sessions/{session_id}?limit=2").json()
    assert page["messages"] == found[-2:], "a message on a page of its own tells the same"


@pytest.mark.parametrize("door", ["invoke", "stream", "tasks"])
def test_a_parent_of_another_session_is_refused(client: httpx2.Client, door: str) -> None:
    session_id, other = begin(client), begin(client)
    ask(client, other, "Elsewhere.")
    wrong = messages_of(client, other)[0]["id"]
    answer = ask(client, session_id, "Here?", door, parent_message_id=wrong)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/parent_message_id")
    assert messages_of(client, session_id) == []
    assert client.get(f"/v1/runs?session_id={session_id}").json()["data"] == []


def test_sessions_are_found_by_their_title(client: httpx2.Client, slipway: Slipway) -> None:
    with closing(join(slipway, client)) as ada:
        ids = [begin(ada, title=title) for title in ("100% Übung", "übung_2", "Invoice")]
        for text, found in (
            ("ÜBUNG", ids[1::-1]),
            ("0%", ids[:1]),
            ("g_2", ids[1:2]),
            ("%", ids[:1]),
            ("nothing", []),
        ):
            listed = ada.get("/v1/sessions", params={"q": text}).json()
            assert ([item["id"] for item in listed["data"]], listed["next_cursor"]) == (found, None)
        page = ada.get("/v1/sessions", params={"q": "übung", "limit": 1}).json()
        rest = ada.get(
            "/v1/sessions", params={"q": "übung", "limit": 1, "cursor": page["next_cursor"]}
        ).json()
        assert [item["id"] for item in page["data"] + rest["data"]] == ids[1::-1]
        ada.patch(f"/v1/sessions/{ids[2]}", json={"title": "Rechnung"})
        assert ada.get("/v1/sessions", params={"q": "invoice"}).json()["data"] == []
        assert ada.get("/v1/sessions", params={"q": "rechnung"}).json()["data"][0]["id"] == ids[2]
        for wrong in ("", "x" * 101):
            refused = ada.get("/v1/sessions", params={"q": wrong})
            assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/q")
        assert client.get("/v1/sessions", params={"q": "rechnung"}).json()["data"] == []
        everyones = client.get("/v1/sessions", params={"q": "rechnung", "scope": "all"}).json()["data"]
        assert [item["id"] for item in everyones] == [ids[2]]
        assert ada.get("/v1/sessions", params={"q": "x", "scope": "all"}).status_code == 403


def test_a_conversation_is_exported_whole(client: httpx2.Client, slipway: Slipway) -> None:
    session_id = begin(client, title='A "title"', metadata={"ticket": 1.10})
    for n in range(3):
        ask(client, session_id, f"Question {n}: " + "ä" * 300_000)
    path = f"/v1/sessions/{session_id}/export"
    answer = client.get(path)
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{session_id}.json"'
    exported = answer.json()
    shown = client.get(f"/v1/sessions/{session_id}").json()
    assert len(exported["messages"]) == 6 and exported["metadata"] == {"ticket": 1.10}
    assert [each["content"][:10] for each in exported["messages"][::2]] == [f"Question {n}" for n in range(3)]
    assert {name: shown[name] for name in shown if name not in ("messages", "next_cursor")} == {
        name: exported[name] for name in exported if name != "messages"
    }
    text = client.get(path, headers={"Accept": "text/markdown"})
    assert text.headers["Content-Type"].startswith("text/markdown")
    assert text.headers["Content-Disposition"].endswith('.md"')
    assert text.text.startswith('# A "title"\n\n**User** (') and text.text.count("**Assistant**") == 3
    with closing(join(slipway, client)) as ada:
        assert ada.get(path).status_code == 404
    empty = client.get(f"/v1/sessions/{begin(client)}/export")
    assert empty.json()["messages"] == []
