"""Gunicorn configuration. The arbiter reads this file before it imports the app and forks the workers."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

from config import ConfigError, Settings, load
from service.infra import forking
from service.observe import metric_files


def _settings() -> Settings:
    try:
        return load()
    except ConfigError as error:
        sys.exit(str(error))


def _reset_metrics(path: Path) -> None:
    """Clear the metric files: no worker of an earlier arbiter is alive."""
    try:
        metric_files.clear(path)
        metric_files.join(path)
    except OSError as error:
        sys.exit(f"Slipway cannot start: SLIPWAY_HOME cannot be written: {path}: {error.strerror}")


def _raise_file_limit() -> None:
    """Raise the open-files limit to the hard limit: each request needs two sockets, its own and the model's."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


settings = _settings()


class ServiceLogger(Logger):
    """Format Gunicorn's own log lines like the service's."""

    access_log_enabled = False  # the app logs each request itself

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log an exception; but for a client that fell silent within a head, which anybody may."""
        if not isinstance(sys.exc_info()[1], BlockingIOError):
            super().exception(msg, *args, **kwargs)

    def setup(self, cfg: Any) -> None:
        from service.observe import logs

        self.cfg = cfg
        logs.configure(settings.log_format, settings.log_level)


bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
worker_class = "service.web.gunicorn_worker.Worker"  # gthread, with errors as problem documents
workers = settings.web_concurrency
threads = settings.threads
worker_connections = threads + 1000  # 1,000 idle keep-alive connections; active ones have a thread
# Headers up to 16 KiB, as in nginx (large_client_header_buffers). Request lines up to 8,190 bytes, Gunicorn's maximum;
# nginx allows twice as much, and the answer is the same 414 from either.
limit_request_field_size = 16 * 1024
limit_request_line = 8190
forwarder_headers = ""  # by default SCRIPT_NAME and PATH_INFO: any client on this machine could set paths
keepalive = 10  # seconds of idle connection after an answer
timeout = 60  # seconds without a worker's heartbeat; no request timeout
graceful_timeout = settings.graceful_timeout
max_requests = 0  # off: a retiring worker would block its place until its last stream has ended
preload_app = False  # each worker creates its own app; only modules are shared, see on_starting
control_socket_disable = True  # its path is in the home folder, which may be read-only
# The heartbeat is a file: on tmpfs, so that it does not wait for a disk.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
logger_class = ServiceLogger


def on_starting(server: Any) -> None:
    """Import the app once, before the fork: a fast start, and shared memory."""
    _raise_file_limit()
    if settings.metrics_enabled:
        _reset_metrics(settings.slipway_home / f"metrics-{settings.port}")
    forking.share("service.app", *(["service.observe.otel"] if settings.otel_exporter_otlp_endpoint else []))


def post_worker_init(worker: Any) -> None:
    """Start threads and connections in the worker: neither survives a fork."""
    from service.web import lifecycle

    # Gunicorn has no hook for SIGTERM: streams poll whether their worker is stopping.
    lifecycle.watch(lambda: bool(worker.alive))
    services = worker.app.wsgi().extensions["slipway"]
    services.pools.add("threads", lambda: worker.serving)
    services.start()


def worker_exit(server: Any, worker: Any) -> None:
    """Close the services, which releases this worker's runs to others at once."""
    if worker.app.callable is not None:
        worker.app.callable.extensions["slipway"].close()


def child_exit(server: Any, worker: Any) -> None:
    """Remove the gauges of the dead worker."""
    metric_files.forget_the_dead(settings.slipway_home / f"metrics-{settings.port}")
