from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.auth.users import User
from service.errors import Conflict, Invalid, InvalidCredentials, NotFound
from service.store.run_limits import NewLimit
from tests.auth.house import PASSWORD, Replica


def test_right_password_returns_the_user(here: Replica, ada: User) -> None:
    assert here.users.sign_in("ada", PASSWORD, "192.0.2.1") == ada


@pytest.mark.parametrize("username", ["nobody", "ADA", "ada\x00", "ada ", "💥", "", "a" * 10_000])
def test_unknown_name_is_refused_like_a_wrong_password(here: Replica, ada: User, username: str) -> None:
    with pytest.raises(InvalidCredentials) as wrong:
        here.users.sign_in("ada", "not the password", "192.0.2.1")
    with pytest.raises(InvalidCredentials) as unknown:
        here.users.sign_in(username, PASSWORD, "192.0.2.1")
    assert unknown.value.as_problem() == wrong.value.as_problem()


def test_unknown_name_costs_a_hash(here: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes: list[str] = []
    monkeypatch.setattr(here.users._passwords, "matches", lambda kept, _password: hashes.append(kept))
    with pytest.raises(InvalidCredentials):
        here.users.sign_in("nobody", PASSWORD, "192.0.2.1")
    assert len(hashes) == 1 and hashes[0].startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_concurrent_log_ins_all_succeed(here: Replica, ada: User) -> None:
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: here.users.sign_in("ada", PASSWORD, "192.0.2.1"), range(12)))
    assert found == [ada] * 12


def test_first_admin_is_created_once_by_concurrent_starts(replicas: Callable[..., Replica]) -> None:
    starting = [replicas() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda replica: replica.users.bootstrap("root", PASSWORD), starting))
    assert len([user for user in made if user]) == 1
    assert starting[0].users.sign_in("root", PASSWORD, "192.0.2.1").role == "admin"


def test_no_first_admin_when_users_exist(here: Replica, ada: User) -> None:
    assert here.users.bootstrap("root", PASSWORD) is None
    assert here.users.by_name("root") is None


def test_name_is_unique_and_free_after_deletion(here: Replica, ada: User) -> None:
    with pytest.raises(Conflict):
        here.users.create("ada", PASSWORD)
    here.users.delete(ada.id)
    assert here.users.create("ada", PASSWORD).id != ada.id
    with pytest.raises(NotFound):
        here.users.get(ada.id)
    assert [user.username for user in here.users.page(limit=10, after=None)] == ["ada"]


@pytest.mark.parametrize(
    ("username", "password", "rate"),
    [
        ("", PASSWORD, None),
        ("a b", PASSWORD, None),
        ("x", "short", None),
        ("x", "y" * 257, None),
        ("x", PASSWORD, "fast"),
    ],
)
def test_invalid_user_is_refused(here: Replica, username: str, password: str, rate: str | None) -> None:
    with pytest.raises(Invalid):
        here.users.create(username, password, limit_runs=rate)


def test_disabled_user_cannot_sign_in(here: Replica, ada: User) -> None:
    here.users.change(ada.id, disabled=True)
    with pytest.raises(InvalidCredentials):
        here.users.sign_in("ada", PASSWORD, "192.0.2.1")


def test_changes_are_stored(here: Replica, ada: User) -> None:
    changed = here.users.change(
        ada.id, password="another password", role="operator", limit=NewLimit("5/minute")
    )
    assert here.users.sign_in("ada", "another password", "192.0.2.1") == changed
    assert (changed.role, changed.limit_runs) == ("operator", "5/minute")
    assert here.users.change(ada.id, limit=NewLimit("")).limit_runs is None
    with pytest.raises(NotFound):
        here.users.change("usr_nobody", role="admin")
