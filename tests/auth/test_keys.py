from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from service.auth.keys import USE_PRECISION_MS
from service.auth.revocation import KEY as DISTRUSTED
from service.auth.revocation import Revocations
from service.auth.users import User
from service.errors import InvalidToken, NotFound
from service.store import keys as rows
from service.store import run_limits
from service.store.run_limits import NewLimit
from service.store.schema import api_keys
from service.types import now_ms
from tests.auth.house import PASSWORD, Replica
from tests.conftest import RedisServer, wait_until
from tests.twice import WAYS, Way, write_twice


def test_key_acts_as_its_user(here: Replica, ada: User) -> None:
    made = here.keys.create(ada.id, "laptop")
    caller = here.keys.caller(made["key"])
    assert (caller.user_id, caller.username, caller.role, caller.key_id) == (
        ada.id,
        "ada",
        "user",
        made["id"],
    )
    assert here.keys.caller(made["key"]) == caller  # remembered, and the same


def test_key_is_shown_once_and_stored_nowhere(here: Replica, ada: User) -> None:
    made = here.keys.create(ada.id, "laptop")
    assert made["key"].startswith("slp_") and len(made["key"]) >= 44
    (listed,) = here.keys.page(ada.id, limit=10, after=None)
    assert "key" not in listed and listed["prefix"] == made["key"][:12]
    here.keys.caller(made["key"])
    secret = made["key"][12:].encode()
    kept = [here.redis_store.client.dump(name) or b"" for name in here.redis_store.client.keys("*")]
    assert not any(secret in value for value in kept)


@pytest.mark.parametrize(
    "key", ["", "slp_", "slp_" + "0" * 48, "slp_" + "é" * 48, "slp_" + "0" * 10_000, "sk-ant-x"]
)
def test_made_up_keys_cost_no_lookup(here: Replica, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here.db, "query", pytest.fail)
    with pytest.raises(InvalidToken):
        here.keys.caller(key)


def test_revoked_key_is_refused_by_every_replica_at_once(here: Replica, there: Replica, ada: User) -> None:
    made = here.keys.create(ada.id, "laptop")
    for replica in (here, there, there):
        replica.keys.caller(made["key"])
    here.keys.revoke(made["id"], ada.id)
    for replica in (here, there):
        with pytest.raises(InvalidToken):
            replica.keys.caller(made["key"])
    assert here.keys.page(ada.id, limit=10, after=None) == []


def test_key_works_and_is_revoked_without_redis(
    here: Replica, there: Replica, ada: User, own_redis: RedisServer
) -> None:
    made, kept = here.keys.create(ada.id, "laptop"), here.keys.create(ada.id, "server")
    there.keys.caller(made["key"])
    own_redis.stop()
    here.keys.revoke(made["id"], ada.id)
    with pytest.raises(InvalidToken):
        there.keys.caller(made["key"])
    assert there.keys.caller(kept["key"]).key_id == kept["id"]


def test_key_of_another_user_is_not_found(here: Replica, ada: User) -> None:
    made = here.keys.create(ada.id, "laptop")
    eve = here.users.create("eve", PASSWORD)
    with pytest.raises(NotFound):
        here.keys.revoke(made["id"], eve.id)
    assert here.keys.caller(made["key"]).user_id == ada.id


def test_cached_key_expires(here: Replica, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    made = here.keys.create(ada.id, "laptop", expires_at=now_ms() + 60_000)
    here.keys.caller(made["key"])
    monkeypatch.setattr("service.auth.keys.now_ms", lambda: now_ms() + 61_000)
    with pytest.raises(InvalidToken):
        here.keys.caller(made["key"])


def test_key_follows_changes_of_its_user(here: Replica, there: Replica, ada: User) -> None:
    made = here.keys.create(ada.id, "laptop")
    assert there.keys.caller(made["key"]).role == "user"
    assert there.keys.caller(made["key"]).role == "user"
    here.users.change(ada.id, role="operator", limit=NewLimit("3/minute"))
    changed = there.keys.caller(made["key"])
    assert (changed.role, changed.limit_runs) == ("operator", "3/minute")
    here.users.change(ada.id, disabled=True)
    with pytest.raises(InvalidToken):
        there.keys.caller(made["key"])


def test_scoped_key_drops_its_users_role(here: Replica) -> None:
    root = here.users.create("root", PASSWORD, "admin")
    made = here.keys.create(root.id, "chat page", ("agents:support",))
    for _ in range(2):
        caller = here.keys.caller(made["key"])
        assert (caller.role, caller.scopes) == ("user", ("agents:support",))


def no_longer_distrusted(here: Replica) -> None:
    """Remove the revocation mark of a key, as 90 seconds after a change."""
    here.is_revoked("fam_none")  # the hash is loaded
    [digest] = [name for name in here.redis_store.client.hkeys(DISTRUSTED) if len(name) == 64]
    here.redis_store.client.hdel(DISTRUSTED, digest)


def test_repeated_revoked_key_costs_no_query(here: Replica, ada: User) -> None:
    made = here.keys.create(ada.id, "k")
    here.keys.revoke(made["id"], ada.id)
    no_longer_distrusted(here)
    queries: list[int] = []
    real = here.db.query

    def counted(work: Any, **more: Any) -> Any:
        queries.append(1)
        return real(work, **more)

    here.db.query = counted  # type: ignore[method-assign]
    for _ in range(5):
        with pytest.raises(InvalidToken):
            here.keys.caller(made["key"])
    assert len(queries) == 1


def test_keys_of_a_reenabled_user_work_at_once(here: Replica, there: Replica, ada: User) -> None:
    key = here.keys.create(ada.id, "k")["key"]
    here.users.change(ada.id, disabled=True)
    no_longer_distrusted(here)  # so the refusal is remembered
    for _ in range(3):
        with pytest.raises(InvalidToken):
            here.keys.caller(key)
    here.users.change(ada.id, disabled=False)
    assert there.keys.caller(key).user_id == ada.id


def rotated(replica: Replica, made: dict[str, Any], ada: User, overlap: int) -> str:
    work = replica.keys.rotation(made["id"], ada.id, overlap)
    return str(replica.db.transact(work)["key"])


def test_rotated_key_stays_itself_and_its_old_secret_works_for_the_overlap(
    here: Replica, there: Replica, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = here.keys.create(ada.id, "laptop", ("agents:plain",))
    before = here.keys.caller(made["key"])
    fresh = rotated(there, made, ada, 60)
    for replica in (here, there):
        assert replica.keys.caller(made["key"]) == replica.keys.caller(fresh) == before
    later = now_ms() + 61_000
    monkeypatch.setattr("service.auth.keys.now_ms", lambda: later)
    for replica in (here, there):
        assert replica.keys.caller(fresh) == before
        with pytest.raises(InvalidToken):
            replica.keys.caller(made["key"])


def test_without_overlap_the_old_secret_ends_at_once_everywhere(
    here: Replica, there: Replica, ada: User
) -> None:
    made = here.keys.create(ada.id, "laptop")
    for replica in (here, there):
        replica.keys.caller(made["key"])  # remembered
    fresh = rotated(here, made, ada, 0)
    for replica in (here, there):
        assert replica.keys.caller(fresh).key_id == made["id"]
        with pytest.raises(InvalidToken):
            replica.keys.caller(made["key"])


def test_second_rotation_ends_the_first_secret_and_revocation_ends_all(
    here: Replica, there: Replica, ada: User, own_redis: RedisServer
) -> None:
    made = here.keys.create(ada.id, "laptop")
    second = rotated(here, made, ada, 600)
    there.keys.caller(made["key"])
    third = rotated(here, made, ada, 600)
    with pytest.raises(InvalidToken):
        there.keys.caller(made["key"])
    assert {there.keys.caller(secret).key_id for secret in (second, third)} == {made["id"]}
    here.redis_store.client.delete(DISTRUSTED)
    here.keys.revoke(made["id"], ada.id)
    here.redis_store.client.delete(DISTRUSTED)  # loaded again from the database
    for secret in (second, third):
        with pytest.raises(InvalidToken):
            there.keys.caller(secret)


def test_disabled_user_is_refused_with_both_secrets(here: Replica, there: Replica, ada: User) -> None:
    made = here.keys.create(ada.id, "laptop")
    secrets = (made["key"], rotated(here, made, ada, 600))
    here.db.transact(lambda tx: tx.execute(sa.update(api_keys).values(changed_at=0)))  # a while ago
    here.redis_store.client.delete(DISTRUSTED)
    for secret in secrets:
        there.keys.caller(secret)
    there.is_revoked("fam_none")  # the hash is loaded
    here.users.change(ada.id, disabled=True)
    for secret in secrets:
        with pytest.raises(InvalidToken):
            there.keys.caller(secret)


@pytest.mark.parametrize("way", WAYS)
def test_rotation_whose_commit_is_not_heard_of_is_one(
    here: Replica, ada: User, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = here.keys.create(ada.id, "laptop")
    with monkeypatch.context() as patched:
        write_twice(way, patched)
        fresh = rotated(here, made, ada, 600)
    assert {here.keys.caller(secret).key_id for secret in (made["key"], fresh)} == {made["id"]}


def test_key_of_others_is_not_rotated(here: Replica, ada: User) -> None:
    made, eve = here.keys.create(ada.id, "laptop"), here.users.create("eve", PASSWORD)
    with pytest.raises(NotFound):
        rotated(here, made, eve, 0)
    here.keys.revoke(made["id"], ada.id)
    with pytest.raises(NotFound):
        rotated(here, made, ada, 0)


def test_last_use_is_noted_apart_once_in_a_minute(
    here: Replica, there: Replica, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, unused = (here.keys.create(ada.id, name) for name in ("laptop", "server"))

    def noted() -> dict[str, Any]:
        return {row["id"]: row["last_used_at"] for row in here.keys.page(ada.id, limit=10, after=None)}

    with monkeypatch.context() as patched:
        patched.setattr(here.db, "transact", pytest.fail)
        here.keys.caller(made["key"])  # writes nothing itself
    assert noted() == {made["id"]: None, unused["id"]: None}
    here.keys.note_uses()
    first = noted()
    assert first[made["id"]] is not None and first[unused["id"]] is None
    there.keys.caller(made["key"])
    there.keys.note_uses()  # another process, within the minute
    assert noted() == first
    later = now_ms() + USE_PRECISION_MS
    monkeypatch.setattr("service.auth.keys.now_ms", lambda: later)
    here.keys.caller(made["key"])
    here.keys.note_uses()  # not yet
    assert noted() == first
    here.keys._next_note = 0
    here.keys.note_uses()
    assert noted()[made["id"]] > first[made["id"]]


def test_key_is_cached_to_the_end_of_an_override_at_most(
    here: Replica, there: Replica, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Revocations, "trusted", lambda self, complete: True
    )  # else the database is asked at times
    made = here.keys.create(ada.id, "laptop", limit_runs="5/minute")
    change = run_limits.of_key("9/minute", now_ms() + 2_000)
    here.db.transact(lambda tx: rows.change(tx, made["id"], ada.id, change))  # untold, so that it is cached
    for replica in (here, there, here):
        assert replica.keys.caller(made["key"]).key_limit_runs == "9/minute"
    wait_until(
        lambda: there.keys.caller(made["key"]).key_limit_runs == "5/minute", "the end of the override", 10
    )
    assert here.keys.caller(made["key"]).key_limit_runs == "5/minute"
