"""Content of sessions over a real Gunicorn: summary, sources, edits, branches, search, export."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import httpx2
import pytest

from tests.conftest import Model, Slipway
from tests.web.conversations import ask, begin, quick
from tests.web.people import join
from tests.web.test_doors import events_of

__all__ = ["quick"]


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
