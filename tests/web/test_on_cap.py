"""Caps that pause and estimates over HTTP: what clients are answered, and that a raised cap resumes the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Model, wait_until
from tests.made import app_in, close
from tests.web.test_agent_stops import Door

QUESTION = {"input": "What is 17 times 23?", "cache": "bypass", "on_cap": "pause"}
AGENT = "/v1/agents/assistant"


@pytest.fixture
def door(tmp_path: Path, model: Model) -> Iterator[Door]:
    app = app_in(tmp_path, ANTHROPIC_BASE_URL=model.url)
    yield Door(app)
    close(app)


def cap(door: Door, root: str, scope: str, amount: str | None) -> None:
    body = {"amount_usd": amount, "period": "day"}
    assert door.ask(root, "PUT", f"/v1/admin/budgets/{scope}", body).status_code == 200


def test_run_waits_and_goes_on_once_the_cap_is_raised(door: Door) -> None:
    root, user = door.key_of("admin"), door.key_of("user")
    cap(door, root, "agent:assistant", "0.000001")
    refused = door.ask(user, "POST", f"{AGENT}/invoke", {**QUESTION, "on_cap": "fail"})
    assert (refused.status_code, refused.json["code"]) == (402, "budget_exceeded")
    answer = door.ask(user, "POST", f"{AGENT}/invoke", QUESTION)
    assert (answer.status_code, answer.json["status"]) == (200, "waiting_budget")
    waits = answer.json["waits_for"]
    assert waits["budget"]["scope"] == "agent:assistant" and waits["needed_usd"] > "0.000000"
    path = f"/v1/runs/{answer.json['run_id']}"
    assert door.ask(user, "GET", path).json["waits_for"] == waits
    listed = door.ask(user, "GET", "/v1/runs?status=waiting_budget").json["data"]
    assert [run["run_id"] for run in listed] == [answer.json["run_id"]]
    cap(door, root, "agent:assistant", "1")
    runs = door.app.extensions["slipway"].runs
    runs.supervisor._tick(0.0)  # as it does at once
    runs.supervisor._tick(0.0)

    def status() -> Any:
        return door.ask(user, "GET", path).json["status"]

    wait_until(lambda: status() == "succeeded", "the end")
    assert "391" in door.ask(user, "GET", path).json["output"]


def test_stream_says_what_it_waits_for(door: Door) -> None:
    root, user = door.key_of("admin"), door.key_of("user")
    cap(door, root, "service", "0.000001")
    answer = door.ask(user, "POST", f"{AGENT}/stream", QUESTION)
    told = [line for line in answer.text.splitlines() if line.startswith("event: ")]
    assert told == ["event: run.started", "event: budget.required", "event: reconnect"]


def test_amounts_of_others_caps_stay_theirs(door: Door) -> None:
    """A user of another workspace learns which cap it is, and nothing of what others spend."""
    root = door.key_of("admin")
    workspace = door.ask(root, "POST", "/v1/admin/workspaces", {"name": "acme"}).json["id"]
    user = door.key_of("user", workspace)
    cap(door, root, "service", "0.000001")
    waits = door.ask(user, "POST", f"{AGENT}/invoke", QUESTION).json["waits_for"]
    assert set(waits["budget"]) == {"scope", "period", "renews_at"}


def test_estimate(door: Door) -> None:
    user = door.key_of("user")
    answer = door.ask(user, "POST", f"{AGENT}/estimate", QUESTION)
    assert answer.status_code == 200 and set(answer.json) == {"ceiling_usd", "steps", "left", "like_it"}
    assert answer.json["like_it"]["median_usd"] is None and answer.json["ceiling_usd"] > "0.000000"
    run = door.ask(user, "POST", f"{AGENT}/invoke", QUESTION).json
    again = door.ask(user, "POST", f"{AGENT}/estimate", QUESTION).json
    assert again["like_it"] == {
        "median_usd": run["usage"]["cost_usd"],
        "p95_usd": run["usage"]["cost_usd"],
        "runs": 1,
    }
    assert float(run["usage"]["cost_usd"]) <= float(answer.json["ceiling_usd"])


@pytest.mark.parametrize("body", [{}, {"input": "x", "on_cap": "wait"}, {"input": "x", "max_steps": 200}])
def test_estimate_of_a_body_that_invoke_refuses(door: Door, body: dict[str, Any]) -> None:
    user = door.key_of("user")
    refused = door.ask(user, "POST", f"{AGENT}/estimate", body)
    assert refused.status_code == 422
    assert door.ask(user, "POST", f"{AGENT}/invoke", body).json["errors"] == refused.json["errors"]
    assert door.ask(user, "POST", "/v1/agents/none/estimate", {"input": "x"}).status_code == 404
