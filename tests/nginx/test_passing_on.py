"""Retries on another replica: which requests, and with which key. Over scripted replicas."""

from __future__ import annotations

import queue
import re
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.nginx.edge import Edge, Gate, Replica, Script, echo, hang_up, say

Pair = tuple[Replica, Replica]
REPLAYABLE = [
    "agents/a/invoke",
    "agents/a/stream",
    "agents/a/tasks",
    "runs/r/fork",
    "sessions",
    "approvals/apr_1",
]


def first_then(first: Script, then: Script, replicas: Pair) -> None:
    """Whichever replica is asked first does `first`; from the second request on it is `then`."""
    waiting: queue.SimpleQueue[Script] = queue.SimpleQueue()
    waiting.put(first)

    def script(handler: BaseHTTPRequestHandler) -> None:
        (then if waiting.empty() else waiting.get())(handler)

    for replica in replicas:
        replica.script = script


def keys(replicas: Pair) -> list[str | None]:
    return [headers.get("idempotency-key") for replica in replicas for _, _, headers in replica.seen]


@pytest.mark.parametrize("path", REPLAYABLE)
@pytest.mark.parametrize("failure", [hang_up, say(503, {"code": "draining"})])
def test_run_is_retried_on_another_replica_with_the_same_key(
    edge: Edge, replicas: Pair, path: str, failure: Script
) -> None:
    first_then(failure, echo, replicas)
    answer = edge.http.post(f"/v1/{path}", json={"input": "x"})
    assert answer.status_code == 200
    one, two = keys(replicas)
    assert one == two and one is not None and re.fullmatch("auto-[0-9a-f]{32}", one)
    assert len(replicas[0].seen) == len(replicas[1].seen) == 1


def test_each_request_gets_its_own_idempotency_key(edge: Edge, replicas: Pair) -> None:
    for _ in range(2):
        edge.http.post("/v1/agents/a/invoke", json={}, headers={"X-Request-ID": "same"})
    assert len(set(keys(replicas))) == 2


def test_client_idempotency_key_is_kept(edge: Edge, replicas: Pair) -> None:
    edge.http.post("/v1/agents/a/invoke", json={}, headers={"Idempotency-Key": "mine"})
    assert keys(replicas) == ["mine"]


@pytest.mark.parametrize("path", ["/v1/auth/login", "/v1/auth/refresh", "/v1/admin/users", "/"])
def test_other_posts_are_sent_once(edge: Edge, replicas: Pair, path: str) -> None:
    first_then(hang_up, echo, replicas)
    answer = edge.http.post(path, json={})
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "1"
    assert keys(replicas) == [None]


def test_reads_are_always_retried(edge: Edge, replicas: Pair) -> None:
    first_then(hang_up, echo, replicas)
    assert edge.http.get("/v1/runs").status_code == 200


@pytest.mark.parametrize("status", [500, 502, 504])
def test_service_answers_are_not_retried(edge: Edge, replicas: Pair, status: int) -> None:
    first_then(say(status, {"code": "model_error"}), echo, replicas)
    assert edge.http.post("/v1/agents/a/invoke", json={}).status_code == status


def test_each_replica_is_tried_once(edge: Edge, replicas: Pair) -> None:
    for replica in replicas:
        replica.script = hang_up
    answer = edge.http.post("/v1/agents/a/invoke", json={}, headers={"X-Request-ID": "lost"})
    assert (answer.status_code, answer.json()["request_id"]) == (503, "lost")
    assert len(keys(replicas)) == 2


def test_model_outage_bans_no_replica(edge: Edge, replicas: Pair) -> None:
    """Justify max_fails=0: a hundred 503 in a row ban no replica."""

    def no_model(handler: BaseHTTPRequestHandler) -> None:
        answer = (
            say(503, {"code": "model_unavailable"}, Retry_After="9") if handler.command == "POST" else echo
        )
        answer(handler)

    for replica in replicas:
        replica.script = no_model
    for _ in range(100):
        refused = edge.http.post("/v1/agents/a/invoke", json={})
        assert (refused.json()["code"], refused.headers["Retry-After"]) == ("model_unavailable", "9")
        assert edge.http.get("/health").status_code == 200


def test_missing_replica_fails_no_request(replicas: Pair, tmp_path: Path) -> None:
    with Edge(tmp_path / "n", [1, replicas[1].port]) as edge:
        for path in ("/v1/agents/a/invoke", "/v1/auth/login"):  # never sent, so even this one
            for _ in range(10):
                assert edge.http.post(path, json={}).status_code == 200


@pytest.mark.parametrize("dead", [1, 2, 4])
def test_one_replica_of_many_is_enough(replicas: Pair, tmp_path: Path, dead: int) -> None:
    """Use an upstream group as in `tls.conf`, with nothing listening at the others."""
    with Edge(tmp_path / "n", [*range(1, dead + 1), replicas[0].port]) as edge:
        for path in ("/v1/agents/a/invoke", "/v1/auth/login"):
            for _ in range(5):
                assert edge.http.post(path, json={}).status_code == 200
                assert edge.http.get("/v1/runs").status_code == 200


@pytest.mark.parametrize("path", ["/v1/agents/a/stream", "/v1/runs/run_1/events"])
def test_first_event_arrives_before_the_last_is_made(replicas: Pair, tmp_path: Path, path: str) -> None:
    """Towards the replica in HTTP/1.0 too, where a buffering nginx really would hold it back."""

    def old(folder: Path) -> None:
        conf = folder / "slipway" / "proxy.conf"
        conf.write_text(conf.read_text().replace("proxy_http_version 1.1", "proxy_http_version 1.0"))

    gate = Gate()
    with Edge(tmp_path / "n", [r.port for r in replicas], old) as edge:
        for replica in replicas:
            replica.script = gate
        with edge.http.stream("GET" if "events" in path else "POST", path, timeout=10) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "data: first"
            gate.opened.set()
            assert [line for line in lines if line] == ["data: last"]
    for replica in replicas:
        replica.script = None
