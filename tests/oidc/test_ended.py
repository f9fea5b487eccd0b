"""Ends of log-ins reach tokens of the issuer that were not seen before; an identity that moves; the only admin."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from service.audit.record import Action
from service.store.schema import audit
from tests.oidc.conftest import Make, me, services
from tests.oidc.issuer import StubIssuer
from tests.oidc.test_identities import ROLES, user_named, workspace
from tests.oidc.test_sign_in import come_back, signed_in
from tests.twice import WAYS, Way, write_twice
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
NOW = int(time.time())


def turned_off_and_on(change: Callable[..., Any], subject: str) -> None:
    for disabled in (True, False):
        change(subject, disabled=disabled)


ENDS: dict[str, Callable[[Any, str, str], Any]] = {
    "all log-ins": lambda auth, user_id, _: auth.users.end_logins(user_id),
    "the user": lambda auth, user_id, _: turned_off_and_on(auth.users.change, user_id),
    "the workspace": lambda auth, _, acme: turned_off_and_on(auth.workspaces.change, acme),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_token_not_seen_yet_ends_with_the_others(
    make: Make, issuer: StubIssuer, url: str, end: Callable[[Any, str, str], Any]
) -> None:
    app = make(DATABASE_URL=url, OIDC_WORKSPACE_CLAIM="org")
    acme = workspace(app, "acme")
    seen, unseen = (issuer.token(iat=NOW - 60, org="acme", jti=jti) for jti in ("seen", "unseen"))
    ada = me(app, seen).json["id"]
    end(services(app).auth, ada, acme)
    assert [me(app, token).status_code for token in (seen, unseen, unseen)] == [401] * 3
    assert me(app, issuer.token(iat=int(time.time()) + 1, org="acme")).json["id"] == ada


def test_token_seen_while_all_log_ins_end_is_refused(
    app: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = me(app, issuer.token(iat=NOW - 60)).json["id"]
    identities, users = services(app).auth.identities, services(app).auth.users
    find = identities._user

    def found_before(*args: Any, **options: Any) -> Any:
        user = find(*args, **options)
        users.end_logins(ada)
        return user

    monkeypatch.setattr(identities, "_user", found_before)
    assert me(app, issuer.token(iat=NOW - 60, jti="2")).status_code == 401


def test_role_of_a_token_ends_older_tokens_and_not_its_own(make: Make, issuer: StubIssuer) -> None:
    app = make(OIDC_ROLES=ROLES)
    assert me(app, issuer.token(iat=NOW - 60)).json["role"] == "user"
    unseen = issuer.token(iat=NOW - 50)
    promoted = issuer.token(iat=NOW - 30, roles=["slipway-admins"])
    assert [me(app, promoted).json["role"] for _ in range(2)] == ["admin"] * 2
    assert me(app, unseen).status_code == 401


def test_only_admin_whose_role_the_issuer_takes_waits_for_another(
    make: Make, issuer: StubIssuer, url: str
) -> None:
    app = make(OIDC_ROLES=ROLES, DATABASE_URL=url)
    users, browser = services(app).auth.users, app.test_client()
    ada = me(app, issuer.token(roles=["slipway-admins"], iat=NOW - 100)).json["id"]
    users.change(user_named(app, "demo").id, role="user")
    issuer.id_changes = {"roles": []}
    for at in (NOW - 50, NOW - 50, NOW - 40):
        answer = me(app, issuer.token(roles=[], iat=at))
        assert (answer.status_code, answer.json["code"]) == (403, "unknown_identity")
    assert come_back(browser, issuer) == "/#sign-in-failed=refused" and signed_in(browser) is None
    with services(app).infra.db.read() as tx:
        told = tx.rows(
            sa.select(audit).where(audit.c.action == Action.USER_ROLE, audit.c.result == "refused")
        )
    assert [row["subject"] for row in told] == [f"user:{ada}"] * 4
    users.change(user_named(app, "demo").id, role="admin")
    assert me(app, issuer.token(roles=[])).json["role"] == "user"
    assert come_back(browser, issuer) == "/" and signed_in(browser) == "ada"


def test_without_a_free_name_the_page_says_so(
    app: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.auth.oidc.identities._TRIES", 0)
    assert come_back(app.test_client(), issuer) == "/#sign-in-failed=refused"


def test_link_ends_the_log_ins_of_who_had_the_identity_at_that_moment(
    make: Make, issuer: StubIssuer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another link comes between its beginning and its transaction."""
    app = make(DATABASE_URL=url)
    auth, db = services(app).auth, services(app).infra.db
    bob, token = auth.users.create("bob", "a-password-of-bob"), issuer.token(iat=NOW + 20)
    transact = db.transact

    def after_another(work: Any, **options: Any) -> Any:
        monkeypatch.setattr(db, "transact", transact)
        auth.identities.link(bob, "ada")
        assert me(app, token).json["username"] == "bob"
        return transact(work, **options)

    assert me(app, issuer.token()).json["username"] == "ada"
    monkeypatch.setattr(db, "transact", after_another)
    auth.identities.link(user_named(app, "demo"), "ada")
    assert me(app, token).status_code == 401
    assert me(app, issuer.token(jti="2")).json["username"] == "demo"


@pytest.mark.parametrize("way", WAYS)
def test_link_written_twice_ends_the_log_ins_all_the_same(
    app: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    token = issuer.token()
    assert me(app, token).json["username"] == "ada"
    demo = user_named(app, "demo")
    with monkeypatch.context() as patched:
        write_twice(way, patched)
        services(app).auth.identities.link(demo, "ada")
    assert me(app, token).status_code == 401
