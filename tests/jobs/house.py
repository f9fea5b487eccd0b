"""Service with its own task workers, and a webhook receiver."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from tests.conftest import PYTHON, Model, RedisServer, Slipway, process, wait_until
from tests.guardian import children_of

CELERY = [PYTHON, "-m", "celery", "--quiet", "-A", "worker", "worker", "--without-mingle", "--without-gossip"]


@dataclass
class TaskWorker:
    """Celery's parent process with its pool; `kept` ones are started again when they end, as a supervisor would."""

    env: Mapping[str, str]
    log: Path
    command: Sequence[str] = tuple(CELERY)
    starts: int = 0
    child: subprocess.Popen[bytes] | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[TaskWorker]:
        with (
            self.log.open("ab") as out,
            process([*self.command], dict(self.env), stdout=out, stderr=out) as self.child,
        ):
            self.starts += 1
            yield self

    @contextmanager
    def kept(self) -> Iterator[TaskWorker]:
        thread = threading.Thread(target=self._keep)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _keep(self) -> None:
        while not self._stop.is_set():
            with self.running():
                assert self.child is not None
                while self.child.poll() is None and not self._stop.wait(0.1):
                    pass
            self._stop.wait(0.2)

    def pool(self) -> list[int]:
        """Return the pids of the pool processes."""
        assert self.child is not None
        return children_of(self.child.pid)

    def kill(self) -> None:
        """Kill the worker with its pool, as in a power failure."""
        assert self.child is not None
        os.killpg(self.child.pid, signal.SIGKILL)

    def kill_one(self) -> None:
        os.kill(self.pool()[-1], signal.SIGKILL)


class Delivery(NamedTuple):
    headers: Mapping[str, str]
    body: bytes


class _Server(ThreadingHTTPServer):
    request_queue_size = 128


class Receiver:
    """Webhook receiver. Answers with `statuses` in turn, then with 200."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.statuses: list[int] = []
        self._server = _Server(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of(self, run_id: str) -> list[Delivery]:
        return [delivery for delivery in self.deliveries if run_id.encode() in delivery.body]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.deliveries.append(Delivery(dict(self.headers), body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@dataclass
class House:
    server: Slipway
    redis: RedisServer
    model: Model
    receiver: Receiver

    def worker(self, name: str, **settings: str) -> TaskWorker:
        return TaskWorker({**self.server.env, **settings}, self.server.log.with_name(f"worker-{name}.log"))

    def queue(self, client: httpx2.Client, text: str, agent: str = "assistant", **more: Any) -> str:
        answer = client.post(f"/v1/agents/{agent}/tasks", json={"input": text, **more})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run_id"])

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Straight into SQLite."""
        with (
            closing(sqlite3.connect(self.server.log.parent / "slipway.db", timeout=10)) as connection,
            connection,
        ):
            return connection.execute(statement, values).fetchall()


def ended(client: httpx2.Client, run_id: str, timeout: float = 60.0) -> dict[str, Any]:
    """Wait for a run to end; return it."""

    def look() -> Any:
        run = client.get(f"/v1/runs/{run_id}").json()
        return run if run["status"] in ("succeeded", "failed", "cancelled") else None

    found: dict[str, Any] = wait_until(look, f"the end of {run_id}", timeout)
    return found


def until(look: Callable[[], Any], what: str, timeout: float = 60.0) -> Any:
    """Variant of `wait_until` for expensive checks."""

    def slowly() -> Any:
        time.sleep(0.1)
        return look()

    return wait_until(slowly, what, timeout)
