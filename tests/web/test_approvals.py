"""Tool calls that wait for a person, over a real Gunicorn: asked, decided, lost, timed out."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from tests.conftest import Model, RedisServer, Slipway, slipway_server, wait_until
from tests.web.people import join
from tests.web.test_doors import events_of

AGENT = """\
description: Writes lines, for tests
pattern: react
tier: {{default: simple}}
tools: [{tool}]
approvals: [{asks}]
limits: {{steps: 6, seconds: 60}}
"""
pytestmark = pytest.mark.usefixtures("slipway")  # its log is shown when a test fails
TOOLS = """\
import time
from pathlib import Path

from service.tools import ToolContext, tool

LINES = Path({lines!r})


@tool()
def write_line(text: str) -> str:
    \"\"\"Write a line.\"\"\"
    with LINES.open("a") as file:
        file.write(text + "\\n")
    return "written"


@tool()
def write_slowly(text: str) -> str:
    \"\"\"Write a line, then rest for long.\"\"\"
    write_line.run({{"text": text}}, None)
    time.sleep(20)
    return "written"


@tool(timeout=0.3)
def write_late(text: str) -> str:
    \"\"\"Write a line, after more time than there is.\"\"\"
    time.sleep(0.8)
    return write_line.run({{"text": text}}, None)
"""
AGENTS = {"clerk": ("write_line", "write_line"), "sloth": ("write_slowly", ""), "late": ("write_late", "")}


@dataclass
class Office:
    """A Slipway whose agents write lines, with its admin and the lines."""

    slipway: Slipway
    admin: httpx2.Client
    lines: Path

    def written(self) -> list[str]:
        return self.lines.read_text().splitlines() if self.lines.exists() else []

    def ask(self, agent: str, text: str, client: httpx2.Client | None = None) -> dict[str, Any]:
        """Start a run whose agent calls its tool with `text`, and wait until the run ends or waits."""
        question = f'Call the {AGENTS[agent][0]} tool with "{text}".'
        answer = (client or self.admin).post(f"/v1/agents/{agent}/invoke", json={"input": question})
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def pending(self, run_id: str) -> list[dict[str, Any]]:
        data = self.admin.get("/v1/approvals?status=pending&limit=100").json()["data"]
        return [approval for approval in data if approval["run_id"] == run_id]

    def question(self, run_id: str) -> dict[str, Any]:
        """The only question about a run, once it is asked."""
        [asked] = wait_until(lambda: self.pending(run_id), "the question", 30)
        return dict(asked)

    def decide(self, approval_id: str, decision: str, **more: Any) -> httpx2.Response:
        return self.admin.post(f"/v1/approvals/{approval_id}", json={"decision": decision, **more})

    def end(self, run_id: str) -> dict[str, Any]:
        """The run's result, once it has ended."""

        def ended() -> dict[str, Any] | None:
            run: dict[str, Any] = self.admin.get(f"/v1/runs/{run_id}").json()
            return run if run["status"] in ("succeeded", "failed", "cancelled") else None

        return dict(wait_until(ended, "the end of the run", 30))

    def events(self, run_id: str) -> list[tuple[str, str, dict[str, Any]]]:
        """Those of the run, without the one that only ends its stream."""
        told = events_of(self.admin.get(f"/v1/runs/{run_id}/events").text)
        return [event for event in told if event[1] != "reconnect"]

    def follow(self, run_id: str, after: str) -> AbstractContextManager[httpx2.Response]:
        headers = {"Last-Event-ID": after}
        return self.admin.stream("GET", f"/v1/runs/{run_id}/events", headers=headers)


@pytest.fixture(scope="module")
def slipway(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    """One whose agents write lines."""
    home = scratch / "office"
    lines = home / "lines"
    for name, (tool, asks) in AGENTS.items():
        folder = home / "agents" / name
        folder.mkdir(parents=True)
        (folder / "agent.yaml").write_text(AGENT.format(tool=tool, asks=asks))
        (folder / "prompt.md").write_text("You write lines with your tool.")
        (folder / "tools.py").write_text(TOOLS.format(lines=str(lines)))
    model.reset()
    settings = {"AGENTS_DIR": str(home / "agents"), "WEB_CONCURRENCY": "2", "THREADS": "12"}
    with slipway_server(home, redis_server.url, model.url, **settings) as server:
        yield server


@pytest.fixture(scope="module")
def office(scratch: Path, slipway: Slipway) -> Iterator[Office]:
    with closing(slipway.client()) as admin:
        yield Office(slipway, admin, scratch / "office" / "lines")


@pytest.fixture
def text() -> str:
    """A line nobody else writes."""
    return secrets.token_hex(6)


def names(events: list[tuple[str, str, dict[str, Any]]]) -> list[str]:
    return [name for _, name, _ in events]


def in_order(events: list[tuple[str, str, dict[str, Any]]]) -> bool:
    numbers = [int(event_id.rpartition(":")[2]) for event_id, _, _ in events]
    return numbers == list(range(1, len(numbers) + 1))


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
    assert events.pop() == ("", "reconnect", {"last_seq": len(events)})
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
