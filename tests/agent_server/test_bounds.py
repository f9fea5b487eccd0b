"""Bounds of the agent server: who may ask, what a body may be, how many runs there are, and how they are stopped."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.agent_server import house
from tests.agent_server.house import SINGLE, TOKEN, Piece, asks, events_in
from tests.conftest import children_of, wait_until
from tests.llm.wire_server import Exchange, WireServer, silent
from tests.runs.scripted import message, says

HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Piece]:
    """A server for a test that ends it."""
    with house.served(tmp_path / "log", house.write(tmp_path, {"probe": SINGLE})) as running:
        yield running


@pytest.mark.parametrize("token", ["x", "another", f"{TOKEN} and more"])
def test_another_token_is_refused(piece: Piece, upstream: WireServer, token: str) -> None:
    answer = piece.ask(token=token, **asks(upstream.url))
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert not upstream.requests


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"run_token": None}, "/run_token"),
        ({"run_token": "a\nb"}, "/run_token"),
        ({"base_url": "file:///etc/passwd"}, "/base_url"),
        ({"deadline": "2026-12-01T00:00:00"}, "/deadline"),
        ({"messages": []}, "/messages"),
        ({"messages": [{"role": "system", "content": ""}]}, "/messages/0/role"),
        ({"resume": {"state": {"steps": [{}]}, "decisions": []}}, "/resume/state/steps/0/kind"),
    ],
)
def test_body_that_does_not_fit_is_told_where(piece: Piece, body: dict[str, Any], pointer: str) -> None:
    answer = piece.ask(**asks("http://127.0.0.1:1", **body))
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/nobody", {"json": {}}, 404),
        ("/probe", {"content": b"{}"}, 415),
        ("/probe", {"json": {"input": "x" * 9_000_000}}, 413),
        ("/probe/cancel", {"json": {}}, 422),
        ("/probe/other", {"json": {}}, 404),
    ],
)
def test_other_requests_are_problems(piece: Piece, path: str, options: dict[str, Any], status: int) -> None:
    answer = httpx2.post(piece.url + path, headers=HEADERS, trust_env=False, **options)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_run_beyond_the_bound_is_refused_and_health_still_answers(piece: Piece, upstream: WireServer) -> None:
    upstream.otherwise = silent
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(piece.events, **asks(upstream.url)) for _ in range(4)]
        wait_until(lambda: len(upstream.requests) == 4, "every place to be taken")
        refused = piece.ask(**asks(upstream.url))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert httpx2.get(f"{piece.url}/health", trust_env=False).status_code == 200
        answer = httpx2.post(
            f"{piece.url}/probe/cancel", json={"run_id": "run_1"}, headers=HEADERS, trust_env=False
        )
        assert (answer.status_code, answer.json()) == (202, {"cancelled": True})
        ended = [future.result(20)[-1] for future in waiting]
    assert {(name, data["error"]["code"]) for name, data in ended} == {("run.failed", "run_cancelled")}
    upstream.otherwise = message(says("Good day."))
    assert piece.ask(**asks(upstream.url)).status_code == 200  # the places are free again


def test_client_that_leaves_stops_the_model_call(piece: Piece, upstream: WireServer) -> None:
    upstream.otherwise = silent
    accept = {**HEADERS, "Accept": "text/event-stream"}
    with httpx2.stream(
        "POST", f"{piece.url}/probe", json=asks(upstream.url), headers=accept, trust_env=False, timeout=30
    ):
        wait_until(lambda: upstream.requests, "the model call")
    assert upstream.hung_up.wait(40)


def test_stop_waits_for_the_answer_under_way(own: Piece, upstream: WireServer) -> None:
    go_on = threading.Event()

    def waits(exchange: Exchange) -> None:
        go_on.wait(20)
        message(says("In the end."))(exchange)

    upstream.otherwise = waits
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(own.ask, **asks(upstream.url))
        wait_until(lambda: upstream.requests, "the model call")
        own.child.send_signal(signal.SIGTERM)
        wait_until(lambda: b"Handling signal: term" in own.log.read_bytes(), "the stop")
        go_on.set()
        assert answer.result(20).json()["output"] == "In the end."
    assert own.child.wait(20) == 0


def test_killed_process_is_replaced(own: Piece, upstream: WireServer) -> None:
    upstream.otherwise = silent
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        stack.callback(upstream.stop)
        answer = pool.submit(own.events, **asks(upstream.url))
        wait_until(lambda: upstream.requests, "the model call")
        (worker,) = children_of(own.child.pid)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(httpx2.HTTPError):
            answer.result(20)
        upstream.otherwise = message(says("Good day."))
        again = wait_until(lambda: own.ask(**asks(upstream.url)), "the next worker")
        assert again.json()["output"] == "Good day."


def test_log_has_a_line_for_each_run_and_no_token(own: Piece, upstream: WireServer) -> None:
    own.ask(**asks(upstream.url, "Tell nobody."))
    line = '"event":"run","logger":"slipway.request"'
    assert line in own.log.read_text() and '"run_id":"run_1"' in own.log.read_text()
    for secret in ("token-of-the-run", TOKEN, "Tell nobody.", "Good day."):
        assert secret not in own.log.read_text()


def test_events_of_the_house_are_read() -> None:
    assert events_in(": \n\nevent: a\ndata: {}\n\n") == [("a", {})]
