"""Rules that hold for every route, also for the one that is added tomorrow."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from pydantic import BaseModel

from service.auth.permissions import PERMISSIONS
from service.web import page_cookie
from service.web.admission import is_public
from service.web.openapi import api, specification
from service.web.schemas import Body, Shape
from tests.conftest import ROOT
from tests.made import app_in, close

# Whoever adds to these has a reason for everybody to see it.
PUBLIC = {
    "GET /",
    "GET /assets/<path:name>",
    "GET /docs",
    "GET /docs/errors",
    "GET /openapi.json",
    "GET /health",
    "GET /ready",
    "GET /metrics",  # nginx does not let it out
    "GET /.well-known/jwks.json",
    "POST /v1/auth/login",
    "POST /v1/auth/refresh",  # its bearer is the refresh token itself
    "POST /page/sign-in",
    "POST /page/renew",  # by the cookie, with the page's own header
    "POST /page/sign-out",
    "GET /page/oidc/begin",  # only to the identity provider, and from there back to the page
    "GET /page/oidc/callback",
}
# What anybody may call without a limit of ours; nginx limits connections and requests per address.
UNLIMITED = {
    "GET /": "a small page from memory",
    "GET /assets/<path:name>": "a small file from memory",
    "GET /docs": "a page made once",
    "GET /docs/errors": "a page made once",
    "GET /openapi.json": "a document made once",
    "GET /health": "asks nothing of anybody; a probe must not be refused",
    "GET /ready": "a probe must not be refused",
    "GET /metrics": "nginx does not let it out",
    "GET /.well-known/jwks.json": "held in memory, and cached by clients",
    "POST /v1/auth/logout": "ends its own log-in, so there is no second call; refusals of keys are counted",
    "POST /page/sign-out": "ends something",
}
# Operators read what admins did, and change nothing.
FOR_OPERATORS = {
    *("GET /v1/admin/audit", "GET /v1/admin/audit/verify"),
    "GET /v1/admin/health",
    *("GET /v1/admin/knowledge/<agent>", "GET /v1/admin/knowledge/<agent>/<document_id>"),
}
# Tokens are never kept, so their answers cannot be given again; a log-in that was not heard of is made once more.
KEYLESS = {
    *("POST /v1/auth/login", "POST /v1/auth/refresh", "POST /v1/auth/logout"),
    *("POST /page/sign-in", "POST /page/renew", "POST /page/sign-out"),
    "POST /v1/messages/count_tokens",  # changes nothing
    "POST /v1/agents/<agent>/estimate",  # changes nothing
}
# Bodies of another protocol, whose further fields reach the model as they are.
PASSED_ON = {"MessagesBody", "Turn"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    app = app_in(tmp_path_factory.mktemp("routes"))
    yield app
    close(app)


def routes(made: Flask) -> Iterator[tuple[str, Any]]:
    for rule in made.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            yield f"{method} {rule.rule}", made.view_functions[rule.endpoint]


def test_every_route_is_guarded_or_named_here(made: Flask) -> None:
    assert {name for name, view in routes(made) if is_public(view)} == PUBLIC
    for name, view in routes(made):
        assert (PERMISSIONS[name].role == "anyone") == is_public(view), name


def test_guarded_routes_refuse_anonymous_requests(made: Flask) -> None:
    client = made.test_client()
    for name, view in routes(made):
        if not is_public(view):
            method, path = name.split(" ")
            with client.open(re.sub(r"<[^>]+>", "x", path), method=method) as answer:
                assert answer.status_code == 401, name


def test_every_route_is_limited_or_says_why_not(tmp_path: Path) -> None:
    """Once a user's reads, writes and runs are used up, every guarded route says so before it does anything."""
    ones = dict.fromkeys(("LIMIT_READS", "LIMIT_WRITES", "LIMIT_RUNS", "LIMIT_LOGIN"), "1/hour")
    app = app_in(tmp_path, **ones)
    client = app.test_client()
    who = {"username": "demo", "password": "demo-password"}
    pair = client.post("/v1/auth/login", json=who, buffered=True).get_json()
    signed = {"Authorization": f"Bearer {pair['access_token']}", page_cookie.HEADER: "1"}
    client.set_cookie("slipway", pair["refresh_token"])
    refresh = {"Authorization": f"Bearer {pair['refresh_token']}"}
    assert client.post("/v1/auth/refresh", headers=refresh, buffered=True).status_code == 200
    for method, path in (("GET", "/v1/runs"), ("POST", "/v1/sessions"), ("POST", "/v1/agents/x/invoke")):
        assert client.open(path, method=method, headers=signed, buffered=True).status_code != 429
    ends = ("DELETE", "/v1/auth/keys/x"), ("POST", "/v1/runs/x/cancel"), ("POST", "/v1/responses/x/cancel")
    for method, path in ends:
        ended = client.open(path, method=method, headers=signed, buffered=True)
        assert ended.status_code == 404, "used-up limits keep nobody from ending something"
    unlimited = set()
    for name in sorted((name for name, _ in routes(app)), key=lambda name: "out" in name):
        method, path = name.split(" ")
        headers = refresh if path == "/v1/auth/refresh" else signed
        answer = client.open(re.sub(r"<[^>]+>", "x", path), method=method, headers=headers, buffered=True)
        if answer.status_code != 429:
            unlimited.add(name)
    close(app)
    assert unlimited == set(UNLIMITED)


def test_admin_routes_are_for_admins(made: Flask) -> None:
    for name, _ in routes(made):
        if "/v1/admin/" in name:
            wanted = ("operator",) if name in FOR_OPERATORS else ("admin", "service admin")
            assert PERMISSIONS[name].role in wanted, name


def test_every_route_describes_itself(made: Flask) -> None:
    for name, view in routes(made):
        operation = getattr(view, "__api__", None)
        assert isinstance(operation, api), name
        assert operation.summary and operation.tag != "Slipway", name
        for model in operation.returns.values():
            assert model is None or (issubclass(model, Shape) and not issubclass(model, Body)), name
        assert operation.body is None or issubclass(operation.body, Body), name


def test_every_changing_post_takes_an_idempotency_key(made: Flask) -> None:
    """Replay itself is tested with each route that documents it."""
    posts = {name for name, _ in routes(made) if name.startswith("POST ")}
    keyless = {
        name
        for name, view in routes(made)
        if name in posts and "Idempotency-Replayed" not in view.__api__.headers
    }
    assert keyless == KEYLESS


def test_bodies_refuse_unknown_fields(made: Flask) -> None:
    """Also those within bodies: nothing is taken that the page does not tell of."""
    schemas = specification(made)["components"]["schemas"]
    todo = [view.__api__.body for _, view in routes(made) if view.__api__.body is not None]
    assert todo
    for model in {cls for body in todo for cls in _within(body) if cls.__name__ not in PASSED_ON}:
        assert model.model_config.get("extra") == "forbid" and model.model_config.get("strict"), model
        assert schemas[model.__name__]["additionalProperties"] is False


def _within(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for found in _models(field.annotation):
            yield from _within(found)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)


def test_names_are_one_name(made: Flask) -> None:
    document = specification(made)
    ids = [
        operation["operationId"] for methods in document["paths"].values() for operation in methods.values()
    ]
    assert len(set(ids)) == len(ids)
    for name in ids:
        assert re.fullmatch(r"[a-z]+(_\w+)*", name), name


def test_a_view_reads_json_in_one_way() -> None:
    """`parse` holds size, media type, syntax and fields to the contract; Flask's own readers do not."""
    for path in Path(ROOT / "service" / "web").rglob("*.py"):
        source = path.read_text()
        assert "request.json" not in source and "get_json(" not in source and "request.form" not in source, (
            path
        )
        if path.name != "body.py":
            assert "request.get_data" not in source and "request.data" not in source, path


def test_views_leave_queries_to_the_rooms_below() -> None:
    for folder in ("routes", "doors"):
        for path in Path(ROOT / "service" / "web" / folder).glob("*.py"):
            assert not re.search(r"\bdb\.(query|transact|read|begin)\(", path.read_text()), path
