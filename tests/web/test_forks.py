"""Forks over HTTP, against a real server: queued, executed, compared, and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.audit.record import Action
from service.ids import new_id
from tests.conftest import Model
from tests.made import app_in, close

QUESTION = "What is 17% of 2340?"


@pytest.fixture
def run(client: httpx2.Client) -> dict[str, Any]:
    answer = client.post("/v1/agents/analyst/invoke", json={"input": QUESTION, "cache": "bypass"})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = client.get(f"/v1/runs/{answer.json()['run_id']}").json()
    return found


def fork(client: httpx2.Client, run_id: str, body: Any, **headers: str) -> httpx2.Response:
    return client.post(f"/v1/runs/{run_id}/fork", json=body, headers=headers)


def test_fork_is_queued_executed_and_compared(tmp_path: Path, model: Model) -> None:
    app = app_in(tmp_path, ANTHROPIC_BASE_URL=model.url)
    services = app.extensions["slipway"]
    user = services.auth.users.by_name("demo")
    client = app.test_client()
    headers = {"X-Api-Key": services.auth.keys.create(user.id, "k")["key"]}

    def call(method: str, path: str, body: Any = None) -> Any:
        answer = client.open(path, method=method, json=body, headers=headers)
        assert answer.status_code // 100 == 2, answer.text
        return answer

    asked = {"input": QUESTION, "cache": "bypass"}
    run_id = call("POST", "/v1/agents/analyst/invoke", asked).json["run_id"]
    run = call("GET", f"/v1/runs/{run_id}").json
    last = run["step_list"][-1]["step"]
    answer = call("POST", f"/v1/runs/{run_id}/fork", {"from_step": last, "prompt": "Answer in one word."})
    made = answer.json["run_id"]
    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/runs/{made}")
    queued = call("GET", f"/v1/runs/{made}").json
    assert (queued["status"], queued["difference"]) == ("queued", None)
    assert services.runs.execution.take_up(made)
    found = call("GET", f"/v1/runs/{made}").json
    assert (found["status"], found["door"], found["session_id"]) == ("succeeded", "fork/task", None)
    about = {"run_id": run_id, "step": last, "model": None, "own_prompt": True}
    assert found["forked_from"] == about
    assert found["difference"]["model_calls"] == {"before": 1, "after": 1}
    assert [step["step"] for step in found["step_list"]] == [step["step"] for step in run["step_list"]]
    assert [step["attempt"] for step in found["step_list"]] == [0] * (len(found["step_list"]) - 1) + [1]
    assert (run["forked_from"], run["difference"]) == (None, None)
    [row] = call("GET", f"/v1/admin/audit?action={Action.RUN_FORKED}").json["data"]
    assert (row["subject"], row["result"]) == (f"run:{made}", "ok")
    assert row["details"] == {"of": run_id, "step": last, "changed": ["prompt"]}
    close(app)


def test_same_key_is_the_same_fork(client: httpx2.Client, run: dict[str, Any]) -> None:
    key = new_id("try")
    first, second = (fork(client, run["run_id"], {"from_step": 1}, **{"Idempotency-Key": key}) for _ in "ab")
    assert first.json()["run_id"] == second.json()["run_id"]
    assert second.headers["Idempotency-Replayed"] == "true"
    other = fork(client, run["run_id"], {"from_step": 2}, **{"Idempotency-Key": key})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/from_step"),
        ({"from_step": 0}, "/from_step"),
        ({"from_step": "1"}, "/from_step"),
        ({"from_step": 999}, "/from_step"),
        ({"from_step": 2**70}, "/from_step"),
        ({"from_step": 1, "prompt": " "}, "/prompt"),
        ({"from_step": 1, "prompt": "a\x00"}, "/prompt"),
        ({"from_step": 1, "model": "gpt-none"}, "/model"),
        ({"from_step": 1, "session_id": "ses_1"}, "/session_id"),
    ],
)
def test_bad_body(client: httpx2.Client, run: dict[str, Any], body: Any, pointer: str) -> None:
    answer = fork(client, run["run_id"], body)
    assert answer.status_code == 422, answer.text
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]


def test_model_that_was_asked_as_it_is_has_no_fork(client: httpx2.Client) -> None:
    body = {"model": "claude-haiku-5-5", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
    assert client.post("/v1/messages", json=body).status_code == 200
    runs = client.get("/v1/runs", params={"agent": "claude-haiku-5-5", "limit": 1}).json()["data"]
    answer = fork(client, runs[0]["run_id"], {"from_step": 1})
    assert (answer.status_code, answer.json()["code"]) == (409, "not_forkable")
