"""`flask` without a web server: in this process, over a database of its own and the offline model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from config import load
from service import wiring
from service.app import create_app
from service.runs.recovery.supervisor import ProcessRole
from service.types import Caller, Run, RunRequest
from service.wiring import Services
from tests.conftest import Model, RedisServer
from tests.tables import create_tables

Flask_ = Callable[..., Result]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, model: Model) -> dict[str, str]:
    home = tmp_path_factory.mktemp("cli")
    return {
        "APP_ENV": "testing",
        "SLIPWAY_HOME": str(home),
        "REDIS_URL": redis_server.url,
        "ANTHROPIC_BASE_URL": model.url,
        "LOG_LEVEL": "ERROR",
    }


@pytest.fixture(scope="module")
def whole(env: dict[str, str]) -> Iterator[Flask]:
    """Not named `app`: pytest-flask would push that one's context around every command."""
    settings = load(env)
    services = wiring.build(settings, ProcessRole("cli"))  # `web` would take up the runs that a test abandons
    app = create_app(settings, services)
    create_tables(services.infra.db.engine)
    services.auth.users.create("root", "root-password", "admin")
    services.auth.users.create("ada", "ada-password")
    services.runs.supervisor.start()  # a lease, without which no run is executed
    yield app
    services.close()


@pytest.fixture
def services(whole: Flask) -> Services:
    found: Services = whole.extensions["slipway"]
    return found


@pytest.fixture
def flask(whole: Flask, model: Model) -> Flask_:
    """Run a command; it must succeed unless `code` says otherwise."""
    model.reset()

    def run(*words: str, code: int = 0, stdin: str | None = None) -> Result:
        result = whole.test_cli_runner().invoke(args=list(words), input=stdin)
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return run


def table(result: Result) -> list[list[str]]:
    return [line.split() for line in result.stdout.splitlines()]


def a_run(services: Services, text: str = "What is 17 * 23?", agent: str = "analyst", **more: Any) -> Run:
    """Run a real request of user ada to its end."""
    user = services.auth.users.by_name("ada")
    assert user is not None
    asked = RunRequest(agent, ({"role": "user", "content": text},), cache="bypass", **more)
    return services.runs.start.invoke(Caller(user.id, "ada", "user"), asked, None, "req-1").run
