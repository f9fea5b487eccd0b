"""Lazy client of a Redis cluster: a process starts while the cluster is away; topology refresh in the background.

redis-py's client discovers the slots when it is created, and after each node failure, from one node after another:
seconds, where they hang. Here one thread does that for all. Callers without a client wait up to `PATIENCE`; callers
that met a failing node do not wait for the refresh. After a failed attempt there is none for `PAUSE`.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import (
    AskError,
    ConnectionError,
    MovedError,
    RedisClusterException,
    TimeoutError,
)

PATIENCE = 1.0  # seconds that a caller waits for the nodes to be discovered
PAUSE = 1.0  # seconds without attempts after a failed one


class LazyCluster:
    """Proxy for the client that `make` creates on first use; `make` raises when no node answers."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._client: Any = None
        self._connect = _Shared(self._connected)

    def __getattr__(self, name: str) -> Any:
        """Delegate to the client. Raises `redis.ConnectionError` while the cluster is away."""
        if self._client is None:
            self._connect()
        return getattr(self._client, name)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _connected(self) -> None:
        if self._client is None:
            client = self._make()
            # No option of redis-py 8.1 keeps each thread from asking the nodes in turn, one that hangs among them:
            # https://github.com/redis/redis-py/issues/4074
            client.nodes_manager.initialize = _Shared(client.nodes_manager.initialize).begin
            self._client = client


def exchange_in_cluster(
    client: Any, commands: Sequence[Sequence[Any]], exchange: Callable[..., Any]
) -> list[Any]:
    """Send commands, one round trip per node; return each answer, or its `ResponseError`.

    redis-py's pipeline is not used: it resends commands without an answer. A stream entry that was written the first
    time is refused then, as if another worker had taken the run over; and with a frozen node each command waits anew.
    Raises `redis.RedisError` when a node does not answer.
    """
    nodes: dict[str, Any] = {}
    places: dict[str, list[int]] = defaultdict(list)
    answers: list[Any] = [None] * len(commands)
    name: str | None = None
    try:
        for number, command in enumerate(commands):
            node = client.get_node_from_key(_key_of(command))
            nodes[node.name] = node
            places[node.name].append(number)
        for name, numbers in places.items():
            node = client.get_redis_connection(nodes[name])
            of_node = [commands[number] for number in numbers]
            for number, answer in zip(numbers, exchange(node, lambda _, batch=of_node: batch), strict=True):
                answers[number] = answer
    except (ConnectionError, TimeoutError, RedisClusterException):
        # Another node may have taken over. The failed one is asked last: where it hangs, it costs a time-out.
        client.nodes_manager.initialize(last_failed_node_name=name)
        raise
    return [
        client.execute_command(*command) if isinstance(answer, (MovedError, AskError)) else answer
        for command, answer in zip(commands, answers, strict=True)
    ]


def _key_of(command: Sequence[Any]) -> Any:
    """First key of a command; its name where it has none."""
    name = command[0]
    if name in ("EVAL", "EVALSHA"):
        return command[3]
    if name == "XREAD":
        return command[command.index("STREAMS") + 1]
    return command[1] if len(command) > 1 else name


class _Shared:
    """Single flight: run `work` in a thread, once for all concurrent callers."""

    def __init__(self, work: Callable[..., None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._attempt = _Attempt()
        self._attempt.done.set()

    def begin(self, *args: Any, **options: Any) -> _Attempt:
        """Start an attempt, or join the current one, without waiting."""
        with self._lock:
            attempt = self._attempt
            if attempt.is_stale():
                attempt = _Attempt()
                run = (attempt, args, options)
                threading.Thread(target=self._run, args=run, name="redis-cluster", daemon=True).start()
                self._attempt = attempt  # after the start, which fails at the system's limit of threads
            return attempt

    def __call__(self) -> None:
        """Wait for an attempt. Raises `redis.ConnectionError` when it fails or hangs."""
        attempt = self.begin()
        in_time = attempt.done.wait(max(0.0, attempt.began + PATIENCE - time.monotonic()))
        if not in_time or attempt.error is not None:
            raise ConnectionError("The cluster's nodes were not found.") from attempt.error

    def _run(self, attempt: _Attempt, args: Any, options: Any) -> None:
        try:
            self._work(*args, **options)
        except Exception as error:  # raised by all waiting callers
            attempt.error = error
        finally:
            attempt.ended = time.monotonic()
            attempt.done.set()


class _Attempt:
    """Attempt shared by all callers while it runs, and for `PAUSE` after it failed."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.ended = 0.0
        self.error: Exception | None = None
        self.done = threading.Event()

    def is_stale(self) -> bool:
        return self.done.is_set() and (self.error is None or time.monotonic() >= self.ended + PAUSE)
