"""Decisions about tool calls: valid, invalid, repeated and late ones."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from typing import Any

import httpx2
import pytest
import redis

from tests.conftest import RedisServer
from tests.web.office import Office, in_order, names, office, slipway, text

__all__ = ["office", "slipway", "text"]
pytestmark = pytest.mark.usefixtures("slipway")  # its log is shown when a test fails


def test_a_person_may_change_the_arguments(office: Office, text: str) -> None:
    result = office.ask("clerk", text)
    asked = office.question(result["run_id"])["id"]
    for wrong in (["x"], "x"):
        assert office.decide(asked, "approve", arguments=wrong).status_code == 422
    assert office.decide(asked, "deny", arguments={"text": "x"}).status_code == 422
    assert office.decide(asked, "perhaps").status_code == 422
    office.decide(asked, "approve", arguments={"text": f"{text}, changed"})
    office.end(result["run_id"])
    assert office.written()[-1] == f"{text}, changed"


@pytest.mark.parametrize(
    ("arguments", "pointers"),
    [
        ({"text": 7}, ["/arguments/text"]),
        ({"text": None}, ["/arguments/text"]),
        ({}, ["/arguments/text"]),
        ({"text": "x", "more/of it": 1}, ["/arguments/more~1of it"]),
        ({"txt": "x"}, ["/arguments/text", "/arguments/txt"]),
        ({"text": {"a": ["b"]}}, ["/arguments/text"]),
    ],
)
def test_changed_arguments_that_do_not_fit_decide_nothing(
    office: Office, text: str, arguments: dict[str, Any], pointers: list[str]
) -> None:
    result = office.ask("clerk", text)
    asked = office.question(result["run_id"])["id"]
    refused = office.decide(asked, "approve", arguments=arguments)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert sorted(fault["pointer"] for fault in refused.json()["errors"]) == pointers
    assert office.question(result["run_id"])["arguments"] == {"text": text}
    assert office.decide(asked, "approve", arguments={"text": f"{text}, changed"}).status_code == 200
    assert office.end(result["run_id"])["tools"][0]["ok"] is True


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"decision": "deny", "arguments": {"text": "x"}}, "/arguments"),
        ({"decision": "perhaps"}, "/decision"),
        ({"comment": "Yes."}, "/decision"),
        ({"decision": "approve", "comment": "x" * 1_001}, "/comment"),
        ({"decision": "approve", "arguments": ["x"]}, "/arguments"),
        ({"decision": "approve", "arguments": {"text": 1e400}}, "/arguments"),
    ],
)
def test_a_decision_that_does_not_fit_is_none(
    office: Office, text: str, body: dict[str, Any], pointer: str
) -> None:
    result = office.ask("clerk", text)
    asked = office.question(result["run_id"])["id"]
    sent = json.dumps(body).replace("Infinity", "1e400")
    headers = {"Content-Type": "application/json"}
    refused = office.admin.post(f"/v1/approvals/{asked}", content=sent, headers=headers)
    assert refused.status_code == 422
    assert [fault["pointer"] for fault in refused.json()["errors"]] == [pointer]
    assert office.question(result["run_id"])["id"] == asked
    office.decide(asked, "deny")


def test_a_call_of_a_tool_that_is_gone_can_only_be_denied(office: Office, text: str) -> None:
    for gone in ("SET name = 'erase_line'", "SET agent = 'retired'"):
        result = office.ask("clerk", text)
        asked = office.question(result["run_id"])["id"]
        with closing(sqlite3.connect(office.lines.parent / "slipway.db", timeout=10)) as db:
            db.execute(f"UPDATE approvals {gone} WHERE id = ?", (asked,))
            db.commit()
        for more in ({}, {"arguments": {"text": "x"}}):
            refused = office.decide(asked, "approve", **more)
            assert (refused.status_code, refused.json()["code"]) == (409, "tool_gone")
        assert office.question(result["run_id"])["id"] == asked
        assert office.decide(asked, "deny").status_code == 200
    assert office.written().count(text) == 0


def test_a_call_that_the_tool_no_longer_takes_is_not_approved(office: Office, text: str) -> None:
    result = office.ask("clerk", text)
    asked = office.question(result["run_id"])["id"]
    with closing(sqlite3.connect(office.lines.parent / "slipway.db", timeout=10)) as db:
        db.execute("UPDATE approvals SET arguments = ? WHERE id = ?", (json.dumps({"line": text}), asked))
        db.commit()
    refused = office.decide(asked, "approve")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    pointers = {fault["pointer"] for fault in refused.json()["errors"]}
    assert pointers == {"/arguments/text", "/arguments/line"}
    assert office.question(result["run_id"])["id"] == asked
    office.decide(asked, "deny")


def test_a_decision_may_come_when_the_live_stream_is_long_gone(
    office: Office, redis_server: RedisServer, text: str
) -> None:
    question = {"input": f'Call the write_line tool with "{text}".'}
    with office.admin.stream("POST", "/v1/agents/clerk/stream", json=question) as stream:
        run_id = next(stream.iter_text()).split("id: ")[1].split(":")[0]
        asked = office.question(run_id)
    with closing(redis.Redis.from_url(redis_server.url)) as redis_store:
        assert redis_store.delete(f"slipway:stream:{run_id}") == 1
    office.decide(asked["id"], "approve")
    assert office.end(run_id)["status"] == "succeeded"
    events = office.events(run_id)
    assert in_order(events)
    assert "gap" not in names(events)
    assert names(events).count("approval.required") == names(events).count("approval.decided") == 1


def test_deciding_twice_under_one_key_is_deciding_once(office: Office, text: str) -> None:
    result = office.ask("clerk", text)
    path = f"/v1/approvals/{office.question(result['run_id'])['id']}"
    answers: list[httpx2.Response] = []

    def post() -> None:
        answers.append(
            office.admin.post(path, json={"decision": "approve"}, headers={"Idempotency-Key": text})
        )

    threads = [threading.Thread(target=post) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [answer.status_code for answer in answers] == [200] * 6
    assert len({answer.text for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 5
    office.end(result["run_id"])
    assert office.written().count(text) == 1
