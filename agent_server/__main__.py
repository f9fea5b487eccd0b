"""`python -m agent_server agents/research --port 9100`: load the folders, then serve until a signal."""

from __future__ import annotations

import os
import sys
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from agent_server.app import create_app
from agent_server.folders import FolderFaults, load
from agent_server.settings import Settings, parse
from service.observe import logs
from service.usage.prices import PriceTable

IDLE_CONNECTIONS = 100  # besides those that have a thread
SPARE_THREADS = 4  # for health, cancels and refusals while every place is taken


def main(argv: list[str] | None = None) -> None:
    """Parse the settings, load the folders, serve. Exits with the faults of all folders."""
    settings = parse(argv)
    prices = PriceTable.load()
    try:
        agents = load(settings, prices)
    except FolderFaults as faults:
        sys.exit(f"The agent server cannot start:\n{faults}")
    Server(settings, create_app(settings, agents, prices)).run()


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn with one worker process, which is started again where it dies."""

    def __init__(self, settings: Settings, app: Flask) -> None:
        self._settings = settings
        self._app = app
        super().__init__()

    def load_config(self) -> None:
        settings, threads = self._settings, self._settings.at_once + SPARE_THREADS
        host = f"[{settings.host}]" if ":" in settings.host else settings.host

        class ServiceLogger(Logger):  # type: ignore[misc]
            """Lines of Gunicorn as Slipway writes its own."""

            def setup(self, cfg: Any) -> None:
                self.cfg = cfg
                logs.configure(settings.log_format, settings.log_level)

        chosen = {
            "bind": f"{host}:{settings.port}",
            "worker_class": "gthread",
            "workers": 1,
            "threads": threads,
            "worker_connections": threads + IDLE_CONNECTIONS,
            "graceful_timeout": settings.graceful_timeout,
            "keepalive": 10,
            "timeout": 60,
            "control_socket_disable": True,
            "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,
            "logger_class": ServiceLogger,
            "worker_exit": lambda server, worker: self._app.extensions["tracer"].close(),
        }
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return self._app


if __name__ == "__main__":
    main()
