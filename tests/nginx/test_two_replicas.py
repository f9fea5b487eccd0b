"""Two replicas act as one service: shared state at once, and no loss when one ends."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import httpx2
import pytest

from tests.conftest import Slipway, wait_until
from tests.nginx.pair import Pair, kill, pair_of

INVOKE = "/v1/agents/assistant/invoke"
DATABASES = ["sqlite", "postgres"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # two replicas start, on a busy machine in a minute


def http_1_0(folder: Path) -> None:
    """Towards the replicas in HTTP/1.0, where a buffering nginx really would hold a stream back."""
    conf = folder / "slipway" / "proxy.conf"
    conf.write_text(conf.read_text().replace("proxy_http_version 1.1", "proxy_http_version 1.0"))


@pytest.fixture(scope="module", params=DATABASES)
def running(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Pair]:
    with pair_of(scratch / f"pair-{request.param}", request.param, http_1_0) as pair:
        yield pair


@pytest.fixture
def pair(running: Pair) -> Pair:
    running.model.reset()
    return running


@pytest.fixture
def client(pair: Pair) -> Iterator[httpx2.Client]:
    """Signed in at the first replica, speaking to it directly."""
    with signed_in(pair.one) as client:
        yield client


def signed_in(replica: Slipway) -> closing[httpx2.Client]:
    return closing(replica.client())


def ask(question: str | None = None, **more: object) -> dict[str, object]:
    return {"input": question or f"Question {uuid4()}", **more}


def test_token_works_on_both_replicas_and_through_nginx(pair: Pair, client: httpx2.Client) -> None:
    for url in (pair.two.url, pair.edge.url):
        with pair.client(url, client) as there:
            assert there.get("/v1/auth/me").json()["username"] == "demo"


def test_logout_applies_to_the_other_replica_at_once(pair: Pair, client: httpx2.Client) -> None:
    with pair.client(pair.two.url, client) as there:
        assert there.get("/v1/auth/me").status_code == 200
        assert client.post("/v1/auth/logout").status_code == 204
        for _ in range(10):  # every worker of both, more likely than not
            assert there.get("/v1/auth/me").status_code == 401
            assert client.get("/v1/auth/me").status_code == 401


@pytest.mark.parametrize("name", ["zoë / 7", "a//b/", "/", "100% %2F", "?x#y"])
def test_cap_of_an_end_user_of_any_name_passes_nginx(pair: Pair, client: httpx2.Client, name: str) -> None:
    key = client.post("/v1/auth/keys", json={"name": "end users"}).json()
    scope = f"end_user:{key['id']}/{name}"
    cap = {"amount_usd": "0.000001", "period": "day"}
    with pair.client(pair.edge.url, client) as there:
        put = there.put(f"/v1/admin/budgets/{quote(scope, safe='')}", json=cap)
        assert (put.status_code, put.json().get("scope")) == (200, scope), put.text
        shown = there.get("/v1/admin/budgets", params={"scope": scope}).json()["data"]
        assert [cap["scope"] for cap in shown] == [scope]
    for replica in (pair.one, pair.two):
        headers = {"Authorization": f"Bearer {key['key']}"}
        refused = httpx2.post(f"{replica.url}{INVOKE}", json=ask(end_user=name), headers=headers, timeout=30)
        assert refused.status_code == 402, refused.text


def test_path_without_a_route_answers_404_as_problem(pair: Pair, client: httpx2.Client) -> None:
    with pair.client(pair.edge.url, client) as there:
        for headers in ({}, {"Connection": "Upgrade", "Upgrade": "websocket"}):
            answer = there.get("/v1/agents/assistant/chat", headers=headers)
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_cached_answer_is_a_hit_on_the_other_replica(pair: Pair, client: httpx2.Client) -> None:
    question = ask()
    first = client.post(INVOKE, json=question)
    assert (first.status_code, first.headers["X-Cache"]) == (200, "miss")
    calls = pair.model.stats()["calls"]
    with pair.client(pair.two.url, client) as there:
        second = there.post(INVOKE, json=question)
    assert (second.status_code, second.headers["X-Cache"]) == (200, "hit")
    assert second.json()["output"] == first.json()["output"]
    assert pair.model.stats()["calls"] == calls


def test_first_event_arrives_before_the_last_is_made(pair: Pair, client: httpx2.Client) -> None:
    pair.model.control(token_ms=400)
    with (
        pair.client(pair.edge.url, client) as there,
        there.stream("POST", "/v1/agents/assistant/stream", json=ask(cache="bypass")) as answer,
    ):
        lines = answer.iter_lines()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        event = next(line for line in lines if line.startswith("id: "))
        assert next(line for line in lines if "text.delta" in line)
        run = client.get(f"/v1/runs/{event.removeprefix('id: ').rpartition(':')[0]}").json()
        assert run["status"] == "running"
        pair.model.control()
        assert [line for line in lines if line.startswith("event: ")][-1] == "event: run.completed"


def test_request_id_is_in_the_problem_and_the_headers(pair: Pair, client: httpx2.Client) -> None:
    with pair.client(pair.edge.url, client) as there:
        answer = there.get("/v1/runs/run_none", headers={"X-Request-ID": "whole-way-1"})
    assert (answer.status_code, answer.json()["request_id"]) == (404, "whole-way-1")
    assert answer.headers.get_list("X-Request-ID") == ["whole-way-1"]
    for name in ("X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy"):
        assert len(answer.headers.get_list(name)) == 1, name


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 1_200_000])
def test_too_large_body_is_the_same_problem_from_nginx_and_service(
    pair: Pair, client: httpx2.Client, size: int
) -> None:
    with pair.client(pair.edge.url, client) as there:
        answer = there.post(INVOKE, content=b"x" * size, headers={"Content-Type": "application/json"})
    problem = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (413, 413, "too_large")
    assert (problem["title"], problem["instance"]) == ("The body is too large", INVOKE)
    assert problem["request_id"] == answer.headers["X-Request-ID"]


def test_metrics_are_internal_only(pair: Pair, client: httpx2.Client) -> None:
    assert client.get("/metrics").status_code == 200
    assert pair.edge.http.get("/metrics").json()["code"] == "not_found"


def test_service_sees_the_client_address(pair: Pair) -> None:
    """Check the forwarded address: with nginx's own, a log-in limit would lock out everybody together."""
    answer = pair.edge.http.post(
        "/v1/auth/login", json={}, headers={"X-Request-ID": "who-1", "X-Forwarded-For": "6.6.6.6"}
    )
    assert answer.status_code == 422
    said = pair.one.log.read_text() + pair.two.log.read_text()
    lines = [json.loads(line) for line in said.splitlines() if "who-1" in line]
    assert lines and "6.6.6.6" not in json.dumps(lines)


def test_rate_limit_is_shared_by_both_replicas(scratch: Path) -> None:
    with (
        pair_of(scratch / "limited", "sqlite", LIMIT_RUNS="7/hour") as pair,
        closing(pair.one.client()) as client,
    ):
        with pair.client(pair.edge.url, client) as there, ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: there.post(INVOKE, json=ask()), range(24)))
        assert sorted(answer.status_code for answer in answers) == [200] * 7 + [429] * 17
        assert pair.served() == {pair.one.port, pair.two.port}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["code"] == "rate_limited"
        assert len(refused.headers.get_list("Retry-After")) == 1


@pytest.mark.parametrize("kind", DATABASES)
def test_replica_killed_under_load_loses_no_answer(scratch: Path, kind: str) -> None:
    with (
        pair_of(scratch / f"killed-{kind}", kind, THREADS="64") as pair,
        closing(pair.two.client()) as client,
    ):
        pair.model.control(first_token_ms=1500)
        with pair.client(pair.edge.url, client) as there, ThreadPoolExecutor(50) as pool:
            asked = [pool.submit(there.post, INVOKE, json=ask(cache="bypass")) for _ in range(50)]
            wait_until(lambda: pair.model.stats()["calls"] >= 40, "most calls are under way")
            kill(pair.one)
            pair.model.control()
            answers = [future.result(60) for future in asked]
        assert [answer.status_code for answer in answers] == [200] * 50, [
            a.text for a in answers if a.is_error
        ]
        assert len({answer.json()["run_id"] for answer in answers}) == 50


def test_stopping_replica_finishes_its_requests(scratch: Path) -> None:
    with pair_of(scratch / "stopped", "sqlite", THREADS="64") as pair, signed_in(pair.two) as client:
        pair.model.control(first_token_ms=1000)
        with pair.client(pair.edge.url, client) as there, ThreadPoolExecutor(20) as pool:
            asked = [pool.submit(there.post, INVOKE, json=ask(cache="bypass")) for _ in range(20)]
            wait_until(lambda: pair.model.stats()["calls"] >= 15, "most calls are under way")
            pair.one.child.send_signal(signal.SIGTERM)
            asked += [pool.submit(there.post, INVOKE, json=ask(cache="bypass")) for _ in range(20)]
            answers = [future.result(60) for future in asked]
        assert [answer.status_code for answer in answers] == [200] * 40, [
            a.text for a in answers if a.is_error
        ]
        assert pair.one.child.wait(20) == 0
