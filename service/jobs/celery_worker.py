"""The task worker: Celery's prefork pool, where each process drives one run at a time.

The parent only talks to the broker. Each child makes its own services after the fork, holds a lease like every
other worker, and hands over what it cannot finish when the parent is told to stop.
"""

from __future__ import annotations

import logging
import mmap
import warnings
from typing import TYPE_CHECKING, Any

import redis
from celery import Celery, signals
from celery.exceptions import SecurityWarning
from celery.worker.request import Request, logger
from prometheus_client import start_http_server

from service import wiring
from service.infra.redis_address import parse
from service.infra.redis_client import connect
from service.infra.redis_rights import missing_for_queue, reason_of
from service.jobs.broker import RUN_TASK, UPKEEP_TASK, CeleryWakeup, make_app
from service.jobs.upkeep import tidy
from service.observe import logs, metric_files
from service.observe.metrics import of_folder
from service.usage.rollup import roll_up

if TYPE_CHECKING:
    from config.base import Settings

log = logging.getLogger("slipway.jobs")
UPKEEP_SECONDS = 60.0
_CHATTY = (
    "celery.worker.strategy",
    "celery.app.trace",
)  # a line for each message; the run has lines of its own


def create_worker(settings: Settings) -> Celery:
    """The Celery application that `celery -A worker` loads. Raises ValueError without a broker."""
    # Celery warns of root for the sake of pickled messages; ours are JSON and nothing else.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    app = make_app(settings)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_concurrency=settings.task_concurrency,
        worker_enable_remote_control=False,
        worker_proc_alive_timeout=30.0,  # seconds a child may take to make its services
        beat_scheduler="celery.beat:Scheduler",  # keeps nothing: upkeep is due a minute after the start
        beat_schedule={UPKEEP_TASK: {"task": UPKEEP_TASK, "schedule": UPKEEP_SECONDS}},
    )
    child = _Child(settings, app)
    child.listen()

    @app.task(name=RUN_TASK, Request=_LoudRequest)  # type: ignore[untyped-decorator]
    def run(run_id: str) -> None:
        with logs.bound(run_id=run_id):
            child.services.execution.take_up(run_id)

    @app.task(name=UPKEEP_TASK, Request=_LoudRequest)  # type: ignore[untyped-decorator]
    def upkeep() -> None:
        tidy(child.services.db, settings.retention_days)
        roll_up(child.services.db)

    return app


class _LoudRequest(Request):  # type: ignore[misc]
    """A message whose acknowledgement fails ends its connection, and the worker makes another.

    Celery only writes a line when Redis went away over an unacknowledged message. With its prefetch full of those it
    then asks for no more, never looks at the dead connection again, and waits for ever (kombu 5.7).
    """

    acknowledged: bool

    def acknowledge(self) -> None:
        if not self.acknowledged:
            self._on_ack(logger, ())  # no errors to swallow: they reach the consumer's loop
            self.acknowledged = True

    def reject(self, requeue: bool = False) -> None:
        if not self.acknowledged:
            self._on_reject(logger, (), requeue)
            self.acknowledged = True


class _Child:
    """What a process of the pool is made of. In the parent it stays empty."""

    def __init__(self, settings: Settings, app: Celery) -> None:
        self._settings = settings
        self._figures = metric_files.of_tasks(settings.slipway_home / f"metrics-{settings.port}")
        self._wakeup = CeleryWakeup(app)
        self._services: wiring.Services | None = None
        self._stopping = mmap.mmap(
            -1, 1
        )  # one byte that parent and children share: Celery tells only the parent

    @property
    def services(self) -> wiring.Services:
        assert self._services is not None, "the child has not begun"
        return self._services

    def listen(self) -> None:
        """Celery's signals take weak references to functions, unless told otherwise."""
        signals.setup_logging.connect(self._set_up_logs, weak=False)
        signals.worker_init.connect(self._count_from_nought, weak=False)
        signals.celeryd_after_setup.connect(self._check_rights, weak=False)  # logs are set up by then
        signals.worker_ready.connect(self._tell_figures, weak=False)
        signals.worker_process_init.connect(self._begin, weak=False)
        signals.worker_process_shutdown.connect(self._end, weak=False)
        signals.worker_shutting_down.connect(self._stop, weak=False)

    def _set_up_logs(self, **_: Any) -> None:
        logs.configure(self._settings.log_format, self._settings.log_level)
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)

    def _count_from_nought(self, **_: Any) -> None:
        """In the parent, before it forks. Not when the app is loaded: the clock loads it too."""
        if not self._settings.metrics_enabled:
            return
        metric_files.clear(self._figures)
        metric_files.join(self._figures)

    def _check_rights(self, **_: Any) -> None:
        """In the parent, once: Celery meets some refusals only when it gives a message back, and names no right."""
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

    def _tell_figures(self, **_: Any) -> None:
        """In the parent, for a task worker that no web server tells the figures of."""
        if self._settings.task_metrics_port and self._settings.metrics_enabled:
            port, host = self._settings.task_metrics_port, self._settings.host
            start_http_server(port, host, of_folder(self._figures))

    def _begin(self, **_: Any) -> None:
        metric_files.forget_the_dead(self._figures)  # this process may take the place of one that was killed
        self._services = wiring.build(
            self._settings, kind="task", wakeup=self._wakeup, draining=lambda: self._stopping[0] == 1
        )
        self._services.catalog.tell()
        self._services.supervisor.start()

    def _stop(self, **_: Any) -> None:
        self._stopping[0] = 1

    def _end(self, **_: Any) -> None:
        if self._services is not None:
            self._services.close()
