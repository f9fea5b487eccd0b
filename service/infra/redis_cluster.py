"""A Redis cluster's client that is made when it is first used, so that a process starts while the cluster is away.

redis-py's client asks the nodes for their slots as it is made, and again whenever one fails, each of them in turn
until one answers: seconds, where they hang. Here one thread does that for all. Whoever needs the client waits for it
to be made, `PATIENCE` at most; whoever met a node that fails does not wait for the others to be asked. After an
attempt that failed nobody tries for `PAUSE`.
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

PATIENCE = 1.0  # seconds that a caller waits for the nodes to be found
PAUSE = 1.0  # seconds that they are left alone after they could not be


class LazyCluster:
    """Stands in for the client that `make` makes, with all its methods; `make` raises when no node answers."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._client: Any = None
        self._connect = _Shared(self._connected)

    def __getattr__(self, name: str) -> Any:
        """Raises `redis.ConnectionError` while the cluster is away."""
        if self._client is None:
            self._connect()
        return getattr(self._client, name)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _connected(self) -> None:
        if self._client is None:
            client = self._make()
            client.nodes_manager.initialize = _Shared(client.nodes_manager.initialize).begin
            self._client = client


def exchange_in_cluster(
    client: Any, commands: Sequence[Sequence[Any]], exchange: Callable[..., Any]
) -> list[Any]:
    """The answer of each command, or the `ResponseError` that it failed with; a round trip for each node.

    redis-py's pipeline sends again what it got no answer to. An entry of a stream that was written the first time is
    refused then, as if another worker had taken the run over; and with a node frozen each command waits anew.
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
            there = [commands[number] for number in numbers]
            for number, answer in zip(numbers, exchange(node, lambda _, there=there: there), strict=True):
                answers[number] = answer
    except (ConnectionError, TimeoutError, RedisClusterException):
        # Another may have taken the node's place. It is the last that is asked: where it hangs, that takes a time-out.
        client.nodes_manager.initialize(last_failed_node_name=name)
        raise
    return [
        client.execute_command(*command) if isinstance(answer, (MovedError, AskError)) else answer
        for command, answer in zip(commands, answers, strict=True)
    ]


def _key_of(command: Sequence[Any]) -> Any:
    """The first key of a command; of one without any key, the same for all of its kind."""
    name = command[0]
    if name in ("EVAL", "EVALSHA"):
        return command[3]
    if name == "XREAD":
        return command[command.index("STREAMS") + 1]
    return command[1] if len(command) > 1 else name


class _Shared:
    """Run `work` in a thread, once for all who call or begin it meanwhile."""

    def __init__(self, work: Callable[..., None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._attempt = _Attempt()
        self._attempt.done.set()

    def begin(self, *args: Any, **options: Any) -> _Attempt:
        """Return without waiting for it."""
        with self._lock:
            attempt = self._attempt
            if attempt.is_over():
                attempt = self._attempt = _Attempt()
                run = (attempt, args, options)
                threading.Thread(target=self._run, args=run, name="redis-cluster", daemon=True).start()
            return attempt

    def __call__(self) -> None:
        """Wait for it. Raises `redis.ConnectionError` when it fails or hangs."""
        attempt = self.begin()
        in_time = attempt.done.wait(max(0.0, attempt.began + PATIENCE - time.monotonic()))
        if not in_time or attempt.error is not None:
            raise ConnectionError("The cluster's nodes were not found.") from attempt.error

    def _run(self, attempt: _Attempt, args: Any, options: Any) -> None:
        try:
            self._work(*args, **options)
        except Exception as error:  # told to all who wait for it
            attempt.error = error
        finally:
            attempt.ended = time.monotonic()
            attempt.done.set()


class _Attempt:
    """One attempt, shared by all who come while it is made and for `PAUSE` after it has failed."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.ended = 0.0
        self.error: Exception | None = None
        self.done = threading.Event()

    def is_over(self) -> bool:
        return self.done.is_set() and (self.error is None or time.monotonic() >= self.ended + PAUSE)
