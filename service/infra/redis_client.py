"""How Redis is reached: a client for each kind of address, and commands without what redis-py does around one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, Full, SimpleQueue
from typing import Any, cast

import redis
from hiredis import pack_command
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import ConnectionError, NoScriptError, ResponseError, TimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel

from service.infra.redis_address import RedisAddress, parse
from service.infra.redis_cluster import LazyCluster, exchange_in_cluster

ANSWER_SECONDS = 0.5  # for which an answer is waited for


def connect(
    url: str,
    *,
    max_connections: int,
    on_connect: Callable[[Any], None] | None = None,
) -> redis.Redis:
    """A client for `redis://`, `unix://path`, `redis+sentinel://h:p,h:p/name`, `redis+cluster://h:p,h:p`; see `parse`.

    Nothing is connected yet. A call fails with `redis.RedisError` within about twice `ANSWER_SECONDS`, after one more
    try; a cluster's without one. `on_connect` is called with each new connection (not by a cluster's).
    """
    options: dict[str, Any] = {
        "socket_timeout": ANSWER_SECONDS,
        "socket_connect_timeout": 0.3,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), 1),
        "protocol": 2,  # one shape of answers, whatever the server
    }
    address = parse(url.replace("redis+unix", "unix", 1))
    if address.scheme == "redis+cluster":
        return cast(redis.Redis, LazyCluster(partial(_cluster, address, options, max_connections)))
    if on_connect is not None:
        options["redis_connect_func"] = on_connect
    if address.scheme == "redis+sentinel":
        return _sentinel(address, options, max_connections)
    plain = url.removeprefix("redis+") if url.startswith("redis+") else url
    pool = _Pool.from_url(plain, max_connections=max_connections, timeout=1, **options)
    return redis.Redis(connection_pool=pool)


def _cluster(address: RedisAddress, options: dict[str, Any], max_connections: int) -> Any:
    """Connects. Raises `redis.RedisError` when no node answers."""
    node: Any = ClusterNode
    cluster: Any = RedisCluster  # not a subclass of Redis, but the same commands
    return cluster(
        startup_nodes=[node(host, port) for host, port in address.hosts],
        max_connections=max_connections,
        **{**options, "retry": Retry(NoBackoff(), 0)},  # a node that hangs would hang again
        **address.login,
        **_tls(address),
    )


def _sentinel(address: RedisAddress, options: dict[str, Any], max_connections: int) -> redis.Redis:
    quick = {key: value for key, value in options.items() if key != "redis_connect_func"}
    untyped: Any = Sentinel
    sentinels = untyped(address.hosts, sentinel_kwargs={**quick, **address.sentinel_login, **_tls(address)})
    return cast(
        redis.Redis,
        sentinels.master_for(
            address.service,
            db=address.database,
            max_connections=max_connections,
            **options,
            **address.login,
            **_tls(address),
        ),
    )


def _tls(address: RedisAddress) -> dict[str, Any]:
    return {} if address.tls is None else {"ssl": True, **address.tls}


class _Stack:
    """What redis-py keeps idle connections in: last in, first out, like its own `LifoQueue` but without that one's
    conditions. The list holds them, and the queue, which is written in C, counts them and lets threads wait."""

    def __init__(self, size: int) -> None:
        self.queue: list[Any] = []
        self._size = size
        self._waits: SimpleQueue[None] = SimpleQueue()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Raises `queue.Empty`."""
        self._waits.get(block, timeout)
        return self.queue.pop()

    def put_nowait(self, item: Any) -> None:
        """Raises `queue.Full`."""
        if len(self.queue) >= self._size:
            raise Full
        self.queue.append(item)
        self._waits.put(None)


class _Pool(redis.BlockingConnectionPool):
    """Without the records that redis-py keeps of each connection taken and given back, which cost a command's worth."""

    def __init__(self, **options: Any) -> None:
        made: Any = super().__init__  # it has no types
        made(queue_class=_Stack, **options)

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Raises `redis.RedisError` when none is free within a second, or none can be made."""
        connection = self.take()
        try:
            if not _is_quiet(connection):
                connection.disconnect()
                connection.connect()
        except BaseException:
            self.release(connection)
            raise
        return connection

    def take(self) -> Any:
        """The same; the server may have closed it in the meantime, for callers who can send again."""
        if self.pid != os.getpid():
            self._checkpid()
        try:
            connection = self.pool.get(timeout=self.timeout)
        except Empty:
            raise ConnectionError("No connection available.") from None
        if connection is None:
            connection = cast(Any, self).make_connection()
        if not connection.is_connected:
            try:
                connection.connect()
            except BaseException:
                self.release(connection)
                raise
        return connection

    def release(self, connection: Any) -> None:
        if connection.pid != os.getpid():  # it was made before a fork
            connection.disconnect()
            connection = None
        elif connection.should_reconnect():
            connection.disconnect()
        try:  # noqa: SIM105 - `suppress` costs as much as all of this
            self.pool.put_nowait(connection)
        except Full:  # the pool was begun anew in the meantime
            pass


def _is_quiet(connection: Any) -> bool:
    """What was closed, or holds an answer that nobody has read, cannot be used."""
    try:
        return not connection.can_read()
    except (ConnectionError, TimeoutError, OSError):
        return False


class Script:
    """A Lua script, sent whole only to a server that has not seen it."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: redis.Redis, keys: Sequence[str], *arguments: Any) -> Any:
        """On a cluster all keys must be of one slot."""
        try:
            return _sent(client, "EVALSHA", self._sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return client.eval(self._source, len(keys), *keys, *arguments)


def _sent(client: redis.Redis, *command: Any) -> Any:
    """Send a command without what redis-py does around one: its options, retries and records cost more than the
    round trip. Where the connection was closed, it is sent in redis-py's own way, on another one."""
    if not isinstance(client, redis.Redis):
        return answered(client, command)[0]
    pool = client.connection_pool
    connection: Any = pool.take() if isinstance(pool, _Pool) else pool.get_connection()
    try:
        connection.send_packed_command((pack_command(command),))
        return connection.read_response()
    except ResponseError:  # that was the whole answer
        raise
    except ConnectionError:
        pass
    except BaseException:
        connection.disconnect()  # an answer that nobody has read must not be taken for another
        raise
    finally:
        pool.release(connection)
    return cast(Any, client).execute_command(*command)


Command = Sequence[Any]


def answered(client: redis.Redis, *commands: Command) -> list[Any]:
    """Return what some commands answer, in one round trip. Raises as the first that fails would."""
    answers = exchange(client, lambda connection: commands)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def exchange(
    client: redis.Redis, commands: Callable[[Any], Sequence[Command]], *, block: float = 0.0
) -> list[Any]:
    """Send commands in one round trip: the answer of each, or the `ResponseError` that it failed with.

    `commands` is given the connection that they go over, as they may say which server that leads to; None of a
    cluster, where each node is asked in turn. Over the connection directly, see `_sent`. `block`: seconds for which the
    server may hold an answer back.
    """
    if not isinstance(client, redis.Redis):
        return exchange_in_cluster(client, commands(None), partial(exchange, block=block))
    pool = client.connection_pool
    connection: Any = pool.get_connection()
    try:
        packed = [pack_command(tuple(command)) for command in commands(connection)]
        connection.send_packed_command((b"".join(packed),))
        return [_answer(connection, block) for _ in packed]
    except BaseException:
        connection.disconnect()  # answers that nobody has read must not be taken for others
        raise
    finally:
        pool.release(connection)


def _answer(connection: Any, block: float) -> Any:
    try:
        if block:
            return connection.read_response(timeout=connection.socket_timeout + block)
        return connection.read_response()
    except ResponseError as error:
        return error


def read_stream(
    client: redis.Redis, key: str, after: bytes, count: int, wait: float
) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return entries of a stream: their ids and fields. Waits for the first for `wait` seconds at most."""
    milliseconds = int(wait * 1000) or 1  # 0 would be for ever
    command = ("XREAD", "COUNT", count, "BLOCK", milliseconds, "STREAMS", key, after)
    [found] = exchange(client, lambda _: [command], block=wait)
    if isinstance(found, Exception):
        raise found
    return [
        (entry, dict(zip(fields[::2], fields[1::2], strict=True)))
        for _, entries in found or ()
        for entry, fields in entries
    ]
