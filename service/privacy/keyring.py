"""Keyring: each user's keys, under which their texts are sealed; outside of the database and its backups.

Keys are cached for a bounded time. So a process forgets a destroyed key before its erasure is verified, and asks the
keyring once a minute for each user.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import TypeVar

from service.errors import DatabaseUnavailable, KeyringUnavailable
from service.store import keyring as rows
from service.store.database import Database
from service.store.sealer import KEY_BYTES, Keys

T = TypeVar("T")
FRESH = 60.0  # seconds until keys are read anew; below `erasure.QUIET_MS`
# Seconds that keys are used while the keyring is away: a run under way ends with them.
LASTING = 600.0
PAUSE = 5.0  # seconds after a failure until a key that is known is read anew
MAX_USERS = 10_000  # in the cache of a process
PAGE = 500  # users per query


def build(url: str) -> Keyring | None:
    """Build the keyring of this process; None: KEYRING_URL is not set, and nothing is sealed."""
    return Keyring(rows.connect(url)) if url else None


class Keyring:
    """Keys of users. One per process, made after fork. Each method raises `KeyringUnavailable`."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, tuple[float, Keys]] = OrderedDict()  # with time.monotonic()
        self._ask_at = 0.0  # time.monotonic()

    def to_seal(self, user_id: str) -> Keys:
        """Return a user's keys, the last of which seals; a user who has never had any gets one. Empty: destroyed."""
        found = self._find([user_id], FRESH)
        if user_id not in found:
            secret = os.urandom(KEY_BYTES)
            self._ask(self.db.transact, partial(rows.create, user_id=user_id, secret=secret))
            found = self._find([user_id], FRESH)
        return found[user_id]

    def to_open(self, wanted: Mapping[str, Collection[str]]) -> Mapping[str, Keys]:
        """Return the keys of users, `wanted` by id; of a user who has never had any, nothing."""
        found = self._find(wanted, FRESH)
        # A key that is younger than the cache: another process has made it.
        unseen = [user for user, keys in found.items() if keys and not keys.keys() >= set(wanted[user])]
        return {**found, **self._find(unseen, 0)} if unseen else found

    def destroy(self, user_id: str) -> None:
        """Destroy a user's keys for good, in the files of the keyring too."""
        self._ask(self.db.transact, partial(rows.destroy, user_id=user_id))
        self._keep({user_id: {}})
        self._ask(self.db.vacuum, rows.TABLES)

    def rotate(self) -> int:
        """Give every user another key; return how many. Processes seal with it `FRESH` seconds later at most."""
        count = 0
        for page in self._pages(erased=False):
            for user_id in page:
                secret = os.urandom(KEY_BYTES)
                self._ask(self.db.transact, partial(rows.rotate, user_id=user_id, secret=secret))
            count += len(page)
        return count

    def erased(self) -> Iterator[list[str]]:
        """Yield the users whose keys are destroyed, page by page."""
        return self._pages(erased=True)

    def close(self) -> None:
        self.db.close()

    def _pages(self, *, erased: bool) -> Iterator[list[str]]:
        after = ""
        while page := self._ask(self.db.query, partial(rows.users, after=after, limit=PAGE, erased=erased)):
            yield page
            after = page[-1]

    def _find(self, user_ids: Collection[str], fresh: float) -> dict[str, Keys]:
        """Look up users' keys in the cache, then in the keyring, in one trip; in an outage in the cache again."""
        found = self._cached(user_ids, fresh)
        if not (missing := [user_id for user_id in user_ids if user_id not in found]):
            return found
        known = self._cached(missing, LASTING)
        if len(known) == len(missing) and time.monotonic() < self._ask_at:
            return found | known
        try:
            read: dict[str, Keys] = self._ask(self.db.query, partial(rows.of_users, user_ids=missing))
        except KeyringUnavailable:
            self._ask_at = time.monotonic() + PAUSE
            if len(known) < len(missing):
                raise
            return found | known
        self._keep(read)
        return found | read

    def _cached(self, user_ids: Collection[str], seconds: float) -> dict[str, Keys]:
        since = time.monotonic() - seconds
        with self._lock:
            entries = {user_id: self._cache.get(user_id) for user_id in user_ids}
        return {user_id: entry[1] for user_id, entry in entries.items() if entry and entry[0] > since}

    def _keep(self, read: Mapping[str, Keys]) -> None:
        now = time.monotonic()
        with self._lock:
            for user_id, keys in read.items():
                self._cache[user_id] = now, keys
                self._cache.move_to_end(user_id)
            while len(self._cache) > MAX_USERS:
                self._cache.popitem(last=False)

    def _ask(self, call: Callable[..., T], *args: object) -> T:
        try:
            return call(*args)
        except DatabaseUnavailable as error:
            raise KeyringUnavailable("The keys of this data cannot be read at the moment.") from (
                error.__cause__ or error
            )
