"""Kill switch over HTTP: who may, what new runs are answered, and what a run under way looks like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from service.ids import new_id
from tests.conftest import Model
from tests.made import app_in, close

AGENT, PASSWORD = "assistant", "a-long-password"
QUESTION = {"input": "What is 17 times 23?", "cache": "bypass"}
CALCULATES = "analyst"


class Door(NamedTuple):
    app: Flask

    def key_of(self, role: Any, workspace_id: str | None = None) -> str:
        auth = self.app.extensions["slipway"].auth
        there = {} if workspace_id is None else {"workspace_id": workspace_id}
        user = auth.users.create(new_id("u"), PASSWORD, role, **there)
        return str(auth.keys.create(user.id, "k")["key"])

    def ask(self, key: str, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        sent = {"Authorization": f"Bearer {key}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.app.test_client().open(path, method=method, json=body, headers=sent, buffered=True)

    def switch(self, key: str, to: str, agent: str = AGENT, **headers: str) -> TestResponse:
        body = {"reason": "It promises refunds."} if to == "stop" else None
        return self.ask(key, "POST", f"/v1/admin/agents/{agent}/{to}", body, **headers)


@pytest.fixture
def door(tmp_path: Path, model: Model) -> Iterator[Door]:
    app = app_in(tmp_path, ANTHROPIC_BASE_URL=model.url)
    yield Door(app)
    close(app)


def test_admins_of_the_service_alone_may(door: Door) -> None:
    workspaces = door.app.extensions["slipway"].auth.workspaces
    row = workspaces.new_row("acme")
    door.app.extensions["slipway"].infra.db.transact(lambda tx: workspaces.insert(tx, row))
    for key in (door.key_of("operator"), door.key_of("admin", row["id"])):
        for to in ("stop", "release"):
            assert door.switch(key, to).status_code == 403
    assert door.ask(door.key_of("user"), "POST", f"/v1/agents/{AGENT}/invoke", QUESTION).status_code == 200


def test_stop_and_release(door: Door) -> None:
    root, user = door.key_of("admin"), door.key_of("user")
    stopped = door.switch(root, "stop").get_json()
    assert stopped["agent"] == AGENT and stopped["stopped"] and stopped["reason"] == "It promises refunds."
    assert door.switch(root, "stop").get_json() == stopped
    for how in ("invoke", "stream", "tasks"):
        refused = door.ask(user, "POST", f"/v1/agents/{AGENT}/{how}", QUESTION)
        assert (refused.status_code, refused.get_json()["code"]) == (503, "agent_stopped"), refused.text
        assert refused.headers["Retry-After"] == "30"
    assert door.ask(user, "POST", "/v1/agents/support/invoke", QUESTION).status_code == 200
    released = door.switch(root, "release").get_json()
    assert (released["stopped"], released["reason"]) == (False, None)
    assert door.ask(user, "POST", f"/v1/agents/{AGENT}/invoke", QUESTION).status_code == 200


def test_faulty_stops(door: Door) -> None:
    root = door.key_of("admin")
    assert door.switch(root, "stop", "none").status_code == 404
    for body in ({}, {"reason": ""}, {"reason": "x" * 501}):
        assert door.ask(root, "POST", f"/v1/admin/agents/{AGENT}/stop", body).status_code == 422
    assert door.switch(root, "release").status_code == 200, "it was not stopped"


def test_repeated_stop_does_not_undo_a_release(door: Door) -> None:
    root, user = door.key_of("admin"), door.key_of("user")
    assert door.switch(root, "stop", Idempotency_Key="once").status_code == 200
    door.switch(root, "release")
    assert door.switch(root, "stop", Idempotency_Key="once").headers["Idempotency-Replayed"] == "true"
    assert door.ask(user, "POST", f"/v1/agents/{AGENT}/invoke", QUESTION).status_code == 200


def test_run_under_way_is_shown_as_paused(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    services, root, user = door.app.extensions["slipway"], door.key_of("admin"), door.key_of("user")
    execution = services.runs.execution.runner.steps.tool_execution
    use = execution.use

    def stop_before_tools(*args: Any) -> Any:
        assert door.switch(root, "stop", CALCULATES).status_code == 200
        return use(*args)

    monkeypatch.setattr(type(execution), "use", lambda self, *args: stop_before_tools(*args))
    answer = door.ask(user, "POST", f"/v1/agents/{CALCULATES}/invoke", QUESTION)
    assert (answer.status_code, answer.get_json()["status"]) == (200, "paused")
    run_id = answer.get_json()["run_id"]
    assert door.ask(user, "GET", f"/v1/runs/{run_id}").get_json()["status"] == "paused"
    listed = door.ask(user, "GET", "/v1/runs?status=paused").get_json()["data"]
    assert [run["run_id"] for run in listed] == [run_id]
    assert door.ask(user, "POST", f"/v1/runs/{run_id}/cancel").status_code == 202
    assert door.ask(user, "GET", f"/v1/runs/{run_id}").get_json()["status"] == "cancelled"
