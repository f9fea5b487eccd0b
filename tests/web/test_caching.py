"""`Cache-Control`: no answer is kept by a browser or a proxy, but for the few that are everybody's."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from flask import Flask

from service.wiring import Services
from tests.conftest import Slipway
from tests.made import app_in, close
from tests.rules.test_routes import routes

# The same for everybody. What is not found there is not kept either.
KEPT = {
    "GET /": "no-cache",
    "GET /docs": "no-cache",
    "GET /docs/errors": "no-cache",
    "GET /.well-known/jwks.json": "public, max-age=15",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    app = app_in(tmp_path_factory.mktemp("caching"))
    yield app
    close(app)


@pytest.fixture
def signed_in(made: Flask) -> dict[str, str]:
    services: Services = made.extensions["slipway"]
    token = services.auth.tokens.begin(services.auth.users.by_name("demo")).public()["access_token"]
    return {"Authorization": f"Bearer {token}"}


def test_every_route_answers_no_store_with_any_status(made: Flask, signed_in: dict[str, str]) -> None:
    """To the admin, to a made-up token and to nobody; also where the body does not fit."""
    statuses = set()
    for name, _ in sorted(routes(made), key=lambda route: "logout" in route[0]):
        method, path = name.split(" ")
        for headers in ({}, {"Authorization": "Bearer made.up.token"}, signed_in):
            answer = made.test_client().open(
                re.sub(r"<[^>]+>", "x", path), method=method, headers=headers, buffered=True
            )
            assert answer.headers.getlist("Cache-Control") == [KEPT.get(name, "no-store")], name
            statuses.add(answer.status_code)
    assert {200, 204, 401, 404, 415} <= statuses


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "//v1/runs", 404),
        ("GET", "/assets/none.js", 404),
        ("PUT", "/v1/runs", 405),
        ("OPTIONS", "/v1/runs", 200),
        ("HEAD", "/v1/runs", 200),
        ("GET", "/v1/runs?limit=0", 422),
        ("POST", "/v1/sessions", 415),
        ("DELETE", "/v1/admin/users/usr_none", 404),
    ],
)
def test_errors_too(made: Flask, signed_in: dict[str, str], method: str, path: str, status: int) -> None:
    answer = made.test_client().open(path, method=method, headers=signed_in, buffered=True)
    assert (answer.status_code, answer.headers.getlist("Cache-Control")) == (status, ["no-store"])


def test_a_limit_and_a_fault_of_ours_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_in(tmp_path, LIMIT_REFUSED="1/hour")
    client = app.test_client()
    made_up = {"Authorization": "Bearer made.up.token"}
    answers = [client.get("/v1/runs", headers=made_up, buffered=True) for _ in range(2)]
    assert answers[1].status_code == 429  # made anew by what runs after the view

    def break_down() -> None:
        raise RuntimeError

    monkeypatch.setitem(app.view_functions, "health.health", break_down)
    answers.append(client.get("/health", buffered=True))
    assert answers[2].status_code == 500
    close(app)
    for answer in answers:
        assert answer.headers.getlist("Cache-Control") == ["no-store"]


def test_streams_and_their_proxies(client: httpx2.Client) -> None:
    stream = client.post("/v1/agents/assistant/stream", json={"input": "Hello", "cache": "bypass"})
    run_id = stream.text.split("id: ")[1].split(":")[0]
    followed = client.get(f"/v1/runs/{run_id}/events", headers={"Accept": "text/event-stream"})
    for answer in (stream, followed):
        assert answer.status_code == 200
        assert answer.headers.get_list("Cache-Control") == ["no-store"]
        assert answer.headers["X-Accel-Buffering"] == "no"


def test_a_request_that_reaches_no_route(slipway: Slipway) -> None:
    with socket.create_connection(("127.0.0.1", slipway.port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n")
        answer = connection.recv(65_536).decode()
    assert answer.startswith("HTTP/1.1 400") and "\r\nCache-Control: no-store\r\n" in answer


def test_files_of_the_page_keep_their_own(made: Flask) -> None:
    client = made.test_client()
    page = client.get("/", buffered=True).text
    address = re.search(r'"(/assets/[0-9a-f]+/[^"]+)"', page)
    assert address is not None
    answer = client.get(address[1], buffered=True)
    assert answer.headers.getlist("Cache-Control") == ["public, max-age=31536000, immutable"]
    again = client.get(address[1], headers={"If-None-Match": answer.headers["ETag"]}, buffered=True)
    assert again.status_code == 304 and "no-store" not in str(again.headers)
