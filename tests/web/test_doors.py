"""The doors to a run, over a real Gunicorn."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from tests.conftest import Model, Slipway, wait_until


def events_of(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(id, event, data) of every server-sent event."""
    found = []
    for frame in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in frame.split("\n") if not line.startswith(":") and ": " in line
        )
        if "event" in fields:
            found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


def test_an_agent_answers_with_its_sources(client: httpx2.Client) -> None:
    answer = client.post(
        "/v1/agents/support/invoke",
        json={"input": "Within how many days can I get a refund?", "cache": "bypass"},
    )
    assert answer.status_code == 200
    result = answer.json()
    assert result["status"] == "succeeded"
    assert "30 days" in result["output"]
    assert result["sources"][0]["uri"].startswith("knowledge/billing/")
    assert answer.headers["X-Cost-USD"] == result["usage"]["cost_usd"] != "0.000000"


def test_stream_and_invoke_have_the_same_answer(client: httpx2.Client) -> None:
    question = {"input": "Within how many days can I get a refund?"}
    answer = client.post("/v1/agents/support/stream", json=question)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    events = events_of(answer.text)
    names = [name for _, name, _ in events]
    assert names[0] == "run.started" and names[-1] == "run.completed"
    text = "".join(data["text"] for _, name, data in events if name == "text.delta")
    result = events[-1][2]
    assert (
        text == result["output"] == client.post("/v1/agents/support/invoke", json=question).json()["output"]
    )
    ids = [int(event_id.rpartition(":")[2]) for event_id, _, _ in events]
    assert ids == list(range(1, len(ids) + 1))


def test_a_run_is_read_again_from_any_point(client: httpx2.Client) -> None:
    answer = client.post("/v1/agents/analyst/stream", json={"input": "What is 17 * 23?", "cache": "bypass"})
    events = events_of(answer.text)
    run_id = events[0][2]["run_id"]
    after = events[3][0]
    again = client.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": after})
    assert events_of(again.text) == events[4:]
    listed = client.get(f"/v1/runs/{run_id}/events", headers={"Accept": "application/json"}).json()["data"]
    assert [(item["id"], item["event"], item["data"]) for item in listed] == events


def test_the_analyst_uses_its_tools(client: httpx2.Client) -> None:
    result = client.post("/v1/agents/analyst/invoke", json={"input": "What is 17% of 2340?"}).json()
    assert [tool["name"] for tool in result["tools"]] == ["calculator"]
    assert "397.8" in result["output"]


def test_run_names_question_and_user(client: httpx2.Client) -> None:
    me, question = client.get("/v1/auth/me").json()["id"], {"input": "Who asks this, and how?"}
    for door in ("invoke", "stream"):
        answer = client.post(f"/v1/agents/analyst/{door}", json={**question, "cache": "bypass"})
        result = answer.json() if door == "invoke" else events_of(answer.text)[-1][2]
        told = (result["input"], result["user_id"], result["door"], result["structured"])
        assert told == (question["input"], me, door, None)
        shown = client.get(f"/v1/runs/{result['run_id']}").json()
        assert {name: shown[name] for name in result} == result


@pytest.mark.parametrize("steps", [0, -1, 13, 10**30, "3", True, 1.5])
@pytest.mark.parametrize("door", ["invoke", "stream", "tasks"])
def test_steps_beyond_the_agents_own_are_refused(client: httpx2.Client, door: str, steps: object) -> None:
    body = {"input": "Hello", "max_steps": steps}
    answer = client.post(f"/v1/agents/assistant/{door}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/max_steps"]


def test_a_run_that_meets_its_limit_of_steps_fails(client: httpx2.Client) -> None:
    body = {"input": "How do I get a refund?", "cache": "bypass", "max_steps": 1}
    answer = client.post("/v1/agents/support/invoke", json=body)
    assert (answer.status_code, answer.json()["code"]) == (500, "run_limit")
    run = client.get(f"/v1/runs/{answer.json()['run_id']}").json()
    assert (run["status"], run["error"]["code"], run["steps"]) == ("failed", "run_limit", 1)
    assert client.post("/v1/agents/support/invoke", json={**body, "max_steps": 2}).status_code == 200


def test_the_same_question_is_answered_from_the_cache(client: httpx2.Client, model: Model) -> None:
    question = {"input": "Is this question asked for the first time?"}
    first = client.post("/v1/agents/assistant/invoke", json=question)
    second = client.post("/v1/agents/assistant/invoke", json=question)
    assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("miss", "hit")
    assert second.headers["X-Cost-USD"] == "0.000000"
    assert first.json()["output"] == second.json()["output"]
    assert model.stats()["calls"] == 1
    refreshed = client.post("/v1/agents/assistant/invoke", json={**question, "cache": "refresh"})
    bypassed = client.post("/v1/agents/assistant/invoke", json={**question, "cache": "bypass"})
    assert (refreshed.headers["X-Cache"], bypassed.headers["X-Cache"]) == ("miss", "bypass")


@pytest.mark.parametrize(
    "fault,calls,status,code",
    [
        ("400", 1, 502, "model_rejected"),
        ("garbage", 1, 502, "model_error"),
    ],
)
def test_a_model_that_fails_is_a_clear_problem(
    client: httpx2.Client, model: Model, fault: str, calls: int, status: int, code: str
) -> None:
    model.control(fault=fault)
    answer = client.post("/v1/agents/assistant/invoke", json={"input": f"fault {fault}", "cache": "bypass"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert model.stats()["calls"] == calls


def test_two_failures_and_then_an_answer(client: httpx2.Client, model: Model) -> None:
    model.control(fault="529", times=2)
    answer = client.post("/v1/agents/assistant/invoke", json={"input": "patience", "cache": "bypass"})
    assert answer.status_code == 200
    assert model.stats()["calls"] == 3


def test_the_same_key_is_the_same_run(client: httpx2.Client, model: Model) -> None:
    headers = {"Idempotency-Key": "one-of-a-kind-1"}
    body = {"input": "Once only, please.", "cache": "bypass"}
    first = client.post("/v1/agents/assistant/invoke", json=body, headers=headers)
    second = client.post("/v1/agents/assistant/invoke", json=body, headers=headers)
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"
    assert model.stats()["calls"] == 1
    other = client.post("/v1/agents/assistant/invoke", json={"input": "Another."}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_cancel_under_the_same_key_replays_the_first_answer(client: httpx2.Client, model: Model) -> None:
    model.control(first_token_ms=3000)
    asked = {"input": "Never mind.", "cache": "bypass", "metadata": {"test": "cancel twice"}}
    with client.stream("POST", "/v1/agents/assistant/stream", json=asked) as stream:
        lines = stream.iter_lines()
        run_id = next(lines).removeprefix("id: ").partition(":")[0]
        path, headers = f"/v1/runs/{run_id}/cancel", {"Idempotency-Key": "one-cancel-only"}
        first = client.post(path, headers=headers)
        assert "event: run.cancelled" in list(lines)
    second = client.post(path, headers=headers)
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json() == first.json() and second.headers["Idempotency-Replayed"] == "true"
    assert client.post(path).json()["code"] == "run_finished"
    other = client.post(f"/v1/runs/{run_id}x/cancel", headers=headers)
    assert other.status_code == 404


def test_a_key_outlives_a_failure_that_passes(client: httpx2.Client, model: Model) -> None:
    headers = {"Idempotency-Key": "one-of-a-kind-2"}
    body = {"input": "Once the model is well.", "cache": "bypass"}

    def ask() -> httpx2.Response:
        return client.post("/v1/agents/assistant/invoke", json=body, headers=headers)

    model.control(fault="garbage", times=1)
    first = ask()
    assert (first.status_code, first.json()["code"]) == (502, "model_error")
    answer = wait_until(lambda: (got := ask()).status_code == 200 and got, "another try")
    assert answer.json()["run_id"] != first.json()["run_id"] and "Idempotency-Replayed" not in answer.headers
    assert ask().json() == answer.json()
    assert model.stats()["calls"] == 2


def test_every_answer_has_its_headers(client: httpx2.Client) -> None:
    answer = client.post(
        "/v1/agents/assistant/invoke", json={"input": "Hello"}, headers={"X-Request-ID": "mine-1"}
    )
    assert answer.headers["X-Request-ID"] == "mine-1"
    assert "llm;dur=" in answer.headers["Server-Timing"]
    assert float(answer.headers["X-Process-Time"]) > 0
    assert {"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"} <= set(
        map(str, answer.headers.keys())
    ) or ("ratelimit-limit" in answer.headers)


def test_runs_and_tool_calls_are_in_the_metrics(client: httpx2.Client, model: Model) -> None:
    client.post("/v1/agents/analyst/invoke", json={"input": "What is 12 * 12?"})
    told = client.get("/metrics").text
    for metric in (
        'slipway_runs_total{agent="analyst",status="succeeded"}',
        'slipway_tool_calls_total{ok="true",tool="calculator"}',
        'slipway_model_calls_total{attempt="1",model="claude-sonnet-5-5",outcome="ok",provider="anthropic"}',
        'slipway_breaker_open{model="claude-sonnet-5-5",provider="anthropic"} 0.0',
        "slipway_runs_active 0.0",
    ):
        assert metric in told, metric


def test_health_ready_metrics_and_the_description(client: httpx2.Client, slipway: Slipway) -> None:
    assert client.get("/health").json()["status"] == "ok"
    ready = client.get("/ready")
    assert ready.status_code == 200
    assert ready.json()["database"]["status"] == ready.json()["redis"]["status"] == "ok"
    assert "slipway_http_requests_total" in client.get("/metrics").text
    assert client.get("/openapi.json").json()["openapi"] == "3.1.0"
