"""Users of an issuer: made at first sight or linked, with its roles, in its workspace, and never somebody else's."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from service.audit.record import Action
from service.auth.oidc.identities import claim, username_of
from service.auth.users import USERNAME
from service.errors import InvalidToken
from service.store.actor import ANONYMOUS, Actor, act_as, current_actor
from tests.conftest import RedisServer
from tests.oidc.conftest import Make, me, services
from tests.oidc.issuer import StubIssuer
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
ROLES = "slipway-admins:admin,slipway-operators:operator,urn:x:admins:admin"
NOW = int(time.time())


def user_named(app: Flask, name: str) -> Any:
    return services(app).auth.users.by_name(name)


def test_user_is_made_once(app: Flask, issuer: StubIssuer) -> None:
    first, again = me(app, issuer.token()), me(app, issuer.token(jti="2", preferred_username="other"))
    assert first.json["id"] == again.json["id"] and again.json["username"] == "ada"
    assert me(app, issuer.token(sub="bob", preferred_username="bob")).json["id"] != first.json["id"]


def test_without_leave_no_user_is_made(make: Make, issuer: StubIssuer) -> None:
    app = make(OIDC_CREATE_USERS="false")
    answer = me(app, issuer.token())
    assert (answer.status_code, answer.json["code"]) == (403, "unknown_identity")
    assert user_named(app, "ada") is None
    linked = app.test_cli_runner().invoke(args=["users", "link", "demo", "--subject", "ada"])
    assert linked.output.endswith("Linked ada to demo.\n")
    assert me(app, issuer.token()).json["username"] == "demo"


def test_name_of_the_issuer_takes_nobody_over(app: Flask, issuer: StubIssuer) -> None:
    demo = user_named(app, "demo")
    answer = me(app, issuer.token(preferred_username="demo", email="demo"))
    assert answer.status_code == 200 and answer.json["id"] != demo.id and answer.json["role"] == "user"
    assert answer.json["username"].startswith("demo-")


def test_user_of_the_issuer_has_no_password(app: Flask, issuer: StubIssuer) -> None:
    assert me(app, issuer.token()).status_code == 200
    for password in ("nobody has this password", "", "x"):
        who = {"username": "ada", "password": password}
        assert app.test_client().post("/v1/auth/login", json=who).status_code in (401, 422)


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"preferred_username": "ada@example.com"}, "ada@example.com"),
        ({"email": "ada@example.com"}, "ada@example.com"),
        ({"preferred_username": "Ada Lovelace"}, "Ada-Lovelace"),
        ({"preferred_username": "José Müller"}, "Jose-Muller"),
        ({"preferred_username": "..//../etc"}, "etc"),
        ({"preferred_username": "<script>"}, "script-"),
        ({"preferred_username": "李", "email": "li@example.com"}, "li@example.com"),
        ({"preferred_username": "\ud800\0"}, "user"),
        ({"preferred_username": 7, "email": ["x"]}, "user"),
        ({"preferred_username": "x" * 10_000}, "x" * 64),
        ({"preferred_username": "deleted:usr_0"}, "deleted-usr_0"),
        ({}, "user"),
    ],
)
def test_name_is_made_to_fit(claims: dict[str, Any], name: str) -> None:
    assert username_of(claims) == name and USERNAME.fullmatch(f"{name}-0123abcd")


def test_deleted_users_name_cannot_be_taken_before(app: Flask, issuer: StubIssuer) -> None:
    ada = me(app, issuer.token()).json["id"]
    assert me(app, issuer.token(sub="bob", preferred_username=f"deleted:{ada}")).status_code == 200
    services(app).auth.users.delete(ada)


def test_first_sight_by_many_at_once_makes_one_user(make: Make, issuer: StubIssuer, url: str) -> None:
    apps = [make(DATABASE_URL=url), make(DATABASE_URL=url)]
    tokens = [issuer.token(jti=str(n)) for n in range(12)]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: me(apps[n % 2], tokens[n]), range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert len(services(apps[0]).auth.users.page(limit=9, after=None)) == 2  # with `demo`


@pytest.mark.parametrize(
    ("roles", "role"),
    [
        (["slipway-admins"], "admin"),
        (["x", "slipway-operators"], "operator"),
        (["slipway-operators", "slipway-admins"], "admin"),
        ("slipway-operators", "operator"),
        (["urn:x:admins"], "admin"),
        (["admin"], "user"),
        (["Slipway-Admins"], "user"),
        ("slipway-admins slipway-operators", "user"),
        ({"slipway-admins": True}, "user"),
        ([["slipway-admins"]], "user"),
        ([1, None], "user"),
        ([], "user"),
        (None, "user"),
    ],
)
def test_role_comes_from_the_map_alone(make: Make, issuer: StubIssuer, roles: Any, role: str) -> None:
    assert me(make(OIDC_ROLES=ROLES), issuer.token(roles=roles)).json["role"] == role


def test_role_changes_with_the_next_token(make: Make, issuer: StubIssuer, url: str) -> None:
    """What the user held before ends, as with any change of a role; an older token changes nothing."""
    app = make(OIDC_ROLES=ROLES, DATABASE_URL=url)
    old = issuer.token(roles=["slipway-admins"], iat=NOW - 60)
    kept = issuer.token(roles=["slipway-admins"], iat=NOW - 50)
    assert me(app, old).json["role"] == "admin"
    assert me(app, issuer.token(iat=NOW - 30)).json["role"] == "user"
    assert me(app, old).status_code == 401  # ended here
    assert me(app, kept).status_code == 401  # seen for the first time, but older
    assert me(app, issuer.token(roles=["slipway-operators"])).json["role"] == "operator"
    assert user_named(app, "ada").role == "operator"


def test_without_a_map_slipway_sets_roles(app: Flask, issuer: StubIssuer) -> None:
    assert me(app, issuer.token(roles=["admin"])).json["role"] == "user"
    services(app).auth.users.change(user_named(app, "ada").id, role="operator")
    assert me(app, issuer.token(iat=int(time.time()) + 1)).json["role"] == "operator"


def test_path_of_a_claim() -> None:
    claims = {"https://example.com/roles": ["a"], "realm_access": {"roles": ["b"]}, "x.y": "c"}
    assert claim(claims, "https://example.com/roles") == ["a"]
    assert claim(claims, "realm_access.roles") == ["b"]
    assert claim(claims, "x.y") == "c"
    assert claim(claims, "realm_access.groups") is claim(claims, "x.y.z") is claim(claims, "") is None


def test_disabled_user_stays_out(make: Make, issuer: StubIssuer, redis_server: RedisServer, url: str) -> None:
    """At once, on each replica, also with a token that was used before; and after, with a new one only."""
    apps = [make(REDIS_URL=redis_server.url, DATABASE_URL=url) for _ in range(2)]
    token = issuer.token()
    ada = me(apps[0], token).json["id"]
    assert me(apps[1], token).status_code == 200
    services(apps[0]).auth.users.change(ada, disabled=True)
    assert [me(app, token).status_code for app in apps] == [401, 401]
    assert me(apps[1], issuer.token(jti="2")).status_code == 401
    services(apps[0]).auth.users.change(ada, disabled=False)
    assert me(apps[1], token).status_code == 401
    assert me(apps[1], issuer.token(jti="3", iat=int(time.time()) + 1)).status_code == 200


@pytest.mark.parametrize(("minutes", "seconds"), [("1", 60), ("15", 300)])
def test_token_is_verified_again_before_its_end_is_forgotten(
    make: Make, issuer: StubIssuer, minutes: str, seconds: float
) -> None:
    """Redis forgets that a log-in has ended once no token of it can be left, by the life of Slipway's own."""
    identities = services(make(ACCESS_TOKEN_MINUTES=minutes)).auth.identities
    _, until = identities.caller(issuer.token(exp=NOW + 3600))
    assert NOW + seconds <= until <= time.time() + seconds


def test_token_that_has_ended_stays_so_once_redis_forgets_it(app: Flask, issuer: StubIssuer) -> None:
    token = issuer.token()
    identities, users = services(app).auth.identities, services(app).auth.users
    caller, _ = identities.caller(token)
    for disabled in (True, False):
        users.change(caller.user_id, disabled=disabled)
    with pytest.raises(InvalidToken):
        identities.caller(token)


def test_deleted_user_is_forgotten(make: Make, issuer: StubIssuer, url: str) -> None:
    app = make(DATABASE_URL=url)
    token = issuer.token()
    ada = me(app, token).json["id"]
    services(app).auth.users.delete(ada)
    assert me(app, token).status_code == 401
    with services(app).infra.db.read() as tx:
        assert tx.rows(sa.text("SELECT * FROM identities")) == []
    assert me(app, issuer.token(jti="2")).json["id"] != ada


def test_link_ends_the_log_ins_of_the_user_before(make: Make, issuer: StubIssuer, url: str) -> None:
    app = make(DATABASE_URL=url)
    token = issuer.token()
    assert me(app, token).json["username"] == "ada"
    linked = app.test_cli_runner().invoke(args=["users", "link", "demo", "--subject", "ada"])
    assert linked.exit_code == 0, linked.output
    assert me(app, token).status_code == 401
    assert me(app, issuer.token(jti="2")).json["username"] == "demo"
    with services(app).infra.db.read() as tx:
        told = tx.rows(
            sa.text("SELECT subject FROM audit WHERE action = :action"), {"action": Action.IDENTITY_LINKED}
        )
    assert [row["subject"] for row in told] == [f"user:{user_named(app, 'demo').id}"]


def test_link_needs_an_issuer_and_a_user(make: Make) -> None:
    off = dict.fromkeys(("OIDC_ISSUER", "OIDC_AUDIENCE", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"), "")
    for app, name in ((make(**off), "demo"), (make(), "nobody")):
        done = app.test_cli_runner().invoke(args=["users", "link", name, "--subject", "ada"])
        assert done.exit_code == 1 and "Error: " in done.output


@pytest.mark.parametrize("subject", ["", "a" * 256, "ä", "a\nb"])
def test_link_refuses_what_no_token_can_name(make: Make, subject: str) -> None:
    done = make().test_cli_runner().invoke(args=["users", "link", "demo", "--subject", subject])
    assert done.exit_code == 1 and "A subject has" in done.output


def workspace(app: Flask, name: str, *, disabled: bool = False) -> str:
    workspaces = services(app).auth.workspaces
    row = workspaces.new_row(name)
    services(app).infra.db.transact(lambda tx: workspaces.insert(tx, row))
    if disabled:
        workspaces.change(row["id"], disabled=True)
    return str(row["id"])


def test_workspace_comes_from_its_claim(make: Make, issuer: StubIssuer) -> None:
    app = make(OIDC_WORKSPACE_CLAIM="org.name")
    acme = workspace(app, "acme")
    workspace(app, "closed", disabled=True)
    workspace(app, "other")
    assert me(app, issuer.token(org={"name": "acme"})).status_code == 200
    with services(app).infra.db.read() as tx:
        [row] = tx.rows(sa.text("SELECT workspace_id FROM users WHERE username = 'ada'"))
    assert row["workspace_id"] == acme
    assert me(app, issuer.token(org={"name": "closed"}, sub="new")).status_code == 403
    for org in ({"name": "other"}, {"name": "closed"}, {"name": "nowhere"}, {"name": ["acme"]}, None):
        answer = me(app, issuer.token(org=org, jti="2"))
        assert (answer.status_code, answer.json["code"]) == (403, "unknown_identity"), org


def test_user_is_the_actor_of_what_is_written(
    app: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, seen = services(app).infra.db, []
    transact = db.transact
    monkeypatch.setattr(
        db, "transact", lambda work, **options: seen.append(current_actor()) or transact(work, **options)
    )
    act_as(ANONYMOUS)
    ada = me(app, issuer.token()).json["id"]
    assert len(seen) >= 2 and set(seen) == {Actor("user", ada)}
    with db.read() as tx:
        told = tx.rows(sa.text("SELECT action, subject FROM audit WHERE user_id IS NOT NULL"))
    assert {(row["action"], row["subject"]) for row in told} == {
        ("user.created", f"user:{ada}"),
        ("sign_in", f"user:{ada}"),
    }
