"""Sign-ins under way while their user loses a right: the log-in begins without it, or is ended, in either order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from service.auth.users import User
from service.errors import InvalidCredentials
from service.store import token_families
from service.store.database import Transaction
from service.types import now_ms
from tests.privacy.house import PASSWORD, House, house, postgres_url, url

__all__ = ["house", "postgres_url", "url"]
NEW = "another-password-of-some-length"
Loss = Callable[[House, User], object]
LOSSES: dict[str, Loss] = {
    "disabled": lambda house, user: house.services.auth.users.change(user.id, disabled=True),
    "deleted": lambda house, user: house.services.auth.users.delete(user.id),
    "erased": lambda house, user: house.services.auth.users.begin_erasure(user.id),
    "another password": lambda house, user: house.services.auth.users.change(user.id, password=NEW),
}


def log_in(house: House, password: str = PASSWORD) -> Any:
    who = {"username": "late", "password": password}
    return house.app.test_client().post("/v1/auth/login", json=who, buffered=True)


def between(house: House, user: User, loss: Loss, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loss come between the check of a password and the beginning of the log-in, once."""
    users = house.services.auth.users
    matches = users._passwords.matches

    def lost(stored: str, given: str) -> bool:
        right = matches(stored, given)
        monkeypatch.setattr(users._passwords, "matches", matches)
        loss(house, user)
        return right

    monkeypatch.setattr(users._passwords, "matches", lost)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_sign_in_that_was_verified_before_the_loss_is_refused(
    house: House, loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = house.services.auth.users.create("late", PASSWORD)
    between(house, user, loss, monkeypatch)
    answer = log_in(house)
    assert (answer.status_code, answer.get_json()["code"]) == (401, "invalid_credentials")


def test_sign_in_that_was_verified_before_a_change_of_roles_has_the_new_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = house.services.auth.users
    user = users.create("late", PASSWORD, "operator")
    between(house, user, lambda *_: users.change(user.id, role="user"), monkeypatch)
    token = log_in(house).get_json()["access_token"]
    assert house.ask(token, "GET /v1/auth/me").get_json()["role"] == "user"
    assert house.ask(token, "GET /v1/admin/users").status_code == 403


def test_loss_waits_for_a_log_in_that_began_and_ends_it(house: House) -> None:
    user = house.services.auth.users.create("late", PASSWORD)
    disabling = threading.Thread(target=partial(LOSSES["disabled"], house, user))

    def begin(tx: Transaction) -> None:
        now = now_ms()
        row = token_families.insert(tx, "fam_late", user.id, "jti_1", now=now, expires_at=now + 60_000)
        assert row is not None
        if not disabling.ident:
            disabling.start()
            disabling.join(0.5)  # long enough for one that does not wait

    house.services.infra.db.transact(begin)
    disabling.join(30)
    assert not house.services.infra.db.query(partial(token_families.is_live, family="fam_late"))
    with pytest.raises(InvalidCredentials):
        house.services.auth.tokens.begin(user)
