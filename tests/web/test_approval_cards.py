"""Approvals as people see them: the call and its digest, why, what the tool does, when the time is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.approvals import digest
from tests.conftest import Model, RedisServer
from tests.web.office import Office, names, office, office_of, office_server, slipway, text
from tests.web.people import join

__all__ = ["office", "slipway", "text"]
pytestmark = pytest.mark.usefixtures("slipway")  # its log is shown when a test fails


@pytest.fixture
def strict(tmp_path: Path, redis_server: RedisServer, model: Model) -> Iterator[Office]:
    """An office where nobody decides about their own runs."""
    with (
        office_server(tmp_path, redis_server.url, model.url, APPROVAL_BY_OTHERS="true") as server,
        closing(server.client()) as admin,
    ):
        yield office_of(server, admin)


def test_card_tells_of_call_tool_and_time(office: Office, text: str) -> None:
    run_id = office.ask("clerk", text)["run_id"]
    card = office.question(run_id)
    assert card["tool"] == {"description": "Write a line.", "risk": "write", "idempotent": False}
    assert card["digest"] == digest("write_line", {"text": text})
    assert card["expires_at"][:10] > card["created_at"][:10]
    told = next(data for _, name, data in office.events(run_id) if name == "approval.required")
    assert {name: told[name] for name in ("digest", "expires_at")} == {
        name: card[name] for name in ("digest", "expires_at")
    }
    office.decide(card["id"], "deny")


def test_decision_about_another_call_is_none(office: Office, text: str) -> None:
    run_id = office.ask("clerk", text)["run_id"]
    card = office.question(run_id)
    other = digest("write_line", {"text": f"{text}!"})
    for more in ({}, {"arguments": {"text": "x"}}):
        refused = office.decide(card["id"], "approve", digest=other, **more)
        assert (refused.status_code, refused.json()["code"]) == (409, "digest_mismatch")
    for wrong in ("md5:1", card["digest"] + "0", 7):
        refused = office.decide(card["id"], "approve", digest=wrong)
        assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/digest"]
    assert office.question(run_id) == card
    changed = {"text": f"{text}, changed"}
    decided = office.decide(card["id"], "approve", digest=card["digest"], arguments=changed)
    assert (decided.status_code, decided.json()["digest"]) == (200, digest("write_line", changed))
    office.end(run_id)
    assert office.written().count(f"{text}, changed") == 1


def test_dangerous_tool_asks_although_no_agent_says_so(office: Office, text: str) -> None:
    result = office.ask("wrecker", text)
    assert result["status"] == "waiting_approval"
    card = office.question(result["run_id"])
    assert (card["reason"], card["tool"]["risk"]) == ("policy", "danger")
    office.decide(card["id"], "approve")
    assert office.end(result["run_id"])["status"] == "succeeded"
    assert office.written().count(text) == 1


def test_call_of_a_sub_agent_is_shown_and_approved(office: Office, text: str) -> None:
    """The run is the lead's, which has no tools."""
    run_id = office.ask("chief", text)["run_id"]
    card = office.question(run_id)
    assert (card["agent"], card["tool"]["risk"]) == ("chief", "danger")
    refused = office.decide(card["id"], "approve", arguments={"text": 7})
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/arguments/text"]
    assert office.decide(card["id"], "approve").status_code == 200
    assert office.end(run_id)["status"] == "succeeded"
    assert office.written().count(text) == 1


def test_nobody_can_approve_a_call_beyond_its_bounds(office: Office, text: str) -> None:
    run_id = office.ask("mailer", f"{text}@example.org")["run_id"]
    card = office.question(run_id)
    refused = office.decide(card["id"], "approve", arguments={"text": "ada@evil.test"})
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/arguments/text"]
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert office.question(run_id) == card
    office.decide(card["id"], "approve", arguments={"text": f"{text}@mail.example.org"}).raise_for_status()
    office.end(run_id)
    assert office.written().count(f"{text}@mail.example.org") == 1


def test_call_of_the_model_beyond_its_bounds_asks_nobody(office: Office, text: str) -> None:
    result = office.ask("mailer", f"{text}@evil.test")
    assert (result["status"], [tool["ok"] for tool in result["tools"]]) == ("succeeded", [False])
    assert office.pending(result["run_id"]) == [] and "approval.required" not in names(
        office.events(result["run_id"])
    )


def test_decision_of_another_when_the_setting_says_so(strict: Office, text: str) -> None:
    run_id = strict.ask("clerk", text)["run_id"]
    card = strict.question(run_id)
    for decision in ("approve", "deny"):
        refused = strict.decide(card["id"], decision)
        assert (refused.status_code, refused.json()["code"]) == (403, "own_approval")
    assert strict.question(run_id) == card
    with closing(join(strict.slipway, strict.admin, "operator")) as operator:
        path = f"/v1/approvals/{card['id']}"
        assert operator.post(path, json={"decision": "approve"}).status_code == 200
    assert strict.end(run_id)["status"] == "succeeded"
