"""Rights lost while a request is under way, over both databases: it changes nothing more, and its stream ends."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from werkzeug.test import TestResponse

from service.audit.record import Action, record
from service.auth.users import User
from service.errors import InvalidToken
from service.ids import new_id
from service.store.actor import SERVICE, Actor, acting_as
from service.store.database import Transaction
from service.store.schema import token_families
from service.types import DEFAULT_WORKSPACE, Caller
from service.web import recheck
from service.web.body import SLOW_SECONDS
from tests.privacy.house import PASSWORD, House, house, postgres_url, url
from tests.twice import WAYS, Way, write_twice

__all__ = ["house", "postgres_url", "url"]
Loss = Callable[[], object]


@pytest.fixture
def ada(house: House) -> User:
    """Create an admin of the service, and another one who stays."""
    house.services.auth.users.create("grace", PASSWORD, "admin")
    return house.services.auth.users.create("ada", PASSWORD, "admin")


class SlowBody(io.BytesIO):
    """Body that comes late; its sender loses a right meanwhile."""

    def __init__(self, data: bytes, loss: Loss) -> None:
        super().__init__(data)
        self._loss = loss

    def read(self, size: int | None = -1) -> bytes:
        with acting_as(SERVICE):
            self._loss()
        time.sleep(SLOW_SECONDS * 1.2)
        return super().read(size)


def send_slowly(house: House, bearer: str, name: str, body: bytes, loss: Loss) -> TestResponse:
    """Call `METHOD /path` with a body that is read after the loss."""
    method, path = name.split(" ")
    return house.app.test_client().open(
        path,
        method=method,
        headers={"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"},
        input_stream=SlowBody(body, loss),
        content_length=len(body),
        buffered=True,
    )


def credentials(house: House, user: User) -> dict[str, str]:
    key = house.services.auth.keys.create(user.id, "of the test")
    return {"token": house.token(user), "key": str(key["key"])}


def end(house: House, user: User, kind: str) -> None:
    """Sign out, or revoke the keys."""
    auth = house.services.auth
    if kind == "token":
        return auth.users.end_logins(user.id)
    for key in auth.keys.page(user.id, limit=9, after=None):
        auth.keys.revoke(key["id"], user.id)


@pytest.mark.parametrize("kind", ["token", "key"])
def test_demotion_while_a_password_is_hashed_holds(
    house: House, ada: User, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, sent = house.services.auth.users, credentials(house, ada)[kind]
    hashed = users._passwords.hash

    def demoted(password: str) -> str:
        monkeypatch.setattr(users._passwords, "hash", hashed)
        with acting_as(SERVICE):
            users.change(ada.id, role="user")
        return hashed(password)

    monkeypatch.setattr(users._passwords, "hash", demoted)
    body = {"role": "admin", "password": "another-password"}
    answer = house.ask(sent, f"PATCH /v1/admin/users/{ada.id}", body)
    assert (answer.status_code, answer.get_json()["code"]) == (401, "invalid_token")
    assert users.get(ada.id).role == "user"
    assert users.get(ada.id).password_hash == ada.password_hash


def test_loss_waits_for_a_change_that_began(house: House, ada: User) -> None:
    services = house.services
    claims = house.ask(house.token(ada), "POST /v1/auth/keys", {"name": "later"}).get_json()
    for caller in (
        Caller(ada.id, "ada", "admin", family=log_in(house)),
        Caller(ada.id, "ada", "admin", key_id=claims["id"]),
    ):
        loss = threading.Thread(target=partial(lose, house, ada, caller))

        def change(tx: Transaction, loss: threading.Thread = loss) -> bool:
            record(tx, Action.CAP_SET, "service")
            if not loss.ident:
                loss.start()
                loss.join(0.5)  # long enough for one that does not wait
            return loss.is_alive()

        with acting_as(Actor.of_request(caller)):
            assert services.infra.db.transact(change)
            loss.join(30)
            with pytest.raises(InvalidToken):
                services.infra.db.transact(change)


def log_in(house: House) -> str:
    """Sign in; return the id of the newest log-in."""
    who = {"username": "ada", "password": PASSWORD}
    assert house.app.test_client().post("/v1/auth/login", json=who).status_code == 200
    newest = token_families.select().order_by(token_families.c.id.desc()).limit(1)
    row = house.services.infra.db.query(lambda tx: tx.row(newest))
    assert row is not None
    return str(row["id"])


def lose(house: House, user: User, caller: Caller) -> None:
    if caller.family is not None:
        house.services.auth.revocations.end(caller.family)
    else:
        house.services.auth.keys.revoke(str(caller.key_id), user.id)


@pytest.mark.parametrize("kind", ["token", "key"])
@pytest.mark.parametrize("way", WAYS)
def test_user_may_end_their_own_log_in_by_a_change(
    house: House, ada: User, kind: str, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = credentials(house, ada)[kind]
    write_twice(way, monkeypatch)
    body = {"password": "another-password", "role": "admin"}
    assert house.ask(sent, f"PATCH /v1/admin/users/{ada.id}", body).status_code == 200
    assert house.services.auth.users.get(ada.id).password_hash != ada.password_hash


@pytest.mark.parametrize("kind", ["token", "key"])
def test_slow_body_is_no_way_around_the_end_of_a_log_in(house: House, ada: User, kind: str) -> None:
    session = b'{"agent": "common", "title": "late"}'
    for name, body in (
        ("POST /v1/agents/common/invoke", b'{"input": "late"}'),
        ("POST /v1/sessions", session),
        ("POST /v1/admin/users", b'{"username": "eve", "password": "another-password", "role": "admin"}'),
    ):
        sent = credentials(house, ada)[kind]
        answer = send_slowly(house, sent, name, body, partial(end, house, ada, kind))
        assert (name, answer.status_code) == (name, 401)
    assert house.services.auth.users.by_name("eve") is None
    sent = credentials(house, ada)[kind]
    assert send_slowly(house, sent, "POST /v1/sessions", session, lambda: None).status_code == 201


def test_key_with_a_lower_role_after_a_slow_body_is_forbidden(house: House, ada: User) -> None:
    sent = credentials(house, ada)["key"]
    body = b'{"username": "eve", "password": "another-password", "role": "admin"}'
    demote = partial(house.services.auth.users.change, ada.id, role="user")
    assert send_slowly(house, sent, "POST /v1/admin/users", body, demote).status_code == 403


def test_session_of_an_erased_user_is_refused(house: House, ada: User) -> None:
    sessions = house.services.sessions
    row = sessions.new(Caller(ada.id, "ada", "user", workspace_id=DEFAULT_WORKSPACE), "common", "late", None)
    house.services.auth.users.begin_erasure(ada.id)
    with pytest.raises(InvalidToken):
        house.services.infra.db.transact(lambda tx: sessions.create(tx, row))


@pytest.fixture
def checked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recheck, "SECONDS", 0.0)


def chunks(house: House, bearer: str, path: str) -> Iterator[bytes]:
    """Begin a stream, whose first part comes while its reader still may read it."""
    headers = {"Authorization": f"Bearer {bearer}"}
    answer = house.app.test_client().get(path, headers=headers)
    assert answer.status_code == 200
    parts = iter(answer.iter_encoded())
    assert next(parts)
    return parts


@pytest.mark.parametrize("kind", ["token", "key"])
@pytest.mark.usefixtures("checked_each_time")
def test_streams_end_with_the_rights_of_their_reader(house: House, ada: User, kind: str) -> None:
    reader = house.services.auth.users.create("operator", PASSWORD, "operator")
    asked = house.ask(house.token(ada), "POST /v1/agents/common/tasks", {"input": "Wait."}).get_json()
    events = chunks(house, credentials(house, reader)[kind], f"/v1/runs/{asked['run_id']}/events")
    end(house, reader, kind)
    assert b"event: reconnect" in next(events)

    events = chunks(house, credentials(house, reader)[kind], f"/v1/runs/{asked['run_id']}/events")
    house.services.auth.users.change(reader.id, role="user")
    assert b"event: reconnect" in next(events)


@pytest.mark.parametrize("kind", ["token", "key"])
@pytest.mark.usefixtures("checked_each_time")
def test_exports_are_aborted_with_the_rights_of_their_reader(house: House, ada: User, kind: str) -> None:
    session = house.ask(house.token(ada), "POST /v1/sessions", {"agent": "common"}).get_json()["id"]
    question: dict[str, Any] = {"input": new_id("q"), "session_id": session}
    assert house.ask(house.token(ada), "POST /v1/agents/common/invoke", question).status_code == 200
    for path in (f"/v1/admin/users/{ada.id}/export", f"/v1/sessions/{session}/export"):
        exported = chunks(house, credentials(house, ada)[kind], path)
        end(house, ada, kind)
        with pytest.raises(InvalidToken):
            list(exported)
