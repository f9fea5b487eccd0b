"""The factory: settings in, an application out that shares nothing with another one."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, session
from flask.testing import FlaskClient

from config import Settings
from service import wiring
from service.app import create_app
from tests.conftest import ROOT
from tests.made import app_in, close, settings_in
from tests.tables import create_tables


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Flask]]:
    made: list[Flask] = []

    def one(name: str = "one", **environ: str) -> Flask:
        folder = tmp_path / name
        folder.mkdir()
        made.append(app_in(folder, **environ))
        return made[-1]

    yield one
    for each in made:
        close(each)


def signed_in(made: Flask) -> FlaskClient:
    client = made.test_client()
    pair = client.post("/v1/auth/login", json={"username": "demo", "password": "demo-password"}).get_json()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {pair['access_token']}"
    return client


def test_app_uses_the_given_settings(make: Callable[..., Flask]) -> None:
    made = make(LIMIT_RUNS="7/minute")
    assert signed_in(made).get("/v1/auth/me").get_json()["limits"]["runs"] == "7/minute"


def test_create_app_opens_no_connection(tmp_path: Path) -> None:
    """So that a command, a test or a worker that is about to fork may make one."""
    made = create_app(settings_in(tmp_path, DATABASE_URL="postgresql://x:y@127.0.0.1:9/none"))
    assert made.test_client().get("/health").status_code == 200
    close(made)


def test_services_may_be_brought_along(tmp_path: Path) -> None:
    settings: Settings = settings_in(tmp_path)
    services = wiring.build(settings)
    create_tables(services.infra.db.engine)
    made = create_app(settings, services)
    assert made.extensions["slipway"] is services
    close(made)


def test_two_in_one_process_share_nothing(make: Callable[..., Flask]) -> None:
    here, there = make("here"), make("there", SECRET_KEY="another-secret-that-is-long-enough-for-anybody")
    one, two = signed_in(here), signed_in(there)
    assert one.post("/v1/auth/keys", json={"name": "mine"}).status_code == 201
    assert len(one.get("/v1/auth/keys").get_json()["data"]) == 1
    assert two.get("/v1/auth/keys").get_json()["data"] == []
    two.environ_base["HTTP_AUTHORIZATION"] = one.environ_base["HTTP_AUTHORIZATION"]
    assert two.get("/v1/auth/me").status_code == 401
    assert here.extensions["slipway"].infra.metrics is not there.extensions["slipway"].infra.metrics


def test_every_blueprint_is_there(make: Callable[..., Flask]) -> None:
    web = ROOT / "service" / "web"
    modules = [path.stem for folder in ("routes", "doors") for path in (web / folder).glob("[a-z]*.py")]
    registered = {blueprint.import_name.rpartition(".")[2] for blueprint in make().blueprints.values()}
    assert registered == {*modules, "openapi"}


def test_every_route_is_found_by_its_path_alone(make: Callable[..., Flask]) -> None:
    """No route depends on the host, and none redirects."""
    for rule in make().url_map.iter_rules():
        assert rule.rule == "/" or not rule.rule.endswith("/")
        assert not (rule.host or rule.subdomain or rule.redirect_to or rule.defaults)
        assert not rule.websocket or rule.endpoint == "socket.chat"


def test_a_web_socket_is_asked_for_in_vain(make: Callable[..., Flask]) -> None:
    upgrade = {"Connection": "upgrade", "Upgrade": "websocket"}
    assert make().test_client().get("/health", headers=upgrade).status_code == 400


def test_a_request_passes_one_hook_before_its_view_and_one_after(make: Callable[..., Flask]) -> None:
    """Each costs every request; those of Flask-Limiter find nothing to do. One more refuses agents of the vendors."""
    made = make(RELOAD="false")
    hooks = (made.before_request_funcs, made.after_request_funcs, made.teardown_request_funcs)
    assert [{scope: len(found) for scope, found in each.items() if found} for each in hooks] == [
        {None: 2},
        {None: 1},
        {},
    ]


def test_flask_sessions_are_unavailable(make: Callable[..., Flask]) -> None:
    made = make()
    with made.test_request_context("/"), pytest.raises(RuntimeError, match="session is unavailable"):
        session["anything"] = 1
    assert "Set-Cookie" not in made.test_client().get("/").headers


def test_an_answer_to_head_is_that_to_get_without_its_body(make: Callable[..., Flask]) -> None:
    client = signed_in(make())
    head, whole = client.head("/v1/agents"), client.get("/v1/agents")
    assert head.status_code == 200 and head.data == b""
    assert head.headers["Content-Length"] == whole.headers["Content-Length"] == str(len(whole.data))


def test_every_answer_is_named_and_timed(make: Callable[..., Flask]) -> None:
    client = make().test_client()
    for path, status in (("/health", 200), ("/nothing", 404), ("/v1/auth/me", 401), ("/", 200)):
        answer = client.get(path)
        assert answer.status_code == status
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-ID"])
        assert re.fullmatch(r"total;dur=[\d.]+, llm;dur=[\d.]+", answer.headers["Server-Timing"])
        assert float(answer.headers["X-Process-Time"]) >= 0
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get("/nothing", headers={"X-Request-ID": "mine"}).get_json()["request_id"] == "mine"


def test_unhandled_error_is_a_problem_without_details(
    make: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = make()

    def breaks(*_: Any) -> None:
        raise RuntimeError("password=hunter2 at /srv/secret.py")

    client = signed_in(made)
    monkeypatch.setattr(type(made.extensions["slipway"].auth.keys), "page", breaks)
    with caplog.at_level(logging.ERROR):
        answer = client.get("/v1/auth/keys")
    assert (answer.status_code, answer.get_json()["code"]) == (500, "internal_error")
    assert answer.mimetype == "application/problem+json"
    assert (
        "hunter2" not in answer.text and "Traceback" not in answer.text and "RuntimeError" not in answer.text
    )
    assert "unhandled_error" in caplog.text  # told to whoever runs it, with where it broke


@pytest.mark.parametrize(
    ("trusted", "address"), [("0", "127.0.0.1"), ("1", "203.0.113.9"), ("2", "198.51.100.7")]
)
def test_a_forwarded_address_counts_as_far_as_proxies_are_trusted(
    make: Callable[..., Flask], trusted: str, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = make(TRUSTED_PROXIES=trusted).test_client()
    with caplog.at_level(logging.INFO, "slipway.auth"):
        wrong = {"username": "nobody", "password": "wrong-password"}
        client.post("/v1/auth/login", json=wrong, headers={"X-Forwarded-For": "198.51.100.7, 203.0.113.9"})
    (refused,) = [record for record in caplog.records if record.message == "login_refused"]
    assert refused.address == address  # type: ignore[attr-defined]
