"""The queue's wake-ups: how Celery reaches its broker, and the bell that web and task processes ring.

A message holds a run's id and no more: the row is the truth. Whatever gets lost here is sent again by the sweep.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from celery import Celery
from kombu.entity import Exchange, Queue

from service.runs import keeper

if TYPE_CHECKING:
    from config.base import Settings

log = logging.getLogger("slipway.jobs")
RUN_TASK, UPKEEP_TASK = "slipway.run", "slipway.upkeep"
QUEUE, UPKEEP_QUEUE = "slipway", "slipway-upkeep"
PATIENCE = 0.5  # seconds that a caller waits for a broker that hangs
QUIET = 1.0  # seconds that it is left alone after that
LONGEST_RING = 2.0  # seconds for all wake-ups of one sweep


class Address(NamedTuple):
    """A broker as kombu takes it."""

    url: str
    options: dict[str, Any]


def address_of(redis_url: str, broker_url: str) -> Address | None:
    """Where messages go: `broker_url`, else Redis. None for a Redis cluster, which cannot be a broker."""
    if broker_url:
        return Address(_verified(broker_url), {} if broker_url.startswith("amqp") else _redis_options())
    scheme, _, rest = redis_url.partition("://")
    if scheme == "redis+cluster":
        return None
    if scheme == "redis+sentinel":
        return _sentinel(rest)
    if scheme == "unix":
        path, _, query = rest.partition("?")
        database = parse_qs(query).get("db", ["0"])[0]
        return Address(f"redis+socket://{path}?virtual_host={database}", _redis_options())
    return Address(_verified(redis_url.removeprefix("redis+")), _redis_options())


def _verified(url: str) -> str:
    """kombu checks no certificate unless told to; redis-py, which reads the same URL, always does."""
    if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def _redis_options() -> dict[str, Any]:
    return {"socket_timeout": 5.0, "socket_connect_timeout": 2.0, "global_keyprefix": "slipway:jobs:"}


def _sentinel(rest: str) -> Address:
    """`user:password@h:p,h:p/name/db` as kombu has it: one URL per sentinel, the name as an option."""
    parts = urlsplit(f"//{rest}")
    userinfo, at, hosts = parts.netloc.rpartition("@")
    path = [part for part in parts.path.split("/") if part]
    name = path[0] if path else parse_qs(parts.query).get("service_name", ["mymaster"])[0]
    database = path[1] if len(path) > 1 else "0"
    nodes = [host if ":" in host else f"{host}:26379" for host in hosts.split(",")]
    urls = (f"sentinel://{userinfo}{at}{node}/{database}" for node in nodes)
    quick = {"socket_timeout": 0.5, "socket_connect_timeout": 0.3}
    return Address(";".join(urls), {**_redis_options(), "master_name": name, "sentinel_kwargs": quick})


def make_app(settings: Settings) -> Celery:
    """Celery for these settings, without tasks: enough to send messages. Raises ValueError without a broker."""
    address = address_of(settings.redis_url, settings.broker_url)
    if address is None:
        raise ValueError("A Redis cluster cannot carry Celery's messages: set BROKER_URL.")
    options = dict(address.options)
    if options:  # Redis has no acknowledgements of its own: what is not acknowledged by then is sent again
        options["visibility_timeout"] = int(2 * settings.run_timeout + settings.graceful_timeout + 600)
    app = Celery("slipway", broker=address.url, set_as_current=False)
    app.conf.update(
        broker_transport_options=options,
        broker_connection_timeout=2.0,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Through the default exchange straight into the queue: no bindings that a wiped Redis could lose.
        task_queues=[_queue(QUEUE), _queue(UPKEEP_QUEUE)],
        task_default_queue=QUEUE,
        task_default_exchange="",
        task_default_routing_key=QUEUE,
        task_routes={UPKEEP_TASK: {"queue": UPKEEP_QUEUE}},
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        enable_utc=True,
    )
    return app


def _queue(name: str) -> Any:
    return Queue(name, Exchange(""), routing_key=name)  # type: ignore[no-untyped-call]


def bell_of(settings: Settings) -> keeper.Bell:
    """What wakes the task workers of these settings."""
    if address_of(settings.redis_url, settings.broker_url) is None:
        return keeper.NoBell()
    return Bell(make_app(settings))


class Bell:
    """`service.runs.keeper.Bell` over Celery. Made before the fork, connected after it; one thread at a time."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._connection: Any = None
        self._producer: Any = None
        self._quiet_until = 0.0
        patient = app.conf.broker_transport_options
        names = ("socket_timeout", "socket_connect_timeout") if patient else ("read_timeout", "write_timeout")
        self._quick = dict.fromkeys(names, PATIENCE)

    def ring(self, run_ids: Sequence[str]) -> bool:
        """Send a message for each. False: the broker cannot be reached, some or all were not sent."""
        end = time.monotonic() + LONGEST_RING

        return all(time.monotonic() < end and self._try(self._send, run_id) is not None for run_id in run_ids)

    def waiting(self) -> int | None:
        """How many messages nobody has taken yet; None: the broker cannot be reached."""
        depth: int | None = self._try(self._depth)
        return depth

    def _send(self, run_id: str) -> None:
        self._app.send_task(RUN_TASK, (run_id,), producer=self._producer, retry=False, queue=QUEUE)

    def _depth(self) -> int:
        queue = self._app.amqp.queues[QUEUE].bind(self._producer.channel)
        return int(queue.queue_declare().message_count)

    def _try(self, work: Callable[..., Any], *args: Any) -> Any:
        """What `work` returns (0 for nothing); None when the broker is away, at once for a while after that.

        A connection that stood and turns out to be broken is replaced; a broker that hangs is not waited for twice.
        """
        if not self._lock.acquire(timeout=PATIENCE):
            return None
        try:
            while time.monotonic() >= self._quiet_until:
                began, stood = time.monotonic(), self._producer is not None
                try:
                    self._connect()
                    return work(*args) or 0
                except Exception as error:  # every transport has errors of its own
                    self._disconnect()
                    if not stood or time.monotonic() - began > PATIENCE / 2:
                        self._quiet_until = time.monotonic() + QUIET
                        log.warning("broker_away", extra={"error": type(error).__name__})
            return None
        finally:
            self._lock.release()

    def _connect(self) -> None:
        if self._producer is not None:
            return
        connection = self._app.connection_for_write(transport_options=self._quick, connect_timeout=PATIENCE)
        # `timeout` is what ends kombu's own trying again, which would sleep for seconds.
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=0.01)
        self._connection = connection
        self._producer = self._app.amqp.Producer(connection.channel())

    def _disconnect(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            with suppress(Exception):  # it was broken already
                connection.release()
