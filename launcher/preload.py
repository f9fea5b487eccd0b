"""Modules imported by the launcher for its programs: these are forked from it, and share this memory."""

from __future__ import annotations

import gc
from importlib import import_module

# By name, for the launcher itself calls none of them.
MODULES = (
    "service.app",
    "service.web.gunicorn_worker",
    "gunicorn.app.wsgiapp",
    "service.jobs.celery_worker",
    "celery.bin.worker",
    "celery.apps.worker",
    "celery.worker.worker",
    "celery.worker.autoscale",
    "celery.worker.consumer",
    "celery.concurrency.prefork",
    "kombu.transport.redis",
    "offline_model.api",
    "offline_model.server",
    "mcp_servers.appointments",
    "mcp_servers.mail",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "valkey",
    "encodings.utf_8_sig",
)


def load() -> bool:
    """Import the modules. False where one cannot be imported: its program, started by itself, then tells why."""
    gc.disable()
    try:
        for name in MODULES:
            import_module(name)
    except Exception:
        return False
    finally:
        gc.freeze()  # a collection would write to each object, and so copy its page
        gc.enable()
    return True
