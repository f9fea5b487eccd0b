"""Tool calls that wait for a person, over a real Gunicorn: asked, decided, lost, timed out."""

from __future__ import annotations

import os
import signal
from contextlib import closing

import httpx2
import pytest

from tests.conftest import Slipway, wait_until
from tests.web.office import Office, in_order, names, office, slipway, text
from tests.web.people import join
from tests.web.test_doors import events_of

__all__ = ["office", "slipway", "text"]
pytestmark = pytest.mark.usefixtures("slipway")  # its log is shown when a test fails


def test_approved_call_is_made_once(office: Office, text: str) -> None:
    result = office.ask("clerk", text)
    assert (result["status"], office.written().count(text)) == ("waiting_approval", 0)
    asked = office.question(result["run_id"])
    assert (asked["name"], asked["arguments"], asked["reason"]) == ("write_line", {"text": text}, "policy")
    decided = office.decide(asked["id"], "approve", comment="Go ahead.")
    assert (decided.status_code, decided.json()["status"]) == (200, "approved")
    ended = office.end(result["run_id"])
    assert (ended["status"], ended["tools"][0]["ok"]) == ("succeeded", True)
    assert office.written().count(text) == 1
    events = office.events(result["run_id"])
    assert in_order(events)
    assert names(events).count("approval.decided") == names(events).count("run.started") == 1
    told = names(events)
    assert told.index("approval.required") < told.index("approval.decided") < told.index("tool.called")
    decision = next(data for _, name, data in events if name == "approval.decided")
    assert (decision["approval_id"], decision["decision"]) == (asked["id"], "approve")
    again = office.decide(asked["id"], "deny")
    assert (again.status_code, again.json()["code"]) == (409, "already_decided")


def test_denied_call_is_not_made(office: Office, text: str) -> None:
    result = office.ask("clerk", text)
    office.decide(office.question(result["run_id"])["id"], "deny", comment="Too late for that.")
    ended = office.end(result["run_id"])
    assert (ended["status"], ended["tools"][0]["ok"]) == ("succeeded", False)
    assert "Too late for that." in ended["output"]
    assert office.written().count(text) == 0


def test_waiting_invoked_run_names_its_approvals(office: Office, text: str) -> None:
    question = {"input": f'Call the write_line tool with "{text}".'}
    key = {"Idempotency-Key": text}
    answer = office.admin.post("/v1/agents/clerk/invoke", json=question, headers=key)
    run_id = answer.json()["run_id"]
    assert (answer.status_code, answer.json()["status"]) == (200, "waiting_approval")
    assert answer.json()["approvals"] == [office.question(run_id)["id"]]
    again = office.admin.post("/v1/agents/clerk/invoke", json=question, headers=key)
    assert again.json() == answer.json() and again.headers["Idempotency-Replayed"] == "true"
    shown = office.admin.get(f"/v1/runs/{run_id}").json()
    assert {name: shown[name] for name in answer.json()} == answer.json()
    office.decide(answer.json()["approvals"][0], "deny")
    assert "approvals" not in office.end(run_id)


def test_follower_gets_every_event_across_an_approval(office: Office, text: str) -> None:
    question = {"input": f'Call the write_line tool with "{text}".'}
    with office.admin.stream("POST", "/v1/agents/clerk/stream", json=question) as stream:
        events = events_of("".join(stream.iter_text()))
    run_id = events[0][2]["run_id"]
    asked = next(data for _, name, data in events if name == "approval.required")
    assert events.pop() == ("", "reconnect", {"last_seq": len(events), "status": "waiting_approval"})
    assert office.events(run_id) == events
    with office.follow(run_id, events[-1][0]) as stream:  # nothing to wait for here either
        assert names(events_of("".join(stream.iter_text()))) == ["reconnect"]
    assert office.decide(asked["approval_id"], "approve").status_code == 200
    office.end(run_id)
    with office.follow(run_id, events[-1][0]) as stream:
        events += events_of("".join(stream.iter_text()))
    assert in_order(events)
    assert names(events)[-1] == "run.completed"
    assert names(events).count("approval.required") == names(events).count("approval.decided") == 1
    assert events == office.events(run_id)


def test_users_list_approvals_and_operators_decide(office: Office, text: str) -> None:
    slipway, admin = office.slipway, office.admin
    with (
        closing(join(slipway, admin)) as ada,
        closing(join(slipway, admin)) as bob,
        closing(join(slipway, admin, "operator")) as operator,
    ):
        result = office.ask("clerk", text, ada)
        [asked] = ada.get("/v1/approvals?status=pending").json()["data"]
        assert bob.get("/v1/approvals").json()["data"] == []
        path, yes = f"/v1/approvals/{asked['id']}", {"decision": "approve"}
        assert ada.post(path, json=yes).status_code == 403
        assert bob.post(path, json=yes).status_code == 404
        assert operator.post(path, json=yes).status_code == 200
        assert operator.post("/v1/approvals/apr_none", json=yes).status_code == 404
    assert office.end(result["run_id"])["status"] == "succeeded"


def test_a_run_that_is_cancelled_asks_no_more(office: Office, text: str) -> None:
    result = office.ask("clerk", text)
    asked = office.question(result["run_id"])
    assert office.admin.post(f"/v1/runs/{result['run_id']}/cancel").status_code == 202
    assert office.pending(result["run_id"]) == []
    late = office.decide(asked["id"], "approve")
    assert (late.status_code, late.json()["code"]) == (409, "already_decided")
    assert names(office.events(result["run_id"]))[-1] == "run.cancelled"
    assert office.written().count(text) == 0


def test_a_turn_that_waits_holds_its_session(office: Office, text: str) -> None:
    session_id = office.admin.post("/v1/sessions", json={"agent": "clerk"}).json()["id"]
    body = {"input": f'Call the write_line tool with "{text}".', "session_id": session_id}
    waiting = office.admin.post("/v1/agents/clerk/invoke", json=body).json()
    busy = office.admin.post("/v1/agents/clerk/invoke", json={"input": "Hello?", "session_id": session_id})
    assert (busy.status_code, busy.json()["code"]) == (409, "session_busy")
    office.decide(office.question(waiting["run_id"])["id"], "approve")
    office.end(waiting["run_id"])
    assert len(office.admin.get(f"/v1/sessions/{session_id}").json()["messages"]) == 2
    waiting = office.admin.post("/v1/agents/clerk/invoke", json=body).json()
    office.admin.post(f"/v1/runs/{waiting['run_id']}/cancel")
    messages = office.admin.get(f"/v1/sessions/{session_id}").json()["messages"]
    assert [each["status"] for each in messages if each["role"] == "user"] == ["succeeded", "cancelled"]
    assert office.admin.delete(f"/v1/sessions/{session_id}").status_code == 204


@pytest.mark.parametrize("decision,lines", [("deny", 1), ("approve", 2)])
def test_call_lost_with_its_worker_needs_an_approval(
    office: Office, text: str, decision: str, lines: int
) -> None:
    """`kill -9` after the call was made and before its result was kept; again after it was made again."""
    question = {"input": f'Call the write_slowly tool with "{text}".'}
    with office.admin.stream("POST", "/v1/agents/sloth/stream", json=question) as stream:
        run_id = next(stream.iter_text()).split("id: ")[1].split(":")[0]
        wait_until(lambda: text in office.written(), "the line")
        kill_workers(office.slipway)
    for made in range(1, lines + 1):
        asked = office.question(run_id)
        assert (asked["reason"], office.written().count(text)) == ("unknown", made)
        if made < lines:
            assert office.decide(asked["id"], "approve").status_code == 200
            wait_until(lambda: office.written().count(text) == 2, "the line again")
            kill_workers(office.slipway)
    assert office.decide(office.question(run_id)["id"], "deny").status_code == 200
    assert office.end(run_id)["status"] == "succeeded"
    assert office.written().count(text) == lines
    events = office.events(run_id)
    assert names(events).count("approval.required") == names(events).count("approval.decided") == lines
    assert names(events).count("run.started") == names(events).count("tool.called") == 1


def test_a_call_that_timed_out_goes_to_a_person(office: Office, text: str) -> None:
    result = office.ask("late", text)
    assert result["status"] == "waiting_approval"
    asked = office.question(result["run_id"])
    assert asked["reason"] == "unknown"
    wait_until(lambda: text in office.written(), "the late line")
    office.decide(asked["id"], "deny")
    assert office.end(result["run_id"])["tools"][0]["ok"] is False
    assert office.written().count(text) == 1
    events = office.events(result["run_id"])
    assert in_order(events)
    assert names(events).count("tool.called") == names(events).count("tool.finished") == 1


def test_run_that_waits_outlives_its_workers(office: Office, text: str) -> None:
    result = office.ask("clerk", text)
    asked = office.question(result["run_id"])
    kill_workers(office.slipway)
    assert office.decide(asked["id"], "approve", digest=asked["digest"]).status_code == 200
    assert office.end(result["run_id"])["status"] == "succeeded"
    assert office.written().count(text) == 1


def kill_workers(slipway: Slipway) -> None:
    """Every worker, at once; Gunicorn makes new ones."""
    old = slipway.workers()
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(set(slipway.workers()) - set(old)) == len(old), "new workers")
    wait_until(lambda: httpx2.get(f"{slipway.url}/health", trust_env=False).status_code == 200, "health")


def test_approval_names_user_question_and_session(office: Office, text: str) -> None:
    """For the user too, and in the answer to a decision."""
    question = f'Call the write_line tool with "{text}".'
    with closing(join(office.slipway, office.admin)) as user:
        username = user.get("/v1/auth/me").json()["username"]
        session = user.post("/v1/sessions", json={"agent": "clerk", "title": "Lines"}).json()["id"]
        body = {"input": question + "x" * 300, "session_id": session}
        run_id = user.post("/v1/agents/clerk/invoke", json=body).json()["run_id"]
        [asked] = user.get("/v1/approvals?status=pending").json()["data"]
    about = {"username": username, "agent": "clerk", "session_id": session, "session_title": "Lines"}
    shown = {**about, "run_id": run_id, "input": (question + "x" * 300)[:200]}
    assert shown.items() <= asked.items()
    assert office.question(run_id) == asked
    decided = office.decide(asked["id"], "deny").json()
    assert shown.items() <= decided.items()


def test_an_approval_of_no_conversation(office: Office, text: str) -> None:
    run_id = office.ask("clerk", text)["run_id"]
    asked = office.question(run_id)
    assert (asked["session_id"], asked["session_title"], asked["username"]) == (None, None, "demo")
    office.decide(asked["id"], "deny")
