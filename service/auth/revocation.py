"""What must no longer be believed: ended log-ins, and keys to look up afresh. The database is the truth.

Redis holds one hash, `slipway:distrusted`, with a field for each ended token family and each changed key, and
a field `complete`: `<run id of the Redis server>:<ms>`, the moment at which everything in the database was
known to be in the hash. One `HMGET` answers for a request. What holds:

- The database is written first. While Redis is reachable it is written before the caller gets an answer, so
  the end of a log-in is in force on every worker of every replica at once.
- Redis wiped, or the hash evicted: `complete` went with it (one key), so the next request loads the hash
  again from the database. A wipe while it is being loaded is noticed (`loading:<nonce>` is gone).
- Redis away: each request asks the database.
- Redis takes no writes, as it is full, lacks a right or a replica, or cannot save: whoever ends a log-in deletes the
  hash, which a full Redis lets it; and each look at the hash comes with a write that changes nothing, so that what
  is refused that is not believed either. Then each request asks the database, from the end on.
- Redis restarted with old data, or a replica promoted: its run id is not the one in `complete`, so the hash
  is loaded again before it is believed.
- One worker cannot reach Redis and others can: an end written by that worker is in the database at once, and
  in force for the others once `complete` is older than `FRESH` seconds, when they load again; that worker
  itself also goes on trying. This is the only window; on a cluster (no run id) a restart falls in it too.
- The database away: the hash is believed for as long as it is complete; no log-in can end meanwhile.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import redis

from service.errors import DatabaseUnavailable
from service.infra.redis import RedisStore
from service.infra.redis_client import answered
from service.store import token_families as rows
from service.store.database import Database
from service.store.token_families import Revoked
from service.types import now_ms

log = logging.getLogger("slipway.auth")

KEY = "slipway:distrusted"
COMPLETE = "complete"
FRESH = 4.0  # seconds that the hash is believed without being compared with the database again
LOAD_AGAIN = 1.0  # seconds for which a Redis that did not take the hash is not asked to again
LOAD_SECONDS = 1.0  # after which a database that has not answered counts as away
KEY_CACHE_SECONDS = 30  # how long a looked-up API key may be remembered
_SLACK_MS = 60_000  # clocks of replicas may differ by this much
_BATCH = 500

# KEYS: the hash. ARGV: nonce, now in ms, the value of `complete`. Drops what has expired on the way.
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


class Revocations:
    """`access_seconds` is the life of an access token: an ended family matters no longer than that."""

    def __init__(self, redis_store: RedisStore, db: Database, *, access_seconds: float) -> None:
        self._redis_store = redis_store
        self._db = db
        self._life_ms = int(access_seconds * 1000) + _SLACK_MS
        self._loading = threading.Lock()
        self._next_load = 0.0  # time.monotonic(): no earlier, after the database failed
        self._next_try = 0.0  # the same, after Redis did
        self._loading_since: float | None = None  # time.monotonic()
        self._untold = 0  # what could not be told to Redis: counted up by each,
        self._caught_up = 0  # and how many of them a load has brought there since
        self._late: threading.Thread | None = None
        self._closed = threading.Event()

    def close(self) -> None:
        """What Redis has not been told it learns from another process, or from the next start."""
        self._closed.set()

    def is_revoked(self, family: str, seen: Sequence[bytes | None] | None = None) -> bool:
        """Whether a log-in has ended. Raises `DatabaseUnavailable` when neither store can say.

        `seen`: the fields `family` and `complete` of the hash, where another round trip has just brought them.
        """
        found, complete = seen or self._redis_store.call(partial(_look_up, family=family), (None, None))
        if found is not None:
            return True
        if self.trusted(complete):
            return False
        return not self._db.query(lambda tx: rows.is_live(tx, family))

    def trusted(self, complete: bytes | None) -> bool:
        """Whether what was read beside this `complete` can be believed; loads the hash again where it is due.

        What was read before a load is not believed: the caller asks the database, this once.
        """
        age = self._age(complete)
        if age is None or age > FRESH:
            return not self._reload_in_time() and age is not None and self._database_is_away()
        if age > FRESH / 2 and not self._loading.locked():
            threading.Thread(target=self._reload, name="revocations", daemon=True).start()
        return True

    def end(self, family: str) -> bool:
        """End one log-in. False: it had ended already."""
        ended = self._db.transact(lambda tx: rows.revoke(tx, family))
        self.tell(Revoked([family], []))
        return ended

    def tell(self, what: Revoked) -> None:
        """Make known what the database already holds. Where Redis does not take it, it is not to be believed by
        anybody until a load has brought it there: a thread goes on trying."""
        if self._redis_store.call(lambda client: self._write(client, what), False):
            return
        self._redis_store.call(_forget, None)
        self._untold += 1
        if self._late is None or not self._late.is_alive():
            self._late = threading.Thread(target=self._catch_up, name="revocations-late", daemon=True)
            self._late.start()

    def _age(self, complete: bytes | None) -> float | None:
        """Seconds since the hash was last complete; None when it is not, or was so in another server."""
        server, _, moment = (complete or b"").decode().rpartition(":")
        if complete is None or self._untold != self._caught_up or server != self._redis_store.server:
            return None
        return max(0.0, (now_ms() - int(moment)) / 1000)

    def _reload_in_time(self) -> bool:
        """Reload in a thread of its own: a database that hangs holds up no request for longer than `LOAD_SECONDS`."""
        if not self._may_load() or self._loading.locked():
            return False
        loaded: list[bool] = []
        thread = threading.Thread(
            target=lambda: loaded.append(self._reload()), name="revocations", daemon=True
        )
        thread.start()
        thread.join(LOAD_SECONDS)
        return loaded == [True]

    def _reload(self) -> bool:
        """Bring the hash up to the database's state. False: it could not be, or another thread is at it."""
        if not self._may_load() or not self._loading.acquire(blocking=False):
            return False
        self._loading_since = time.monotonic()
        try:
            untold = self._untold
            loaded = self._redis_store.call(self._load, None)
            if loaded:
                self._caught_up = untold
            if loaded is None:
                self._next_try = time.monotonic() + LOAD_AGAIN
            return loaded is True
        except DatabaseUnavailable:
            self._next_load = time.monotonic() + FRESH
            return False
        finally:
            self._loading_since = None
            self._loading.release()

    def _may_load(self) -> bool:
        return time.monotonic() >= max(self._next_load, self._next_try)

    def _load(self, client: redis.Redis) -> bool:
        nonce, now = secrets.token_hex(8), now_ms()
        client.hset(KEY, f"loading:{nonce}", str(now + _SLACK_MS))
        server = self._redis_store.server
        since_keys = now - KEY_CACHE_SECONDS * 1000 - _SLACK_MS
        with self._db.read() as tx:
            what = rows.distrusted(tx, families_since=now - self._life_ms, keys_since=since_keys)
        self._write(client, what)
        return bool(client.eval(_FINISH, 1, KEY, nonce, str(now), f"{server}:{now}"))

    def _write(self, client: redis.Redis, what: Revoked) -> bool:
        now = now_ms()
        fields = {family: str(now + self._life_ms) for family in what.families}
        fields |= {digest: str(now + KEY_CACHE_SECONDS * 1000 + _SLACK_MS) for digest in what.digests}
        for batch in _batches(list(fields.items())):
            client.hset(KEY, mapping=dict(batch))
        return True

    def _catch_up(self) -> None:
        while self._untold != self._caught_up and not self._closed.is_set():
            self._reload()
            self._closed.wait(0.2)

    def _database_is_away(self) -> bool:
        """Tell whether the last load failed, or the present one takes too long: then no log-in can have ended since."""
        now, since = time.monotonic(), self._loading_since
        return now < self._next_load or (since is not None and now - since >= LOAD_SECONDS)


# Deletes nothing. A Redis that refuses it takes no writes, so others may have been refused the end of a log-in.
PROVES_WRITES = ("HDEL", KEY, "")


def _look_up(client: redis.Redis, family: str) -> list[bytes | None]:
    found, _ = answered(client, ("HMGET", KEY, family, COMPLETE), PROVES_WRITES)
    return found  # type: ignore[no-any-return]


def _forget(client: redis.Redis) -> None:
    """And the loads under way with it: they may have read the database before."""
    client.delete(KEY)


def _batches(items: Sequence[Any]) -> Sequence[Sequence[Any]]:
    return [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
