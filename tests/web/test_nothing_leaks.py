"""Secrets, stack traces and upstream text stay out of answers; secrets and upstream text also out of the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests.conftest import Model, RedisServer, Slipway, slipway_server

SECRET = "a-secret-key-of-this-test-which-nobody-may-ever-read"
API_KEY = "sk-ant-the-providers-key-of-this-test"
PROMPT = "My diary says that xylophones are blue."
STACK = ("Traceback", 'File "', "site-packages", "sqlalchemy", "psycopg", "sqlite3", "anthropic.", "httpx2.")


@pytest.fixture(scope="module")
def house(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    settings = {
        "SECRET_KEY": SECRET,
        "ANTHROPIC_API_KEY": API_KEY,
        "BREAKER_FAILURES": "1000",
        "MODEL_RETRIES": "0",
    }
    with slipway_server(scratch / "leaks", redis_server.url, model.url, **settings) as server:
        yield server


@pytest.fixture
def caller(house: Slipway, model: Model) -> Iterator[httpx2.Client]:
    model.reset()
    with closing(house.client()) as signed_in:
        yield signed_in
    model.reset()


def nothing_in(text: str) -> None:
    for word in (SECRET, API_KEY, *STACK):
        assert word not in text, text[:2000]


FAULTS = ("400", "401", "429", "500", "503", "529", "drop", "drop_first", "garbage", "error_event", "no_stop")


@pytest.mark.parametrize("fault", FAULTS)
def test_upstream_error_text_is_not_in_the_answer(caller: httpx2.Client, model: Model, fault: str) -> None:
    model.control(fault=fault)
    body = {"input": PROMPT, "cache": "bypass"}
    answer = caller.post("/v1/agents/assistant/invoke", json=body)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"].startswith("model_")
    stream = caller.post("/v1/agents/assistant/stream", json=body).text
    for text in (answer.text, stream):
        nothing_in(text)
        for theirs in ("<html", "offline fault", "injected", '"type":"error"', "x-api-key"):
            assert theirs not in text, text
    run = caller.get(f"/v1/runs/{answer.json()['run_id']}")
    nothing_in(run.text)
    assert run.json()["error"]["code"] == answer.json()["code"]


def test_a_database_that_breaks_says_nothing_of_itself(caller: httpx2.Client, house: Slipway) -> None:
    """A table that is gone is a fault of ours: a 500 that tells nothing, with its stack in the log."""
    import sqlite3

    database = sqlite3.connect(Path(house.env["SLIPWAY_HOME"]) / "slipway.db", timeout=10)
    database.execute("ALTER TABLE api_keys RENAME TO gone")
    try:
        answer = caller.get("/v1/auth/keys")
    finally:
        database.execute("ALTER TABLE gone RENAME TO api_keys")
        database.close()
    assert answer.status_code in (500, 503), answer.text
    nothing_in(answer.text)
    assert "api_keys" not in answer.text and "SELECT" not in answer.text


def test_secrets_and_prompts_are_not_logged(caller: httpx2.Client, house: Slipway) -> None:
    pair = httpx2.post(
        f"{house.url}/v1/auth/login", json={"username": "demo", "password": "demo-password"}, timeout=30
    )
    key = caller.post("/v1/auth/keys", json={"name": "leaks"}).json()["key"]
    with httpx2.Client(base_url=house.url, headers={"X-Api-Key": key}, timeout=30) as other:
        answer = other.post(
            "/v1/agents/assistant/invoke", json={"input": PROMPT, "metadata": {"password": "hunter2"}}
        )
        assert answer.status_code == 200
        other.post("/v1/auth/login", json={"username": "demo", "password": "not-the-password"})
        other.get("/v1/runs", params={"cursor": key})
    log = house.log.read_text()
    answered = json.loads(answer.text)["output"]
    for secret in (SECRET, API_KEY, PROMPT, answered, key, "hunter2", "demo-password", "not-the-password"):
        assert secret not in log
    assert pair.json()["access_token"] not in log and pair.json()["refresh_token"] not in log


def test_refused_input_is_not_repeated(caller: httpx2.Client) -> None:
    for body in (
        {"username": "demo", "password": ["hunter2"]},
        {"username": "demo", "password": "hunter2" * 200},
    ):
        assert "hunter2" not in caller.post("/v1/auth/login", json=body).text
    body = b'{"input": "hunter2'
    headers = {"Content-Type": "application/json"}
    assert "hunter2" not in caller.post("/v1/agents/assistant/invoke", content=body, headers=headers).text


def test_headers_name_no_framework(caller: httpx2.Client) -> None:
    for path in ("/health", "/nothing", "/v1/auth/me", "/", "/openapi.json"):
        answer = caller.get(path)
        assert "Werkzeug" not in str(answer.headers) and "Python" not in str(answer.headers)
        assert "X-Powered-By" not in answer.headers
