"""Redis clients for each kind of address, and commands on hot paths without redis-py's overhead."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import redis
from hiredis import pack_command
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import ConnectionError, NoScriptError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel

from service.infra.redis_address import RedisAddress, parse
from service.infra.redis_cluster import LazyCluster, exchange_in_cluster

ANSWER_SECONDS = 0.5  # socket time-out of an answer


def connect(
    url: str, *, max_connections: int, on_connect: Callable[[Any], None] | None = None
) -> redis.Redis:
    """Create a client for `redis://`, `unix://path`, `redis+sentinel://h:p,h:p/name`, `redis+cluster://h:p,h:p`.

    Connects on first use. A call fails with `redis.RedisError` within about twice `ANSWER_SECONDS`, after one retry; of
    a cluster without one. `on_connect` is called with each new connection, but for a cluster's.
    """
    options: dict[str, Any] = {
        "socket_timeout": ANSWER_SECONDS,
        "socket_connect_timeout": 0.3,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), 1),
        "protocol": 2,  # RESP2: the same shape of answers from every server
    }
    address = parse(url.replace("redis+unix", "unix", 1))
    if address.scheme == "redis+cluster":
        return cast(redis.Redis, LazyCluster(partial(_cluster, address, options, max_connections)))
    if on_connect is not None:
        options["redis_connect_func"] = on_connect
    if address.scheme == "redis+sentinel":
        return _sentinel(address, options, max_connections)
    plain = url.removeprefix("redis+") if url.startswith("redis+") else url
    pool = redis.BlockingConnectionPool.from_url(plain, max_connections=max_connections, timeout=1, **options)
    return redis.Redis(connection_pool=pool)


def _cluster(address: RedisAddress, options: dict[str, Any], max_connections: int) -> Any:
    """Connect to a cluster. Raises `redis.RedisError` when no node answers."""
    node: Any = ClusterNode
    cluster: Any = RedisCluster  # not a subclass of Redis, but with the same commands
    return cluster(
        startup_nodes=[node(host, port) for host, port in address.hosts],
        max_connections=max_connections,
        **{**options, "retry": Retry(NoBackoff(), 0)},  # a hanging node would hang again
        **address.login,
        **_tls(address),
    )


def _sentinel(address: RedisAddress, options: dict[str, Any], max_connections: int) -> redis.Redis:
    for_sentinels = {key: value for key, value in options.items() if key != "redis_connect_func"}
    untyped: Any = Sentinel
    sentinels = untyped(
        address.hosts, sentinel_kwargs={**for_sentinels, **address.sentinel_login, **_tls(address)}
    )
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


class Script:
    """Lua script by EVALSHA; EVAL only where the server has not cached it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: redis.Redis, keys: Sequence[str], *arguments: Any) -> Any:
        """Run the script; on a cluster all keys must be in one slot."""
        try:
            return answered(client, ("EVALSHA", self._sha, len(keys), *keys, *arguments))[0]
        except (NoScriptError, ConnectionError):  # redis-py sends it, again where the answer was lost
            return client.eval(self.source, len(keys), *keys, *arguments)


Command = Sequence[Any]


def answered(client: redis.Redis, *commands: Command) -> list[Any]:
    """Send commands in one round trip; return their answers. Raises the error of the first that fails."""
    answers = exchange(client, lambda connection: commands)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def exchange(
    client: redis.Redis, commands: Callable[[Any], Sequence[Command]], *, block: float = 0.0
) -> list[Any]:
    """Send commands in one round trip; return the answer of each, or its `ResponseError`.

    `commands(connection)` builds them: they may depend on the server of the connection; None for a cluster, one round
    trip per node. Without redis-py's options, retries and metrics, which cost more than the trip. `block`: seconds for
    which the server may delay an answer.
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
        connection.disconnect()  # unread answers must not be taken for later ones
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
    """Read entries of a stream as (id, fields) after an id; wait up to `wait` seconds for the first."""
    milliseconds = int(wait * 1000) or 1  # 0 would wait for ever
    command = ("XREAD", "COUNT", count, "BLOCK", milliseconds, "STREAMS", key, after)
    [found] = exchange(client, lambda _: [command], block=wait)
    if isinstance(found, Exception):
        raise found
    return [
        (entry, dict(zip(fields[::2], fields[1::2], strict=True)))
        for _, entries in found or ()
        for entry, fields in entries
    ]
