"""Settings that switch off metrics, the answer cache and each limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from flask.testing import FlaskClient

from tests.conftest import Model, RedisServer, Slipway, slipway_server, wait_until
from tests.made import app_in, close

NONE = {
    "LIMIT_RUNS": "",
    "LIMIT_LOGIN": "",
    "LIMIT_SESSION": "",
    "LIMIT_READS": "",
    "LIMIT_WRITES": "",
    "LIMIT_REFUSED": "",
    "LIMIT_CONCURRENT_RUNS": "",
    "BUDGET_USER_DAY_USD": "",
    "BUDGET_SERVICE_DAY_USD": "",
}


@pytest.fixture(scope="module")
def off(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    """Everything that can be switched off is."""
    switched = {"METRICS_ENABLED": "false", "CACHE_ENABLED": "no", "LOG_LEVEL": "WARNING", **NONE}
    with slipway_server(scratch / "off", redis_server.url, model.url, **switched) as server:
        yield server


def ask(client: httpx2.Client, text: str, agent: str = "assistant") -> httpx2.Response:
    answer = client.post(f"/v1/agents/{agent}/invoke", json={"input": text})
    assert answer.status_code == 200, answer.text
    return answer


def test_metrics_off_has_no_route_and_no_files(off: Slipway) -> None:
    answer = off.visitor().get("/metrics")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert list(Path(off.env["SLIPWAY_HOME"]).glob("metrics-*")) == []


def test_with_metrics_both_are_there(slipway: Slipway) -> None:
    assert "slipway_http_requests_total" in slipway.visitor().get("/metrics").text
    assert list(Path(slipway.env["SLIPWAY_HOME"]).glob("metrics-*/*.db"))


def test_without_a_cache_the_same_question_is_asked_again(off: Slipway) -> None:
    with off.client() as client:
        assert [ask(client, "What is your name?").headers["X-Cache"] for _ in range(2)] == [
            "bypass",
            "bypass",
        ]


def test_limits_off_has_no_headers_and_no_caps(off: Slipway) -> None:
    with off.client() as client:
        me = client.get("/v1/auth/me")
        assert me.json()["limits"] == {} and me.json()["budget"]["data"] == []
        assert not [name for name in ask(client, "Hello").headers if name.lower().startswith("ratelimit")]


def test_a_request_is_logged_in_production_too(off: Slipway) -> None:
    off.visitor().get("/v1/agents")
    wait_until(lambda: '"event":"request"' in off.log.read_text(), "the line of the request")
    assert '"level":"INFO","event":"llm_call"' not in off.log.read_text()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Any]:
    """An application in this process, without Redis: each process counts by itself."""
    made = app_in(tmp_path, **NONE)
    yield made
    close(made)


def test_without_redis_there_are_no_limits_either(own: Any) -> None:
    client: FlaskClient = own.test_client()
    pair = {"username": "demo", "password": "demo-password"}
    statuses = [client.post("/v1/auth/login", json=pair).status_code for _ in range(3)]
    token = client.post("/v1/auth/login", json=pair).get_json()["access_token"]
    about = client.get("/v1/auth/me", headers={"Authorization": f"Bearer {token}"})
    assert statuses == [200] * 3 and about.get_json()["limits"] == {}
    assert "RateLimit-Limit" not in about.headers
