"""Revocation list of log-ins and API keys: the database is the source of truth, a Redis hash the fast copy.

The hash `slipway:distrusted` has a field for each revoked token family and each changed key, and a field `complete`,
`<run id of the Redis server>:<ms>`: when the hash last held everything the database has. One `HMGET` per request.

- Writes go to the database first, then to Redis before the caller gets an answer, so a revocation applies on every
  worker of every replica at once.
- Redis wiped, or the hash evicted: `complete` is lost with the hash (one key), so the next request reloads from the
  database. A wipe during a reload is detected (`loading:<nonce>` is gone).
- Redis unreachable: each request asks the database.
- Redis read-only (full, missing right, no replica, cannot save): a revocation deletes the hash, which a full Redis
  allows; and each read carries a write that changes nothing, so a refused write makes the read untrusted as well.
  From the revocation on each request asks the database.
- Redis restarted with old data, or a replica promoted: its run id differs from `complete`, so the hash is reloaded
  before use.
- Redis away, then back with its data: a worker that saw it away trusts nothing from before, as revocations of that
  time are missing. The worker that could not write one deletes the hash as soon as it can, without the database.
- One worker cut off from Redis while others are not: its revocations are in the database at once, and seen by the
  others when `complete` is older than `FRESH_SECONDS` and they reload; the worker itself keeps retrying. This is the
  only window; on a cluster (no run id) a restart falls in the same window.
- Database down: the hash stays trusted while complete; no log-in can be revoked meanwhile.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Sequence
from typing import cast

import redis

from service.audit.record import Action, record
from service.errors import DatabaseUnavailable, InvalidToken
from service.infra.redis import RedisStore
from service.infra.redis_client import Script
from service.infra.redis_trip import ScriptCall
from service.store import token_families as rows
from service.store.database import Database, Transaction
from service.store.token_families import Revoked
from service.types import now_ms

log = logging.getLogger("slipway.auth")

KEY = "slipway:distrusted"
COMPLETE = "complete"
FRESH_SECONDS = 4.0  # the hash is trusted this long without a reload
RELOAD_PAUSE = 1.0  # seconds between reloads after Redis refused one
LOAD_TIMEOUT = 1.0  # seconds until a database that has not answered counts as down
KEY_CACHE_SECONDS = 30  # lifetime of a cached API key
_SLACK_MS = 60_000  # clock skew between replicas
_BATCH = 500

# Deletes nothing. A Redis that refuses this write may have refused a revocation from another worker too.
PROVES_WRITES = ("HDEL", KEY, "")
# KEYS: the hash. ARGV: a field, and `complete`. Returns their values; a field that exists stops the trip.
LOOK_UP = Script("""
redis.call('HDEL', KEYS[1], '') -- as PROVES_WRITES
local found = redis.call('HMGET', KEYS[1], ARGV[1], ARGV[2])
return found, found[1]
""")

# KEYS: the hash. ARGV: nonce, now in ms, the value of `complete`. Also drops expired fields.
_FINISH = """
if redis.call('HDEL', KEYS[1], 'loading:' .. ARGV[1]) == 0 then return 0 end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local old = all[i] ~= 'complete' and tonumber(all[i + 1]) < tonumber(ARGV[2])
  if old then redis.call('HDEL', KEYS[1], all[i]) end
end
redis.call('HSET', KEYS[1], 'complete', ARGV[3])
return 1
"""

# KEYS: the hash. ARGV: a field, and the value with which it is deleted.
_WITHDRAW = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
"""


class Revocations:
    """Revocation list. `access_seconds`: life of an access token, beyond which a revoked family can be dropped."""

    def __init__(self, redis_store: RedisStore, db: Database, *, access_seconds: float) -> None:
        self._redis_store = redis_store
        self._db = db
        self.life_ms = int(access_seconds * 1000) + _SLACK_MS
        self._loading = threading.Lock()
        self._next_load = 0.0  # time.monotonic() of the next try, after the database failed
        self._next_redis_try = 0.0  # the same, after Redis failed
        self._loading_since: float | None = None  # time.monotonic()
        self._missed = 0  # revocations that Redis did not take, ever
        self._recovered = 0  # how many of those a later reload has written
        self._retrier: threading.Thread | None = None
        self._closed = threading.Event()

    def close(self) -> None:
        """Stop retrying; another process, or the next start, writes what Redis still lacks."""
        self._closed.set()

    def call(self, family: str) -> ScriptCall:
        """Build a trip's call that checks a log-in: the trip raises `InvalidToken` when it has ended."""

        def read(seen: Sequence[bytes | None] | None) -> None:
            if self.is_revoked(family, seen or (None, None)):
                raise InvalidToken("This log-in has ended.")

        return ScriptCall(LOOK_UP, (KEY,), (family, COMPLETE), read)

    def is_revoked(self, family: str, seen: Sequence[bytes | None]) -> bool:
        """Check whether a log-in has been revoked. Raises `DatabaseUnavailable` when neither store can say.

        `seen`: the hash fields `family` and `complete`, None where Redis is away.
        """
        found, complete = seen
        if found is not None:
            return True
        if self.trusted(complete):
            return False
        return not self._db.query(lambda tx: rows.is_live(tx, family))

    def trusted(self, complete: bytes | None) -> bool:
        """Check whether a read with this `complete` can be trusted; reloads the hash when due.

        A read from before a reload is not trusted: the caller asks the database, this once.
        """
        age = self._age(complete)
        if age is None or age > FRESH_SECONDS:
            return not self._reload_in_time() and age is not None and self._database_is_away()
        if age > FRESH_SECONDS / 2 and not self._loading.locked():
            threading.Thread(target=self._reload, name="revocations", daemon=True).start()
        return True

    def end(self, family: str, why: Action = Action.SIGN_OUT) -> bool:
        """Revoke one log-in. False: revoked before."""

        def work(tx: Transaction) -> bool:
            if ended := rows.revoke(tx, family):
                record(tx, why, f"login:{family}", result="ok" if why is Action.SIGN_OUT else "refused")
            return ended

        ended = self._db.transact(work)
        self.publish(Revoked([family], []))
        return ended

    def publish(self, revoked: Revoked) -> None:
        """Write revocations that the database already holds to Redis.

        If Redis refuses, delete the hash, so that nobody trusts it before a reload; a thread keeps retrying.
        """
        if self._redis_store.call(lambda client: self._write(client, revoked), False, urgent=True):
            return
        if self._redis_store.call(_delete_hash, False):
            return
        self._missed += 1
        if self._retrier is None or not self._retrier.is_alive():
            self._retrier = threading.Thread(target=self._catch_up, name="revocations-retry", daemon=True)
            self._retrier.start()

    def value_of(self, mark: str) -> bytes | None:
        """Return the value of an agent's mark; None: there is none, or Redis is away."""
        return cast("bytes | None", self._redis_store.call(lambda client: client.hget(KEY, mark), None))

    def withdraw(self, mark: str, value: bytes) -> None:
        """Remove the mark of an agent that was released, unless its value changed: then it was stopped again.

        `value`: from before the database was asked. A mark that stays costs a query for each look-up.
        """
        self._redis_store.call(lambda client: client.eval(_WITHDRAW, 1, KEY, mark, value), None)

    def _age(self, complete: bytes | None) -> float | None:
        """Return seconds since the hash was complete; None: incomplete, or complete on another server."""
        server, _, moment = (complete or b"").decode().rpartition(":")
        if complete is None or self._missed != self._recovered or server != self._redis_store.server:
            return None
        if int(moment) < self._redis_store.back_at * 1000:
            return None
        return max(0.0, (now_ms() - int(moment)) / 1000)

    def _reload_in_time(self) -> bool:
        """Reload in a separate thread: a hanging database delays a request by `LOAD_TIMEOUT` at most."""
        if not self._may_load() or self._loading.locked():
            return False
        loaded: list[bool] = []
        thread = threading.Thread(
            target=lambda: loaded.append(self._reload()), name="revocations", daemon=True
        )
        thread.start()
        thread.join(LOAD_TIMEOUT)
        return loaded == [True]

    def _reload(self) -> bool:
        """Reload the hash from the database. False: failed, or another thread is reloading."""
        if not self._may_load() or not self._loading.acquire(blocking=False):
            return False
        self._loading_since = time.monotonic()
        try:
            pending = self._missed
            loaded = self._redis_store.call(self._load, None)
            if loaded:
                self._recovered = pending
            if loaded is None:
                self._next_redis_try = time.monotonic() + RELOAD_PAUSE
            return loaded is True
        except DatabaseUnavailable:
            self._next_load = time.monotonic() + FRESH_SECONDS
            return False
        finally:
            self._loading_since = None
            self._loading.release()

    def _may_load(self) -> bool:
        return time.monotonic() >= max(self._next_load, self._next_redis_try)

    def _load(self, client: redis.Redis) -> bool:
        nonce, now = secrets.token_hex(8), now_ms()
        client.hset(KEY, f"loading:{nonce}", str(now + _SLACK_MS))
        server = self._redis_store.server
        since_keys = now - KEY_CACHE_SECONDS * 1000 - _SLACK_MS
        with self._db.read() as tx:
            revoked = rows.distrusted(tx, families_since=now - self.life_ms, keys_since=since_keys)
        self._write(client, revoked)
        return bool(client.eval(_FINISH, 1, KEY, nonce, str(now), f"{server}:{now}"))

    def _write(self, client: redis.Redis, revoked: Revoked) -> bool:
        now = now_ms()
        fields = {family: str(now + self.life_ms) for family in revoked.families}
        fields |= {digest: str(now + KEY_CACHE_SECONDS * 1000 + _SLACK_MS) for digest in revoked.digests}
        items = list(fields.items())
        for start in range(0, len(items), _BATCH):
            client.hset(KEY, mapping=dict(items[start : start + _BATCH]))
        return True

    def _catch_up(self) -> None:
        while self._missed != self._recovered and not self._closed.is_set():
            pending = self._missed
            if self._redis_store.call(_delete_hash, False, urgent=True):
                self._recovered = pending
            else:
                self._closed.wait(0.2)

    def _database_is_away(self) -> bool:
        """Check whether the last load failed or the current one hangs: no log-in can have been revoked since."""
        now, since = time.monotonic(), self._loading_since
        return now < self._next_load or (since is not None and now - since >= LOAD_TIMEOUT)


def _delete_hash(client: redis.Redis) -> bool:
    """Delete the hash, which also voids reloads in progress: they may have read the database before."""
    client.delete(KEY)
    return True
