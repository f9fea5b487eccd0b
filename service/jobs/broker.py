"""Celery broker: connection options from the settings, and the wake-up messages for task workers.

A message holds only a run's id: the row is the truth. It stands for one turn of a worker, and whose turn that is the
database says (`service.store.task_line`). The supervisor's sweep resends lost messages.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from ssl import CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, quote

from celery import Celery
from kombu.entity import Exchange, Queue

from service.infra.redis_address import RedisAddress, parse, without_tls_options
from service.runs.recovery import supervisor

if TYPE_CHECKING:
    from config.base import Settings

log = logging.getLogger("slipway.jobs")
RUN_TASK, UPKEEP_TASK = "slipway.run", "slipway.upkeep"
QUEUE, UPKEEP_QUEUE = "slipway", "slipway-upkeep"
BROKER_TIMEOUT = 0.5  # seconds a caller waits for a hanging broker
BROKER_PAUSE = 1.0  # seconds without another try after that
WAKEUP_TIMEOUT = 2.0  # seconds for all wake-ups of one sweep


class Broker(NamedTuple):
    """Broker URL and options for kombu. `ssl`: TLS options of the connection; None: plain text."""

    url: str
    options: dict[str, Any]
    ssl: dict[str, Any] | None


def broker_of(redis_url: str, broker_url: str) -> Broker | None:
    """Select the broker: `broker_url`, else Redis. None for a Redis cluster, which cannot be a broker."""
    url = broker_url or redis_url.replace("redis+unix", "unix", 1)
    address = parse(url)
    if address.scheme == "redis+cluster":
        return None
    if address.scheme == "redis+sentinel":
        return _sentinel(address)
    if address.scheme == "unix":
        path, _, query = url.removeprefix("unix://").partition("?")
        database = parse_qs(query).get("db", ["0"])[0]
        return Broker(f"redis+socket://{path}?virtual_host={database}", _redis_options(), None)
    plain = url if address.tls is None else without_tls_options(url)
    if address.scheme == "amqp":
        return Broker(plain, {}, None if address.tls is None else _amqp_tls(address.tls))
    return Broker(plain, _redis_options(), address.tls)


def _redis_options() -> dict[str, Any]:
    return {"socket_timeout": 5.0, "socket_connect_timeout": 2.0, "global_keyprefix": "slipway:jobs:"}


def _amqp_tls(tls: dict[str, Any]) -> dict[str, Any]:
    """Translate TLS options for py-amqp. `server_hostname` must be there, or any name would do; None: the broker's."""
    files = {name: tls.get(f"ssl_{name}") for name in ("ca_certs", "certfile", "keyfile")}
    required = {"none": CERT_NONE, "optional": CERT_OPTIONAL}.get(tls["ssl_cert_reqs"], CERT_REQUIRED)
    named = {"server_hostname": None} if tls["ssl_check_hostname"] and required is not CERT_NONE else {}
    return {**{name: file for name, file in files.items() if file}, "cert_reqs": required, **named}


def _sentinel(address: RedisAddress) -> Broker:
    """Build kombu's form: one URL per sentinel, the service name as an option."""
    login = ":".join(quote(address.login.get(name, ""), safe="") for name in ("username", "password"))
    before = f"{login}@" if address.login else ""
    hosts = (f"[{host}]" if ":" in host else host for host, _ in address.hosts)
    nodes = (f"{host}:{port}" for host, (_, port) in zip(hosts, address.hosts, strict=True))
    url = ";".join(f"sentinel://{before}{node}/{address.database}" for node in nodes)
    quick = {"socket_timeout": 0.5, "socket_connect_timeout": 0.3, **address.sentinel_login}
    secure = {} if address.tls is None else {"ssl": True, **address.tls}
    options = {"master_name": address.service, "sentinel_kwargs": {**quick, **secure}}
    return Broker(url, {**_redis_options(), **options}, address.tls)


def make_app(settings: Settings) -> Celery:
    """Create a Celery app without tasks, enough to send messages. Raises ValueError without a broker."""
    broker = broker_of(settings.redis_url, settings.broker_url)
    if broker is None:
        raise ValueError("A Redis cluster cannot carry Celery's messages: set BROKER_URL.")
    options = dict(broker.options)
    if options:  # Redis has no acknowledgements: messages unacknowledged by then are redelivered
        options["visibility_timeout"] = int(2 * settings.run_timeout + settings.graceful_timeout + 600)
    app = Celery("slipway", broker=broker.url, set_as_current=False)
    app.conf.update(
        broker_use_ssl=broker.ssl or False,
        broker_transport_options=options,
        broker_connection_timeout=2.0,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # The default exchange routes straight into the queue: no bindings that a wiped Redis could lose.
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


def make_wakeup(settings: Settings) -> supervisor.Wakeup:
    if broker_of(settings.redis_url, settings.broker_url) is None:
        return supervisor.NoWakeup()
    return CeleryWakeup(make_app(settings))


class CeleryWakeup:
    """`Wakeup` of the supervisor over Celery. Created before the fork, connected after; one thread at a time."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._connection: Any = None
        self._producer: Any = None
        self._paused_until = 0.0
        redis = app.conf.broker_transport_options
        names = ("socket_timeout", "socket_connect_timeout") if redis else ("read_timeout", "write_timeout")
        self._timeouts = dict.fromkeys(names, BROKER_TIMEOUT)

    def ring(self, run_ids: Sequence[str]) -> bool:
        """Send a message for each run. False: the broker is unreachable, some or all were not sent."""
        end = time.monotonic() + WAKEUP_TIMEOUT
        return all(
            time.monotonic() < end and self._call(self._send, run_id) is not None for run_id in run_ids
        )

    def waiting(self) -> int | None:
        """Return the queue's length in messages; None: the broker is unreachable."""
        depth: int | None = self._call(self._depth)
        return depth

    def _send(self, run_id: str) -> None:
        self._app.send_task(RUN_TASK, (run_id,), producer=self._producer, retry=False, queue=QUEUE)

    def _depth(self) -> int:
        queue = self._app.amqp.queues[QUEUE].bind(self._producer.channel)
        return int(queue.queue_declare().message_count)

    def _call(self, work: Callable[..., Any], *args: Any) -> Any:
        """Call `work` with a connection; return its result (0 for none), or None when the broker is unreachable.

        A broken existing connection is replaced once; after a failure or a hang, calls fail fast for `BROKER_PAUSE`.
        """
        if not self._lock.acquire(timeout=BROKER_TIMEOUT):
            return None
        try:
            while time.monotonic() >= self._paused_until:
                began, was_connected = time.monotonic(), self._producer is not None
                try:
                    self._connect()
                    return work(*args) or 0
                except Exception as error:  # every transport has errors of its own
                    self._disconnect()
                    if not was_connected or time.monotonic() - began > BROKER_TIMEOUT / 2:
                        self._paused_until = time.monotonic() + BROKER_PAUSE
                        log.warning("broker_away", extra={"error": type(error).__name__})
            return None
        finally:
            self._lock.release()

    def _connect(self) -> None:
        if self._producer is not None:
            return
        connection = self._app.connection_for_write(
            transport_options=self._timeouts, connect_timeout=BROKER_TIMEOUT
        )
        # `timeout` ends kombu's own retries, which would sleep for seconds.
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=0.01)
        self._connection = connection
        self._producer = self._app.amqp.Producer(connection.channel())

    def _disconnect(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            with suppress(Exception):  # it was broken already
                connection.release()
