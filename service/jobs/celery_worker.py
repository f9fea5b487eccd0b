"""Task worker: Celery's prefork pool, where each process executes one run at a time.

The parent only talks to the broker. Each child builds its own services after the fork, holds a lease like every
other worker, and hands over unfinished runs when the parent stops.
"""

from __future__ import annotations

import logging
import mmap
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import redis
from celery import Celery, bootsteps, signals
from celery.exceptions import SecurityWarning
from celery.worker.request import Request, logger
from prometheus_client import start_http_server

from service import wiring
from service.errors import DatabaseUnavailable
from service.infra import forking
from service.infra.redis_address import parse
from service.infra.redis_client import connect
from service.infra.redis_rights import missing_for_queue, reason_of
from service.jobs.broker import RUN_TASK, UPKEEP_TASK, CeleryWakeup, make_app
from service.jobs.upkeep import delete_expired
from service.observe import logs, metric_files
from service.observe.metric_values import of_folder
from service.runs.recovery.supervisor import ProcessRole
from service.usage.rollup import roll_up

if TYPE_CHECKING:
    from config.base import Settings

log = logging.getLogger("slipway.jobs")
UPKEEP_SECONDS = 60.0
_PER_MESSAGE_LOGGERS = ("celery.worker.strategy", "celery.app.trace")  # a run has its own log lines


def create_worker(settings: Settings) -> Celery:
    """Create the Celery application that `celery -A worker` loads. Raises ValueError without a broker."""
    # Celery warns about running as root because of pickle; these messages are JSON only.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    app = make_app(settings)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_concurrency=settings.task_concurrency,
        worker_enable_remote_control=False,
        # Otherwise a reconnection lowers the prefetch to the processes there are, and `--autoscale` never sees more.
        worker_enable_prefetch_count_reduction=False,
        worker_proc_alive_timeout=30.0,  # seconds a child may take to build its services
    )
    app.steps["consumer"].add(UpkeepClock)
    process = _PoolProcess(settings, app)
    process.connect_signals()

    @app.task(name=RUN_TASK, Request=_StrictRequest)  # type: ignore[untyped-decorator]
    def run(run_id: str) -> None:
        with logs.bound():
            process.services.runs.execution.take_turn(run_id)

    @app.task(name=UPKEEP_TASK, Request=_StrictRequest)  # type: ignore[untyped-decorator]
    def upkeep() -> None:
        delete_expired(process.services.infra.db, settings.retention_days)
        roll_up(process.services.infra.db)

    return app


class UpkeepClock(bootsteps.StartStopStep):  # type: ignore[misc]
    """Queue upkeep every minute, from the event loop of the parent: no beat process is needed.

    Celery starts it with each connection to the broker, and clears its timer with the connection.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        options = {"retry": False, "expires": UPKEEP_SECONDS}  # what waits behind runs is not done twice
        consumer.timer.call_repeatedly(UPKEEP_SECONDS, consumer.app.send_task, (UPKEEP_TASK,), options)


class _StrictRequest(Request):  # type: ignore[misc]
    """Celery request whose failed acknowledgement raises, so that the consumer reconnects.

    Celery only logs when Redis goes away before an acknowledgement. With its prefetch full of such messages it asks
    for no more, never checks the dead connection again, and hangs for ever (kombu 5.7).
    """

    acknowledged: bool

    def acknowledge(self) -> None:
        if not self.acknowledged:
            self._on_ack(logger, ())  # swallow no errors: the consumer's loop must see them
            self.acknowledged = True

    def reject(self, requeue: bool = False) -> None:
        if not self.acknowledged:
            self._on_reject(logger, (), requeue)
            self.acknowledged = True


class _PoolProcess:
    """Services of one pool process, managed by Celery's signals. Empty in the parent."""

    def __init__(self, settings: Settings, app: Celery) -> None:
        self._settings = settings
        self._metrics_folder = metric_files.of_tasks(settings.slipway_home / f"metrics-{settings.port}")
        self._wakeup = CeleryWakeup(app)
        self._services: wiring.Services | None = None
        # One byte shared by parent and children: Celery signals the shutdown to the parent only.
        self._stopping = mmap.mmap(-1, 1)

    @property
    def services(self) -> wiring.Services:
        assert self._services is not None, "the process has not begun"
        return self._services

    def connect_signals(self) -> None:
        """Connect the handlers; `weak=False`, or Celery would drop the bound methods at once."""
        signals.setup_logging.connect(self._set_up_logs, weak=False)
        signals.worker_init.connect(self._reset_metrics, weak=False)
        signals.worker_init.connect(self._share_memory, weak=False)
        signals.celeryd_after_setup.connect(self._check_rights, weak=False)  # logs are set up by then
        signals.worker_ready.connect(self._serve_metrics, weak=False)
        signals.worker_process_init.connect(self._start_services, weak=False)
        signals.worker_process_shutdown.connect(self._close_services, weak=False)
        signals.worker_shutting_down.connect(self._drain, weak=False)

    def _set_up_logs(self, **_: Any) -> None:
        logs.configure(self._settings.log_format, self._settings.log_level)
        for name in _PER_MESSAGE_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)

    def _reset_metrics(self, **_: Any) -> None:
        """Clear metric files in the parent, before the fork; not at import, which any `celery` command does."""
        if not self._settings.metrics_enabled:
            return
        metric_files.clear(self._metrics_folder)
        metric_files.join(self._metrics_folder)

    def _share_memory(self, **_: Any) -> None:
        """Import the pool in the parent too, whose module Celery loads later."""
        traced = ["service.observe.otel"] if self._settings.otel_exporter_otlp_endpoint else []
        forking.share("celery.concurrency.prefork", *traced)

    def _check_rights(self, **_: Any) -> None:
        """Log missing Redis rights once, in the parent: Celery's own errors come late and do not name the right."""
        url = self._settings.broker_url or self._settings.redis_url
        if parse(url).scheme == "amqp":
            return
        client = connect(url, max_connections=1)
        try:
            reason = missing_for_queue(client)
        except redis.RedisError as error:
            reason = reason_of(error)
        finally:
            client.close()
        if reason:
            log.error("queue_refused", extra={"reason": reason})

    def _serve_metrics(self, **_: Any) -> None:
        """Serve `/metrics` in the parent, for a task worker without a web server beside it."""
        if self._settings.task_metrics_port and self._settings.metrics_enabled:
            port, host = self._settings.task_metrics_port, self._settings.host
            start_http_server(port, host, of_folder(self._metrics_folder))

    def _start_services(self, **_: Any) -> None:
        metric_files.forget_the_dead(self._metrics_folder)  # this process may replace a killed one
        self._services = wiring.build(
            self._settings, ProcessRole("task", self._wakeup, lambda: self._stopping[0] == 1)
        )
        self._services.agents.log_faults()
        with suppress(DatabaseUnavailable):  # the supervisor tries again
            self._services.versions.refresh()
        self._services.audit.chainer.start()
        self._services.runs.supervisor.start()
        self._services.pools.start()

    def _drain(self, **_: Any) -> None:
        self._stopping[0] = 1

    def _close_services(self, **_: Any) -> None:
        if self._services is not None:
            self._services.close()
