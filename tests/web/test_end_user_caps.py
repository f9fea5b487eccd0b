"""Caps of end users over HTTP: set by admins, under names with any character, and met by calls."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from service.usage.ledger import check
from tests.tables import ON_SQLITE
from tests.web.test_end_users import QUESTION, app, postgres_url, url

__all__ = ["app", "postgres_url", "url"]
NAMES = ["adam", "zoë / 7", "a//b/", "/", "100% %2F", "?x#y", "a/day/0", "🙂" * 64, "."]


class Desk:
    """Admin of the service, and a key of theirs."""

    def __init__(self, app: Flask) -> None:
        self.services = app.extensions["slipway"]
        self.user = self.services.auth.users.by_name("demo")
        self.key = self.services.auth.keys.create(self.user.id, "k")
        self._client = app.test_client()

    def send(self, method: str, path: str, body: Any = None, key: str | None = None) -> TestResponse:
        headers = {"X-Api-Key": key or self.key["key"]}
        return self._client.open(path, method=method, json=body, headers=headers, buffered=True)

    def put(self, name: str, amount: str | None, key_id: str | None = None, **body: Any) -> TestResponse:
        scope = quote(f"end_user:{key_id or self.key['id']}/{name}", safe="")
        return self.send("PUT", f"/v1/admin/budgets/{scope}", {"amount_usd": amount, "period": "day", **body})

    def ask(self, name: str | None, door: str = "invoke") -> TestResponse:
        body = QUESTION if name is None else {**QUESTION, "end_user": name}
        return self.send("POST", f"/v1/agents/support/{door}", body)


@pytest.fixture
def desk(app: Flask) -> Desk:
    return Desk(app)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_capped_shown_and_met(desk: Desk, name: str) -> None:
    scope = f"end_user:{desk.key['id']}/{name}"
    put = desk.put(name, "0.000001")
    assert put.status_code == 200, put.text
    assert put.get_json()["scope"] == scope and put.get_json()["id"] == f"{scope}/day"
    refused = desk.ask(name)
    assert refused.status_code == 402, refused.text
    assert refused.get_json()["code"] == "budget_exceeded"
    assert refused.get_json()["budget"]["scope"] == scope
    assert desk.ask(f"{name}x"[-64:]).status_code == 200
    assert desk.ask(None).status_code == 200
    shown = desk.send("GET", f"/v1/admin/budgets?scope={quote(scope, safe='')}").get_json()["data"]
    assert [(cap["scope"], cap["amount_usd"]) for cap in shown] == [(scope, "0.000001")]
    assert scope in [cap["scope"] for cap in desk.send("GET", "/v1/admin/budgets").get_json()["data"]]
    assert check(desk.services.infra.db, desk.services.usage.prices).faults == []


def test_default_of_a_key_and_what_stands_for_one(desk: Desk) -> None:
    assert desk.put("*", "0.000001").status_code == 200
    assert desk.ask("eve", "stream").status_code == 402
    assert desk.put("eve", "1").status_code == 200
    assert desk.ask("eve").status_code == 200
    prefix = f"end_user:{desk.key['id']}/"
    for name, default in (("adam", True), ("eve", False), ("*", False)):
        path = f"/v1/admin/budgets?scope={quote(prefix + name, safe='')}"
        [cap] = desk.send("GET", path).get_json()["data"]
        assert (cap["scope"], cap["default"]) == (prefix + name, default)


def test_nobody_is_named_as_the_default(desk: Desk) -> None:
    answer = desk.ask("*")
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["pointer"] == "/end_user"


@ON_SQLITE
@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "\u200b"])
def test_scope_that_does_not_fit_is_404(desk: Desk, name: str) -> None:
    assert desk.put(name, "1").status_code == 404
    asked = desk.send("GET", f"/v1/admin/budgets?scope={quote('end_user:key_x/' + name)}")
    assert asked.status_code == 422 and asked.get_json()["errors"][0]["pointer"] == "/scope"


def test_key_that_is_gone_or_elsewhere_is_404(desk: Desk) -> None:
    auth = desk.services.auth
    row = auth.workspaces.new_row("acme")
    desk.services.infra.db.transact(lambda tx: auth.workspaces.insert(tx, row))
    root = auth.users.create("root", "long-enough", "admin", workspace_id=row["id"])
    theirs = auth.keys.create(root.id, "k")
    ours, desk.key = desk.key, {**desk.key, "key": theirs["key"]}
    for name in ("adam", "*"):
        assert desk.put(name, "1", theirs["id"]).status_code == 200
        refused, unknown = desk.put(name, "1", ours["id"]), desk.put(name, "1", "key_" + "0" * 26)
        assert (refused.status_code, unknown.status_code) == (404, 404)
        expected = unknown.get_json()["detail"].replace("key_" + "0" * 26, ours["id"])
        assert refused.get_json()["detail"] == expected
    desk.key = ours
    desk.put("adam", "1")
    desk.key = {**ours, "key": theirs["key"]}
    own, other = (quote(f"end_user:{key}/adam", safe="") for key in (theirs["id"], ours["id"]))
    assert len(desk.send("GET", f"/v1/admin/budgets?scope={own}").get_json()["data"]) == 1
    assert desk.send("GET", f"/v1/admin/budgets?scope={other}").get_json()["data"] == []
    auth.keys.revoke(theirs["id"], root.id)
    desk.key = ours
    assert desk.put("adam", "1", theirs["id"]).status_code == 404
