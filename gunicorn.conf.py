"""How Gunicorn serves the app. Its arbiter reads this before it imports the app and forks the workers."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

from config import ConfigError, Settings, load
from service.observe import metric_files

# Containers made beyond those let go until Python looks for circles among them: a request makes thousands and leaves
# none, so looking after every 700 finds nothing, several times in each.
GARBAGE = 25_000
# Bytes; what is larger goes back to the system once it is let go of. glibc would raise the limit with the first
# password that is hashed (19 MiB), and each worker would keep as much from then on.
LARGE = 1 << 20
M_MMAP_THRESHOLD = -3  # malloc.h


def _settings() -> Settings:
    try:
        return load()
    except ConfigError as error:
        sys.exit(str(error))


def _begin_metrics(path: Path) -> None:
    """Count from nought: no worker of an earlier arbiter is alive."""
    try:
        metric_files.clear(path)
        metric_files.join(path)
    except OSError as error:
        sys.exit(f"Slipway cannot start: SLIPWAY_HOME cannot be written: {path}: {error.strerror}")


def _allow_files() -> None:
    """Each request holds a socket, and one to the model; the usual limit of 1,024 files is for other programs."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


settings = _settings()


class OurLogger(Logger):
    """Gunicorn's own lines in the form of ours."""

    access_log_enabled = False  # the app writes one line per request, with more in it

    def setup(self, cfg: Any) -> None:
        from service.observe import logs

        self.cfg = cfg
        logs.configure(settings.log_format, settings.log_level)


bind = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
worker_class = "service.web.gunicorn_worker.Worker"  # gthread, with errors as problem documents
workers = settings.web_concurrency
threads = settings.threads
worker_connections = threads + 1000  # so many may be kept without a request; all others have a thread
# One header may have 16 KiB, as in nginx (large_client_header_buffers). A request line may have 8,190 bytes, Gunicorn's
# own most; nginx lets twice as many through, and the answer is the same 414 from either.
limit_request_field_size = 16 * 1024
limit_request_line = 8190
keepalive = 10  # seconds that a connection is kept after an answer
timeout = 60  # seconds without a heartbeat of the worker, not of a request
graceful_timeout = settings.graceful_timeout
max_requests = 0  # a worker that retires counts as one of the workers until its last stream has ended
preload_app = False  # each worker makes its own app; only the modules are shared, see on_starting
control_socket_disable = True  # it would be in the home folder, which may be read-only
# The heartbeat is a file, and must not wait for a disk.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
logger_class = OurLogger


def on_starting(server: Any) -> None:
    """Import before the fork, once: a quick start, and memory that the workers share.

    What is imported stays: out of the garbage collector's sight it costs neither pauses nor copied pages, and the end
    of a process does not search through it for seconds.
    """
    _allow_files()
    if settings.metrics_enabled:
        _begin_metrics(settings.slipway_home / f"metrics-{settings.port}")
    with suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)
    gc.disable()
    import service.app  # noqa: F401

    gc.freeze()
    gc.set_threshold(GARBAGE)
    gc.enable()


def post_worker_init(worker: Any) -> None:
    """Threads and connections are made here, in the worker: they do not survive a fork."""
    from service.web import lifecycle

    # Gunicorn has no hook for SIGTERM: whoever streams asks whether its worker is to go on.
    lifecycle.watch(lambda: bool(worker.alive))
    worker.app.wsgi().extensions["slipway"].start()


def worker_exit(server: Any, worker: Any) -> None:
    """What this worker still drives is free for others at once."""
    if worker.app.callable is not None:
        worker.app.callable.extensions["slipway"].close()


def child_exit(server: Any, worker: Any) -> None:
    """The gauges of a worker that is gone are not counted any more."""
    metric_files.forget_the_dead(settings.slipway_home / f"metrics-{settings.port}")
