"""Redis, and how to do without it. Nothing that matters is only there."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import redis
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
)

from service.infra.redis_client import connect, exchange
from service.infra.redis_rights import asked, missing, reason_of, writes_everywhere

log = logging.getLogger("slipway.redis")

T = TypeVar("T")
D = TypeVar("D")
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 5.0  # seconds that Redis is left alone after a failure
_SAY_AGAIN = 60.0  # seconds after which the same refusal is logged again
_AWAY = (
    ConnectionError,
    TimeoutError,
    ReadOnlyError,
    BusyLoadingError,
    ClusterDownError,
    RedisClusterException,
    OSError,
)


class RedisStore:
    """Redis behind a circuit: once it fails it is left alone for a second, then two, up to five.

    Meanwhile `call` answers with its default at once, so that requests do not each wait for a time-out. A cluster is
    used whole or not at all.
    `server` names the server process that was last connected to; it changes with a restart or a failover.
    """

    def __init__(
        self, url: str, *, max_connections: int, on_change: Callable[[bool], None] | None = None
    ) -> None:
        self.server = ""
        self._servers: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # by connection
        self._client: redis.Redis | None = None
        self._connect = partial(connect, url, max_connections=max_connections, on_connect=self._greet)
        self._on_change = on_change or (lambda up: None)
        self._lock = threading.Lock()
        self._retry_at = 0.0  # time.monotonic(); 0: all is well
        self._pause = _SHORTEST_PAUSE
        self._reason = ""  # of the failure, in fixed words
        self._refusals: dict[str, float] = {}  # why, and time.monotonic() of the line that said so

    @property
    def client(self) -> redis.Redis:
        if self._client is None:  # late: for the child of a fork
            self._client = self._connect()
        return self._client

    def available(self) -> bool:
        """Whether Redis answered when last asked. Costs nothing."""
        return self._retry_at == 0.0

    def call(self, work: Callable[[redis.Redis], T], default: D) -> T | D:
        """What `work` returns, or `default` when Redis is away or refuses."""
        try:
            return self.attempt(work)
        except RedisError as error:
            if not isinstance(error, _AWAY):
                self._refused(error)
            return default

    def attempt(self, work: Callable[[redis.Redis], T]) -> T:
        """What `work` returns. Raises `redis.RedisError`; at once while the circuit is open."""
        failing = self._retry_at != 0.0
        if failing and not self._may_probe():
            raise ConnectionError("Redis is being left alone after a failure.")
        try:
            if failing:
                _probe(self.client)
            value = work(self.client)
        except _AWAY as error:
            self._failed(error)
            if isinstance(error, RedisError):
                raise
            raise ConnectionError(type(error).__name__) from error
        if failing:
            self._recovered()
        return value

    def check(self) -> str:
        """Why Redis does not do all that is wanted of it, in fixed words; empty: it does."""
        try:
            return self.attempt(missing)
        except RedisError as error:
            return self._reason or asked(error)

    def server_of(self, connection: Any) -> str:
        """The server process at the other end of a connection; empty where it does not say, and of a cluster's."""
        return "" if connection is None else self._servers.get(connection, "")

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _may_probe(self) -> bool:
        """One caller at a time finds out whether Redis is back; the others go on without."""
        with self._lock:
            now = time.monotonic()
            if now < self._retry_at:
                return False
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            self._retry_at = now + self._pause
            return True

    def _failed(self, error: Exception) -> None:
        with self._lock:
            if self._retry_at:
                return  # another thread said so already, or this was the probe
            self._retry_at = time.monotonic() + self._pause
            self._reason = reason_of(error)
        log.warning("redis_away", extra={"error": type(error).__name__, "reason": self._reason})
        self._on_change(False)

    def _recovered(self) -> None:
        with self._lock:
            if not self._retry_at:
                return
            self._retry_at, self._pause, self._reason = 0.0, _SHORTEST_PAUSE, ""
        log.info("redis_back")
        self._on_change(True)

    def _refused(self, error: Exception) -> None:
        """Say why, once a minute at most: with a right missing, each request is refused something."""
        reason, now = reason_of(error), time.monotonic()
        if now >= self._refusals.get(reason, now - _SAY_AGAIN) + _SAY_AGAIN:
            self._refusals[reason] = now
            log.warning("redis_refused", extra={"error": type(error).__name__, "reason": reason})

    def _greet(self, connection: Any) -> None:
        """Each new connection asks for the server's run id: what an earlier server held may be stale."""
        self._servers[connection] = ""
        connection.on_connect()
        try:
            connection.send_command("INFO", "server")
            info: bytes = connection.read_response()
        except ResponseError:
            return  # not allowed to ask, on some managed servers
        ids = (line[7:] for line in info.decode().splitlines() if line.startswith("run_id:"))
        self.server = self._servers[connection] = next(ids, "")


def _probe(client: redis.Redis) -> None:
    """Raise unless all of it is there and takes writes: of a cluster every node, as those that answer say nothing of
    one that hangs. What it refuses for another reason is no outage."""
    for answer in exchange(client, lambda _: writes_everywhere()):
        if isinstance(answer, _AWAY):
            raise answer
