"""Process state that a test may change, the same before every test: tests pass in any order."""

from __future__ import annotations

import logging
import os
import signal
import ssl
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpcore2
import pytest
from flask.testing import FlaskClient

from service.observe import logs
from service.store.actor import SERVICE, act_as, acting_as, current_actor
from service.web.current import Application

# Switches of `logging` that `logs.configure` sets: https://docs.python.org/3/howto/logging.html#optimization
SWITCHES = ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing")
DEFAULTS = {name: getattr(logging, name) for name in SWITCHES}
# SQLAlchemy sets its own on import, or each statement would be logged.
LEVELS = {"root": logging.WARNING, "sqlalchemy": logging.WARNING}
SIGNALS = sorted(
    signal.valid_signals() - {signal.SIGALRM, signal.SIGKILL, signal.SIGSTOP}
)  # pytest-timeout's


class Visitor(FlaskClient):
    """Test client whose requests leave no actor behind: the thread of a test goes on as the service."""

    def open(self, *args: Any, **options: Any) -> Any:
        with acting_as(current_actor()):
            return super().open(*args, **options)


Application.test_client_class = Visitor


_new_ssl_context = httpcore2.default_ssl_context


@cache
def _ssl_context(trust_env: bool, *_files: str | None) -> ssl.SSLContext:
    return _new_ssl_context(_trust_env=trust_env)


def shared_ssl_context(*, _trust_env: bool = True) -> ssl.SSLContext:
    """Share the context between clients: each would read all certificates of this machine, for 40 ms of CPU."""
    return _ssl_context(_trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


httpcore2.default_ssl_context = shared_ssl_context


def reset_logging() -> None:
    """Undo `logs.configure` and bound fields: an application of an earlier test or module may be configured."""
    logs.clear()
    if logging.root.manager.disable:
        logging.disable(logging.NOTSET)
    for name, value in DEFAULTS.items():
        setattr(logging, name, value)
    for logger in (logging.root, *map(logging.getLogger, list(logging.root.manager.loggerDict))):
        if any(type(one).__module__.startswith("service.") for one in logger.handlers):
            logger.handlers = [
                one for one in logger.handlers if not type(one).__module__.startswith("service.")
            ]
        logger.disabled, logger.propagate = False, True
        level = LEVELS.get(logger.name, logging.NOTSET)
        if logger.level != level:  # each change empties the caches of all loggers
            logger.setLevel(level)


def signal_handlers() -> dict[int, Any]:
    """Return the handlers set from Python, by signal number."""
    found = {int(number): signal.getsignal(number) for number in SIGNALS}
    return {number: handler for number, handler in found.items() if handler is not None}


@pytest.fixture(autouse=True)
def process_state() -> Iterator[None]:
    """Reset logging and the actor; restore environment variables, folder, umask and signal handlers after the test."""
    reset_logging()
    act_as(SERVICE)
    environ, folder, handlers = dict(os.environ), os.getcwd(), signal_handlers()
    umask = os.umask(0o022)
    os.umask(umask)
    yield
    os.umask(umask)
    os.chdir(folder)
    for number, handler in signal_handlers().items():
        if handler is not handlers[number]:
            signal.signal(number, handlers[number])
    for name in os.environ.keys() - environ.keys() - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update(environ)
    reset_logging()


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
