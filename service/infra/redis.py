"""Redis behind a circuit breaker with default values: the service works without it, and it holds no truth."""

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
from service.infra.redis_rights import connection_fault, missing, reason_of, writes_everywhere

log = logging.getLogger("slipway.redis")

T = TypeVar("T")
D = TypeVar("D")
_MIN_PAUSE, _MAX_PAUSE = 1.0, 5.0  # seconds between probes while the circuit is open
_LOG_AGAIN = 60.0  # seconds after which the same refusal is logged again
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
    """Redis client behind a circuit breaker: after a failure it is probed after one second, then two, up to five.

    Meanwhile `call` returns its default at once, without a time-out for each request. Of a cluster, one missing node
    opens the circuit. `server` is the run id of the server last connected to; it changes with a restart or a failover.
    """

    def __init__(
        self, url: str, *, max_connections: int, on_change: Callable[[bool], None] | None = None
    ) -> None:
        self.server = ""
        self.back_at = 0.0  # time.time() when the circuit last closed
        self._servers: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # by connection
        self._client: redis.Redis | None = None
        self._connect = partial(connect, url, max_connections=max_connections, on_connect=self._greet)
        self._on_change = on_change or (lambda up: None)
        self._lock = threading.Lock()
        self._retry_at = 0.0  # time.monotonic(); 0: the circuit is closed
        self._pause = _MIN_PAUSE
        self._reason = ""  # of the last failure, in fixed words
        self._refusals: dict[str, float] = {}  # by reason: time.monotonic() when it was logged

    @property
    def client(self) -> redis.Redis:
        if self._client is None:  # on first use, which is after a fork
            self._client = self._connect()
        return self._client

    def available(self) -> bool:
        """Return whether the circuit is closed, without a call."""
        return self._retry_at == 0.0

    def call(self, work: Callable[[redis.Redis], T], default: D, *, urgent: bool = False) -> T | D:
        """Run `work`; return `default` while Redis is away, or when it refuses a command. `urgent`: see `attempt`."""
        try:
            return self.attempt(work, urgent=urgent)
        except RedisError as error:
            if not isinstance(error, _AWAY):
                self.note_refusal(error)
            return default

    def attempt(self, work: Callable[[redis.Redis], T], *, urgent: bool = False) -> T:
        """Run `work`. Raises `redis.RedisError`; at once while the circuit is open, unless it is `urgent`."""
        failing, began = self._retry_at != 0.0, time.time()
        if failing and not urgent and not self._may_probe():
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
            self._recovered(began)
        return value

    def check(self) -> str:
        """Check Redis and the rights it grants; return the fault in fixed words, or an empty string."""
        try:
            return self.attempt(missing)
        except RedisError as error:
            return self._reason or connection_fault(error)

    def server_of(self, connection: Any) -> str:
        """Run id of the server of a connection; empty where unknown, and for a cluster."""
        return "" if connection is None else self._servers.get(connection, "")

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _may_probe(self) -> bool:
        """Let one caller at a time probe whether Redis is back."""
        with self._lock:
            now = time.monotonic()
            if now < self._retry_at:
                return False
            self._pause = min(self._pause * 2, _MAX_PAUSE)
            self._retry_at = now + self._pause
            return True

    def _failed(self, error: Exception) -> None:
        with self._lock:
            if self._retry_at:
                return  # reported by another thread, or this was the probe
            self._retry_at = time.monotonic() + self._pause
            self._reason = reason_of(error)
        log.warning("redis_away", extra={"error": type(error).__name__, "reason": self._reason})
        self._on_change(False)

    def _recovered(self, at: float) -> None:
        with self._lock:
            if not self._retry_at:
                return
            self.back_at = at
            self._retry_at, self._pause, self._reason = 0.0, _MIN_PAUSE, ""
        log.info("redis_back")
        self._on_change(True)

    def note_refusal(self, error: Exception) -> None:
        """Log a refusal, once a minute at most: with a right missing, each request is refused a command."""
        reason, now = reason_of(error), time.monotonic()
        if now >= self._refusals.get(reason, now - _LOG_AGAIN) + _LOG_AGAIN:
            self._refusals[reason] = now
            log.warning("redis_refused", extra={"error": type(error).__name__, "reason": reason})

    def _greet(self, connection: Any) -> None:
        """Store the server's run id of a new connection: data of an earlier server may be stale."""
        self._servers[connection] = ""
        connection.on_connect()
        try:
            connection.send_command("INFO", "server")
            info: bytes = connection.read_response()
        except ResponseError:
            return  # some managed servers forbid INFO
        ids = (line[7:] for line in info.decode().splitlines() if line.startswith("run_id:"))
        self.server = self._servers[connection] = next(ids, "")


def _probe(client: redis.Redis) -> None:
    """Raise unless every node answers and takes writes; any other refusal is no outage."""
    for answer in exchange(client, lambda _: writes_everywhere()):
        if isinstance(answer, _AWAY):
            raise answer
