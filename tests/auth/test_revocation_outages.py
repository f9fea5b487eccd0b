"""Guarantees of `service/auth/revocation.py` while Redis or the database is away, hangs or is behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from service.auth import revocation
from service.auth.users import User
from service.errors import DatabaseUnavailable
from service.store import token_families
from service.types import now_ms
from tests.auth.house import Replica, families
from tests.conftest import RedisServer, wait_until


def test_revocation_applies_while_redis_is_down(
    here: Replica, there: Replica, ada: User, own_redis: RedisServer
) -> None:
    before, during, kept = families(here, ada, 3)
    here.revocations.end(before)
    own_redis.stop()
    here.revocations.end(during)
    for replica in (here, there):
        assert replica.is_revoked(before) and replica.is_revoked(during)
        assert not replica.is_revoked(kept)


# What Redis says no to, while it still answers what it holds.
TAKES_NO_WRITES = {
    "full": ("CONFIG", "SET", "maxmemory", "1"),
    "too few replicas": ("CONFIG", "SET", "min-replicas-to-write", "1"),
    "no right to write": ("ACL", "SETUSER", "default", "-@write"),
    "no right to hashes": ("ACL", "SETUSER", "default", "-hset"),
}


@pytest.mark.parametrize(
    "refusal,limit",
    [*((one, "") for one in TAKES_NO_WRITES), ("full", "600/minute"), ("no right to write", "600/minute")],
)
def test_revocation_applies_at_once_with_a_read_only_redis(
    replicas: Callable[..., Replica], ada: User, own_redis: RedisServer, refusal: str, limit: str
) -> None:
    here, there = (replicas(limit_reads=limit) for _ in range(2))
    token, kept, key = (
        here.login()["access_token"],
        here.login()["access_token"],
        here.keys.create(ada.id, "k"),
    )
    assert [there.status(one) for one in (token, kept, key["key"])] == [
        200
    ] * 3  # the hash is complete and fresh
    direct = redis.Redis.from_url(own_redis.url)
    direct.execute_command(*TAKES_NO_WRITES[refusal])
    assert here.client(token).post("/v1/auth/logout").status_code == 204
    here.keys.revoke(key["id"], ada.id)
    assert [there.status(one) for one in (token, kept, key["key"])] == [401, 200, 401]
    assert [here.status(one) for one in (token, kept, key["key"])] == [401, 200, 401]
    direct.close()


def test_reload_that_read_before_a_revocation_is_void(
    here: Replica, there: Replica, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulate a full Redis that has room again before the reload is over."""
    (ended,) = families(here, ada, 1)
    real = there.revocations._write

    def write(client: redis.Redis, what: object) -> bool:
        client.config_set("maxmemory", 1)
        here.revocations.end(ended)
        client.config_set("maxmemory", 0)
        return real(client, what)  # type: ignore[arg-type]

    here.revocations.close()  # it has no time to try again
    monkeypatch.setattr(there.revocations, "_write", write)
    there.is_revoked("fam_other")
    monkeypatch.undo()
    assert there.is_revoked(ended)


def test_read_only_redis_is_not_reloaded_by_each_request(
    here: Replica, ada: User, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    (kept,) = families(here, ada, 1)
    direct = redis.Redis.from_url(own_redis.url)
    direct.execute_command("CONFIG", "SET", "maxmemory", "1")
    before = direct.info("commandstats").get("cmdstat_hset", {}).get("rejected_calls", 0)
    assert not any(here.is_revoked(kept) for _ in range(50))
    assert direct.info("commandstats")["cmdstat_hset"]["rejected_calls"] - before <= 3
    said = [record for record in caplog.records if record.message == "redis_refused"]
    assert [record.reason for record in said] == ["full"]  # type: ignore[attr-defined]
    direct.close()


def test_redis_back_with_old_data_is_not_trusted(
    here: Replica, there: Replica, ada: User, own_redis: RedisServer
) -> None:
    ended, kept = families(here, ada, 2)
    assert not there.is_revoked(ended)
    old: Any = there.redis_store.client.hgetall(revocation.KEY)
    own_redis.stop()
    with here.db.begin() as tx:  # by a worker that died before it could tell Redis
        token_families.revoke(tx, ended)
    own_redis.start()
    direct = redis.Redis.from_url(own_redis.url)
    direct.hset(revocation.KEY, mapping=old)  # as from its snapshot: complete, a moment ago
    assert there.is_revoked(ended)
    assert not there.is_revoked(kept)
    direct.close()


def test_a_hash_without_a_missed_revocation_is_deleted_once_redis_is_back(
    here: Replica, ada: User, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ended,) = families(here, ada, 1)
    direct = redis.Redis.from_url(own_redis.url)
    direct.hset(revocation.KEY, "complete", "of another")
    assert own_redis.child is not None
    own_redis.child.send_signal(signal.SIGSTOP)
    here.revocations.end(ended)
    monkeypatch.setattr(here.db, "read", _away)  # it needs no database for that
    own_redis.child.send_signal(signal.SIGCONT)
    wait_until(lambda: not direct.exists(revocation.KEY), "the end of the hash")
    direct.close()


def _away(*_: Any, **__: Any) -> None:
    raise DatabaseUnavailable("away")


def test_a_revocation_reaches_redis_before_the_next_probe(
    here: Replica, there: Replica, ada: User, own_redis: RedisServer
) -> None:
    """Check a worker that still leaves Redis alone, beside one that found it again."""
    ended, kept = families(here, ada, 2)
    own_redis.stop()
    here.is_revoked(kept)
    own_redis.start()
    assert not here.redis_store.available()
    assert not there.is_revoked(ended)  # loads the hash
    here.revocations.end(ended)
    assert there.is_revoked(ended)
    assert not there.is_revoked(kept)


def test_a_hash_from_before_an_outage_is_not_trusted(
    here: Replica, there: Replica, ada: User, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check the same server with its data, as after a freeze."""
    monkeypatch.setattr(revocation, "FRESH_SECONDS", 3600)
    ended, kept = families(here, ada, 2)
    assert not there.is_revoked(ended)
    assert own_redis.child is not None
    own_redis.child.send_signal(signal.SIGSTOP)
    there.is_revoked(kept)  # notices
    with here.db.begin() as tx:  # by a worker that died before it could tell Redis
        token_families.revoke(tx, ended)
    own_redis.child.send_signal(signal.SIGCONT)
    wait_until(lambda: there.redis_store.call(lambda client: client.ping(), False), "Redis")
    assert there.is_revoked(ended)
    assert not there.is_revoked(kept)


def test_closed_process_stops_retrying(here: Replica, ada: User, own_redis: RedisServer) -> None:
    (ended,) = families(here, ada, 1)
    own_redis.stop()
    here.revocations.end(ended)
    late = here.revocations._retrier
    assert late is not None and late.is_alive()
    here.revocations.close()
    late.join(60)
    assert not late.is_alive()


def test_revocation_by_a_cut_off_worker_applies_when_the_hash_is_stale(
    here: Replica, there: Replica, ada: User
) -> None:
    (ended,) = families(here, ada, 1)
    assert not there.is_revoked(ended)
    with here.db.begin() as tx:
        token_families.revoke(tx, ended)
    assert not there.is_revoked(ended)  # the window that the docstring owns up to
    long_ago = now_ms() - int(revocation.FRESH_SECONDS * 1000) - 1
    there.redis_store.client.hset(revocation.KEY, "complete", f"{there.redis_store.server}:{long_ago}")
    assert there.is_revoked(ended)


def test_hash_is_trusted_while_the_database_is_down(
    here: Replica, there: Replica, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, kept = families(here, ada, 2)
    here.revocations.end(ended)
    there.is_revoked(kept)

    def away(*_: object, **__: object) -> None:
        raise DatabaseUnavailable()

    monkeypatch.setattr(there.db, "read", away)
    monkeypatch.setattr(there.db, "query", away)
    long_ago = now_ms() - int(revocation.FRESH_SECONDS * 1000) - 1
    there.redis_store.client.hset(revocation.KEY, "complete", f"{there.redis_store.server}:{long_ago}")
    assert there.is_revoked(ended)
    assert not there.is_revoked(kept)
    there.redis_store.client.flushall()
    with pytest.raises(DatabaseUnavailable):  # neither can say: nobody is let in
        there.is_revoked(kept)


def test_hanging_database_delays_requests_briefly(here: Replica, ada: User) -> None:
    """Trust the known hash meanwhile: no log-in can be revoked in a hanging database."""
    ended, kept = families(here, ada, 2)
    here.revocations.end(ended)
    assert not here.is_revoked(kept)
    go_on, revocations = threading.Event(), here.revocations
    revocations._db = Hanging(go_on)  # type: ignore[assignment]
    old = f"{here.redis_store.server}:{now_ms() - 60_000}".encode()
    try:
        for _ in range(3):
            assert not revocations.is_revoked(kept, (None, old))
        assert here.is_revoked(ended)
    finally:
        go_on.set()


class Hanging:
    """Simulate a database that hangs until released."""

    def __init__(self, go_on: threading.Event) -> None:
        self._go_on = go_on

    def read(self) -> None:
        self._go_on.wait(30)
        raise DatabaseUnavailable

    def query(self, work: Callable[[Any], Any]) -> None:
        self.read()
