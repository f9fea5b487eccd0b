"""Overrides over HTTP and by command: of caps and of limits, with an end, and with what comes back then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from service.store import run_limits
from service.store import users as user_rows
from service.store.run_limits import NewLimit
from service.store.schema import audit
from service.types import now_ms
from tests.conftest import wait_until
from tests.tables import ON_SQLITE
from tests.web.test_end_user_caps import Desk, desk
from tests.web.test_end_users import app, postgres_url, url

__all__ = ["app", "desk", "postgres_url", "url"]
SOON = timedelta(hours=1)
WRONG: dict[str, Any] = {
    "past": "2020-01-01T00:00:00Z",
    "date": "2026-11-29",
    "too late": (datetime.now(UTC) + timedelta(days=367)).isoformat(),
    "no zone": (datetime.now(UTC) + SOON).replace(tzinfo=None).isoformat(),
    "word": "tomorrow",
    "digits": "٢٠٣٠-01-01T00:00:00Z",
    "number": 4_000_000_000,
    "truth": True,
}


def moment(ahead: timedelta = SOON) -> str:
    return (datetime.now(UTC) + ahead).isoformat().replace("+00:00", "Z")


def rfc3339(text: str) -> str:
    return datetime.fromisoformat(text).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_cap_says_until_when_and_what_comes_back(desk: Desk) -> None:
    path, until = f"/v1/admin/budgets/user:{desk.user.id}", moment()
    cap = {"amount_usd": "5", "period": "month"}
    first = desk.send("PUT", path, cap).get_json()
    assert (first["until"], first["after_usd"]) == (None, None)
    over = desk.send("PUT", path, {**cap, "amount_usd": "9", "until": until}).get_json()
    shown = [
        cap for cap in desk.send("GET", "/v1/admin/budgets").get_json()["data"] if cap["id"] == over["id"]
    ]
    mine = [
        {**cap, "id": over["id"]}
        for cap in desk.send("GET", "/v1/budget").get_json()["data"]
        if cap["period"] == "month"
    ]
    for told in (over, *shown, *mine):
        assert (told["amount_usd"], told["after_usd"]) == ("9.000000", "5.000000")
        assert told["until"] == rfc3339(until)
    assert desk.send("PUT", path, {**cap, "until": None}).get_json()["until"] is None


@ON_SQLITE
@pytest.mark.parametrize("wrong", WRONG)
def test_end_that_does_not_fit_is_422(desk: Desk, wrong: str) -> None:
    until = WRONG[wrong]
    key = f"/v1/auth/keys/{desk.key['id']}"
    token = desk.services.auth.tokens.begin(desk.user).access_token
    for method, path, body, field in (
        ("PUT", "/v1/admin/budgets/service", {"amount_usd": "5", "period": "day"}, "until"),
        ("PATCH", f"/v1/admin/users/{desk.user.id}", {"limit_runs": "5/minute"}, "limit_runs_until"),
        ("PATCH", key, {"limit_runs": "5/minute"}, "limit_runs_until"),
    ):
        answer = _signed(desk, token, method, path, {**body, field: until})
        assert answer.status_code == 422, answer.text
        assert answer.get_json()["errors"][0]["pointer"] == f"/{field}"
    alone = _signed(desk, token, "PATCH", key, {"limit_runs_until": moment()})
    assert alone.status_code == 422 and alone.get_json()["errors"][0]["pointer"] == "/limit_runs_until"


def _signed(desk: Desk, token: str, method: str, path: str, body: Any) -> Any:
    return desk._client.open(path, method=method, json=body, headers={"Authorization": f"Bearer {token}"})


def test_limit_of_a_user_ends_in_a_token_that_goes_on(desk: Desk) -> None:
    auth = desk.services.auth
    ada = auth.users.create("ada", "long-enough", limit_runs="5/minute")
    path = f"/v1/admin/users/{ada.id}"
    until = moment(timedelta(seconds=4))
    changed = desk.send("PATCH", path, {"limit_runs": "9/minute", "limit_runs_until": until}).get_json()
    assert (changed["limit_runs"], changed["limit_runs_after"]) == ("9/minute", "5/minute")
    assert changed["limit_runs_until"] == rfc3339(until)
    token = auth.tokens.begin(auth.users.get(ada.id)).access_token
    key = auth.keys.create(ada.id, "k")["key"]

    def limits() -> list[str]:
        by_token = _signed(desk, token, "GET", "/v1/auth/me", None).get_json()
        return [
            by_token["limits"]["runs"],
            desk.send("GET", "/v1/auth/me", key=key).get_json()["limits"]["runs"],
        ]

    assert limits() == ["9/minute"] * 2
    wait_until(lambda: datetime.now(UTC) > datetime.fromisoformat(until), "the end of the override")
    assert limits() == ["5/minute"] * 2
    shown = desk.send("GET", path).get_json()
    assert (shown["limit_runs"], shown["limit_runs_until"]) == ("5/minute", None)
    assert desk.services.auth.tokens.begin(auth.users.get(ada.id))


def test_limit_of_a_key_ends(desk: Desk) -> None:
    keys, user_id = desk.services.auth.keys, desk.user.id
    made = keys.create(user_id, "k", limit_runs="5/minute")
    over = keys.limit(made["id"], user_id, "9/minute", now_ms() + 2_000)
    assert (over["limit_runs"], over["limit_runs_after"]) == ("9/minute", "5/minute")
    assert keys.caller(made["key"]).key_limit_runs == "9/minute"
    wait_until(lambda: keys.caller(made["key"]).key_limit_runs == "5/minute", "the end of the override")
    assert keys.get(made["id"], user_id)["limit_runs_until"] is None


def test_override_of_a_limit_replaces_an_override(desk: Desk) -> None:
    users, until = desk.services.auth.users, now_ms() + 60_000
    ada = users.create("ada", "long-enough", limit_runs="5/minute")
    for rate in ("9/minute", "", "7/minute"):
        changed = users.change(ada.id, limit=NewLimit(rate, until))
        assert (changed.limit_runs or "", changed.limit_runs_after) == (rate, "5/minute")
    desk.services.infra.db.transact(lambda tx: user_rows.update(tx, ada.id, {"limit_runs_until": 1}))
    assert users.get(ada.id).limit_runs == "5/minute"
    assert users.change(ada.id, limit=NewLimit("8/minute", until)).limit_runs_after == "5/minute"
    changed = users.change(ada.id, limit=NewLimit("6/minute"))
    assert [getattr(changed, name) for name in run_limits.COLUMNS] == ["6/minute", None, None]


def test_commands_take_an_end_and_the_audit_tells_it(app: Flask, desk: Desk) -> None:
    until, key_id = moment(), desk.key["id"]
    for words in (
        ("budgets", "set", f"end_user:{key_id}/zoë / 7", "5"),
        ("budgets", "set", "service", "none"),
        ("users", "limit", "demo", "5/minute"),
        ("keys", "limit", "demo", key_id, "5/minute"),
    ):
        done = app.test_cli_runner().invoke(args=[*words, "--until", until])
        assert done.exit_code == 0, done.output
        row = desk.services.infra.db.query(lambda tx: tx.rows(audit.select().order_by(audit.c.id)))[-1]
        assert row["details"]["until"] == rfc3339(until)
    for wrong in ("2020-01-01T00:00:00Z", "soon"):
        done = app.test_cli_runner().invoke(args=["budgets", "set", "service", "5", "--until", wrong])
        assert done.exit_code == 2 and "must be" in done.output
