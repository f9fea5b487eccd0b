"""Guarantees of `service/auth/revocation.py` while all parts stand, or Redis was wiped."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import redis

from service.auth import revocation
from service.auth.users import User
from service.errors import NotFound
from service.types import now_ms
from tests.auth.house import PASSWORD, Replica, families


def test_revocation_applies_to_every_replica_at_once(here: Replica, there: Replica, ada: User) -> None:
    ended, kept = families(here, ada, 2)
    assert not there.is_revoked(ended)
    here.revocations.end(ended)
    assert there.is_revoked(ended) and here.is_revoked(ended)
    assert not there.is_revoked(kept)


def test_logins_end_at_once_where_the_answer_to_a_commit_was_lost(
    here: Replica, there: Replica, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is then run again, and finds them ended."""
    transact = here.db.transact
    monkeypatch.setattr(here.db, "transact", lambda work, **_: (transact(work), transact(work))[1])
    for end in (lambda: here.users.change(ada.id, password=PASSWORD), lambda: here.users.delete(ada.id)):
        ended = families(here, ada, 2)
        assert not any(map(there.is_revoked, ended))
        end()
        assert all(map(there.is_revoked, ended))
    with pytest.raises(NotFound):
        here.users.delete(ada.id)


def test_revocation_survives_a_wiped_redis(here: Replica, there: Replica, ada: User) -> None:
    ended, kept = families(here, ada, 2)
    here.revocations.end(ended)
    there.redis_store.client.flushall()
    assert there.is_revoked(ended)
    assert not there.is_revoked(kept)
    assert here.redis_store.client.hexists(revocation.KEY, ended)  # loaded again


def test_wipe_during_a_reload_is_detected(
    here: Replica, there: Replica, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ended,) = families(here, ada, 1)
    real = there.revocations._write

    def write(client: redis.Redis, what: object) -> bool:
        here.revocations.end(ended)  # after the database was read,
        client.flushall()  # and then Redis forgets it
        return real(client, what)  # type: ignore[arg-type]

    monkeypatch.setattr(there.revocations, "_write", write)
    there.is_revoked("fam_other")
    assert not there.redis_store.client.hexists(revocation.KEY, "complete")
    monkeypatch.undo()
    assert there.is_revoked(ended)


def test_expired_revocations_are_dropped(here: Replica, ada: User) -> None:
    here.redis_store.client.hset(revocation.KEY, "fam_of_long_ago", str(now_ms() - 1))
    here.is_revoked("fam_any")
    assert not here.redis_store.client.hexists(revocation.KEY, "fam_of_long_ago")


@pytest.mark.parametrize("change", ["password", "role", "disabled", "delete"])
def test_change_of_rights_revokes_every_log_in(here: Replica, there: Replica, ada: User, change: str) -> None:
    ended = families(here, ada, 3)
    assert not any(there.is_revoked(family) for family in ended)
    changes: dict[str, Callable[[], object]] = {
        "password": lambda: here.users.change(ada.id, password=PASSWORD + "!"),
        "role": lambda: here.users.change(ada.id, role="operator"),
        "disabled": lambda: here.users.change(ada.id, disabled=True),
        "delete": lambda: here.users.delete(ada.id),
    }
    changes[change]()
    assert all(there.is_revoked(family) for family in ended)
    there.redis_store.client.flushall()
    assert all(there.is_revoked(family) for family in ended)


def test_many_threads_reload_a_wiped_redis(here: Replica, there: Replica, ada: User) -> None:
    ended, kept = families(here, ada, 2)
    here.revocations.end(ended)
    there.redis_store.client.flushall()
    answers: list[tuple[bool, bool]] = []

    def ask() -> None:
        answers.append((there.is_revoked(ended), there.is_revoked(kept)))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [(True, False)] * 16
