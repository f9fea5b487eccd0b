"""Admission: the order of its checks, by requests with more than one fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, Response
from flask import request as http
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.auth.permissions import PERMISSIONS, Permission
from service.types import RunRequest
from service.web.admission import admit, guard
from service.web.openapi import api
from tests.made import app_in, close

DOORS = ("invoke", "stream", "tasks")
GOOD, BAD = {"input": "Hello"}, {"input": 5}
BAD_KEY = {"Idempotency-Key": "not visible"}


def signed_in(app: Flask) -> FlaskClient:
    client = app.test_client()
    who = {"username": "demo", "password": "demo-password"}
    pair = client.post("/v1/auth/login", json=who, buffered=True).get_json()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {pair['access_token']}"
    return client


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    app = app_in(tmp_path_factory.mktemp("admission"))
    yield app
    close(app)


def ask(
    client: FlaskClient, door: str, agent: str, body: object, headers: dict[str, str] | None = None
) -> TestResponse:
    return client.post(f"/v1/agents/{agent}/{door}", json=body, headers=headers, buffered=True)


@pytest.mark.parametrize("door", DOORS)
def test_the_caller_comes_first(app: Flask, door: str) -> None:
    assert ask(app.test_client(), door, "nobody", BAD, BAD_KEY).status_code == 401


@pytest.mark.parametrize(("door", "status"), [("invoke", 422), ("stream", 422), ("tasks", 404)])
def test_a_body_that_does_not_fit_and_an_unknown_agent(app: Flask, door: str, status: int) -> None:
    assert ask(signed_in(app), door, "nobody", BAD, BAD_KEY).status_code == status


@pytest.mark.parametrize("door", DOORS)
def test_an_unknown_agent_comes_before_a_key_that_is_none(app: Flask, door: str) -> None:
    assert ask(signed_in(app), door, "nobody", GOOD, BAD_KEY).get_json()["code"] == "not_found"


@pytest.mark.parametrize("door", DOORS)
def test_a_key_that_is_none_starts_nothing(app: Flask, door: str) -> None:
    client = signed_in(app)
    answer = ask(client, door, "assistant", GOOD, BAD_KEY)
    assert (answer.status_code, "Idempotency-Key" in answer.get_json()["detail"]) == (422, True)
    assert client.get("/v1/runs", buffered=True).get_json()["data"] == []


@pytest.mark.parametrize("limit", ["LIMIT_RUNS", "LIMIT_INVOKE"])
def test_limits_come_before_the_body(tmp_path: Path, limit: str) -> None:
    app = app_in(tmp_path, **{limit: "1/hour"})
    client = signed_in(app)
    assert [ask(client, "invoke", "nobody", BAD).status_code for _ in range(2)] == [422, 429]
    close(app)


@pytest.mark.parametrize("path", ["/v1/other/dialect", "/v1/other/<agent>/dialect"])
def test_agents_own_limit_holds_at_a_door_whose_body_names_the_agent(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_in(tmp_path)
    monkeypatch.setitem(PERMISSIONS, f"POST {path}", Permission("runs:write"))

    @app.post(path)
    @api("Ask in another dialect")
    @guard(counts="run")
    def ask_otherwise(agent: str | None = None) -> Response:
        admit("invoke", lambda: RunRequest(http.headers["X-Model"], ({"role": "user", "content": "Hello"},)))
        return Response(status=204)

    agents = app.extensions["slipway"].agents.agents
    object.__setattr__(agents["analyst"].limits, "rate", "1/hour")
    client = signed_in(app)
    statuses = [
        client.post(
            path.replace("<agent>", "assistant"), headers={"X-Model": model}, buffered=True
        ).status_code
        for model in ("analyst", "analyst", "assistant", "nobody")
    ]
    close(app)
    assert statuses == [204, 429, 204, 404]
