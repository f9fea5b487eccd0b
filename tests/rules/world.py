"""Slipway with users, keys of several scopes, and objects of theirs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from werkzeug.test import TestResponse

from service.auth.users import User
from service.ids import new_id
from service.knowledge.documents import NewDocument
from service.store import approvals, schema, steps
from service.store import runs as run_rows
from service.store import sessions as session_rows
from service.types import Caller, Run, RunRequest, RunStatus, now_ms
from service.wiring import Services
from tests.made import app_in, close
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
PASSWORD = "a-password-of-some-length"
AGENT, OTHER = "support", "analyst"
BODIES: dict[str, dict[str, Any]] = {
    "PATCH /v1/sessions/<session_id>": {"title": "New"},
    "POST /v1/approvals/<approval_id>": {"decision": "deny"},
    "POST /v1/runs/<run_id>/feedback": {"score": 1},
    "POST /v1/runs/<run_id>/fork": {"from_step": 1},
    "PATCH /v1/schedules/<schedule_id>": {"enabled": False},
}


@dataclass
class World:
    """Ada's objects of two agents, and keys of hers, of Bob's and of Eve's, who is an operator.

    `other` is another workspace, whose users have the same names; its word is in every text of Ada's there.
    """

    app: Flask
    ada: User
    keys: dict[str, str]
    word: str = "Do it."
    other: World | None = None

    @property
    def services(self) -> Services:
        found: Services = self.app.extensions["slipway"]
        return found

    def ask(self, who: str, name: str, path: str, **more: Any) -> TestResponse:
        """Call a route, given as `METHOD /rule`, at `path`."""
        body = BODIES.get(name)
        headers = {"Authorization": f"Bearer {self.keys[who]}", "Accept": "application/json"}
        headers |= more.pop("headers", {})
        method = name.partition(" ")[0]
        return self.app.test_client().open(
            path, method=method, headers=headers, json=body, buffered=True, **more
        )

    def get(self, who: str, path: str) -> Any:
        answer = self.ask(who, "GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json

    def pages(self, who: str, path: str) -> list[dict[str, Any]]:
        """Every item of a list, by pages of two; each but the last is full."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            sign = "&" if "?" in path else "?"
            body = self.get(who, f"{path}{sign}limit=2{cursor}")
            found += body["data"]
            if body["next_cursor"] is None:
                return found
            assert len(body["data"]) == 2
            cursor = f"&cursor={body['next_cursor']}"

    def make(self, kind: str, agent: str = AGENT, user_id: str | None = None) -> str:
        """A new object of Ada's; its id."""
        made = {
            "run": self.run,
            "ses": self.session,
            "apr": self.approval,
            "sch": self.schedule,
            "resp": self.response,
            "doc": self.document,
        }[kind]
        return made(agent, user_id or self.ada.id)

    def session(self, agent: str, user_id: str) -> str:
        caller = Caller(user_id, "x", "user", workspace_id=self.ada.workspace_id)
        row = self.services.sessions.new(caller, agent, self.word, None)
        self.services.infra.db.transact(lambda tx: session_rows.insert(tx, row))
        return str(row["id"])

    def schedule(self, agent: str, user_id: str) -> str:
        caller = Caller(user_id, "x", "user", workspace_id=self.ada.workspace_id)
        fields = {
            "input": self.word,
            "cron": "0 6 * * *",
            "timezone": "UTC",
            "missed": "skip",
            "enabled": True,
        }
        known = self.services.schedules
        row = known.new(caller, agent, {**fields, "session_id": None, "cap_nano": None})
        self.services.infra.db.transact(lambda tx: known.insert(tx, row))
        return str(row["id"])

    def document(self, agent: str, user_id: str) -> str:
        known = self.services.knowledge.documents
        new = NewDocument(f"{self.word} document", "text", f"{self.word} Words of a document.".encode())
        prepared = known.prepare(self.ada.workspace_id, agent, new)
        return str(self.services.infra.db.transact(lambda tx: known.write(tx, prepared))["id"])

    def response(self, agent: str, user_id: str) -> str:
        asked_as = {"fields": {"background": True}, "input": []}
        return self.run(agent, user_id, asked_as).replace("run_", "resp_")

    def run(self, agent: str, user_id: str, asked_as: dict[str, Any] | None = None) -> str:
        """Make a run that waits for two approvals: one decision resumes nothing."""
        request = RunRequest(agent, ({"role": "user", "content": self.word},), asked_as=asked_as)
        run = Run(new_id("run"), user_id, agent, "1", "task", request, attempt=1)
        run.workspace_id = self.ada.workspace_id
        asked = {"run_id": run.id, "user_id": user_id, "agent": agent, "name": "write", "reason": "policy"}
        asked |= {"arguments": {"text": self.word}, "workspace_id": run.workspace_id}
        calls = [{**asked, "id": new_id("apr"), "call_id": f"c{n}"} for n in (1, 2)]

        def work(tx: Any) -> None:
            run_rows.insert(tx, run, worker_id="wrk")
            run_rows.suspend(tx, run, 1)
            approvals.ask(tx, calls)

        self.services.infra.db.transact(work)
        return run.id

    def ended_run(self, user_id: str) -> str:
        """Make a run that has failed after its first step."""
        run_id = self.run(AGENT, user_id)
        step = {"n": 1, "kind": "model", "name": "answer", "attempt": 1, "reply": {}, "events": []}
        step |= dict.fromkeys(("first_seq", "last_seq", "cost_nano", "started_at", "finished_at"), 1)

        def work(tx: Any) -> None:
            run = run_rows.get(tx, run_id)
            assert run is not None
            run.status, run.finished_at = RunStatus.FAILED, now_ms()
            steps.insert(tx, {**step, "run_id": run_id}, user_id)
            assert run_rows.close(tx, run, [RunStatus.WAITING_APPROVAL])

        self.services.infra.db.transact(work)
        return run_id

    def approval(self, agent: str, user_id: str) -> str:
        run_id = self.run(agent, user_id)
        first = self.services.infra.db.query(lambda tx: approvals.of_run(tx, run_id))[0]
        return str(first["id"])

    def spend(self, agent: str, user_id: str, cost: int) -> None:
        """A settled call on the books."""
        row = dict.fromkeys((column.name for column in schema.ledger.columns), None)
        row |= {"entry_id": new_id("hold"), "kind": "settle", "account": "upstream", "amount_nano": cost}
        row |= {"at": now_ms(), "called_at": now_ms(), "user_id": user_id, "agent": agent, "model": "m"}
        self.services.infra.db.transact(lambda tx: tx.execute(sa.insert(schema.ledger), row))


@pytest.fixture
def world(tmp_path: Path, url: str) -> Iterator[World]:
    app = app_in(tmp_path, DATABASE_URL=url)
    services: Services = app.extensions["slipway"]
    ada = services.auth.users.create("ada", PASSWORD)
    bob = services.auth.users.create("bob", PASSWORD)
    eve = services.auth.users.create("eve", PASSWORD, "operator")
    wanted: dict[str, tuple[User, tuple[str, ...]]] = {
        "ada's key": (ada, ()),
        "in scope": (ada, (f"agents:{AGENT}",)),
        "by prefix": (ada, ("agents:none", f"agents:{AGENT[:3]}*")),
        "every agent": (ada, ("agents:*",)),
        "out of scope": (ada, (f"agents:{OTHER}",)),
        "longer name": (ada, (f"agents:{AGENT}-two",)),
        "bob": (bob, ()),
        "bob in scope": (bob, (f"agents:{AGENT}",)),
        "eve": (eve, ()),
        "eve in scope": (eve, (f"agents:{AGENT}",)),
    }
    keys = {
        name: services.auth.keys.create(user.id, "k", scopes)["key"]
        for name, (user, scopes) in wanted.items()
    }
    keys["signed in"] = services.auth.tokens.begin(ada).public()["access_token"]
    yield World(app, ada, keys, other=_other(app))
    close(app)


def _other(app: Flask) -> World:
    """Make the workspace `acme`."""
    services: Services = app.extensions["slipway"]
    auth, row = services.auth, services.auth.workspaces.new_row("acme")
    services.infra.db.transact(lambda tx: auth.workspaces.insert(tx, row))
    made = {
        name: auth.users.create(name, PASSWORD, role, workspace_id=row["id"])
        for name, role in (("ada", "user"), ("eve", "operator"), ("root", "admin"))
    }
    keys = {name: auth.keys.create(user.id, "k")["key"] for name, user in made.items()}
    keys["in scope"] = auth.keys.create(made["ada"].id, "k", (f"agents:{AGENT}",))["key"]
    keys["signed in"] = auth.tokens.begin(made["root"]).public()["access_token"]
    return World(app, made["ada"], keys, word="the word of acme")


def told(answer: TestResponse, object_id: str) -> Any:
    """A problem without what differs from request to request."""
    told = re.sub(object_id, "ID", answer.text)
    return answer.status_code, re.sub(r'"request_id":"\w+"', "", told)
