"""Slipway with the agent folder of an example, the example as a process of its own, and the model that both lead to."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import sqlalchemy as sa

from service.store.database import Database
from service.store.schema import holds, ledger
from service.usage.ledger import check
from service.usage.prices import PriceTable
from tests.conftest import RedisServer, Slipway, free_port, slipway_server, wait_until
from tests.examples import house
from tests.examples.house import EXAMPLES, TOKEN, Example
from tests.messages_api.asked import Asked, Said
from tests.messages_api.server import MessagesApi

REFUND = {"input": "Refund order 1001, please.", "cache": "bypass"}
PAUSED = ("run.completed", "run.failed", "run.cancelled", "approval.required")
Told = tuple[str, dict[str, Any]]


@dataclass
class Brake:
    """Script that can hold the model's answers to requests with `at` tool results until it is released."""

    at: int | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def __call__(self, asked: Asked) -> Said:
        if len(asked.results) == self.at:
            self.reached.set()
            self.released.wait(60)
        return house.refunds(asked)

    @contextmanager
    def pulled(self, at: int) -> Iterator[None]:
        """Hold answers until this ends, or until `let_go`."""
        self.at, self.reached, self.released = at, threading.Event(), threading.Event()
        try:
            yield
        finally:
            self.let_go()

    def wait(self) -> None:
        wait_until(self.reached.is_set, "the model call that is held", 60)

    def let_go(self) -> None:
        self.at = None
        self.released.set()


@dataclass
class Desk:
    """Slipway, whose agent `agent` is the example."""

    agent: str
    server: Slipway
    client: httpx2.Client
    api: MessagesApi
    brake: Brake
    database_url: str
    serve: Callable[[], Example]
    example: Example

    def restart(self) -> None:
        """Serve the example again, on its port, after a kill."""
        self.example = self.serve()

    def kill_workers(self) -> None:
        for pid in self.server.workers():
            os.kill(pid, signal.SIGKILL)

    def invoke(self, **body: Any) -> dict[str, Any]:
        answer = self.client.post(f"/v1/agents/{self.agent}/invoke", json={**REFUND, **body})
        run_id = answer.headers.get("Location", "").rpartition("/")[2] or answer.json().get("run_id")
        assert run_id, answer.text
        return self.run(run_id)

    def begin(self) -> str:
        """Begin a run, whose client leaves at once; return its id."""
        with self.client.stream("POST", f"/v1/agents/{self.agent}/stream", json=REFUND) as answer:
            lines = (line for line in answer.iter_lines() if line.startswith("id: "))
            return next(lines).removeprefix("id: ").partition(":")[0]

    def session(self) -> str:
        return str(self.client.post("/v1/sessions", json={"agent": self.agent}).json()["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/v1/runs/{run_id}").json()
        return found

    def ended(self, run_id: str, *statuses: str) -> dict[str, Any]:
        """Wait for one of these statuses."""
        wanted = statuses or ("succeeded", "failed", "cancelled")
        found: dict[str, Any] = wait_until(
            lambda: run if (run := self.run(run_id))["status"] in wanted else None, f"{wanted}", 90
        )
        return found

    def decide(self, run_id: str, decision: str, **body: Any) -> None:
        (pending,) = (
            one
            for one in self.client.get("/v1/approvals", params={"status": "pending"}).json()["data"]
            if one["run_id"] == run_id
        )
        answer = self.client.post(f"/v1/approvals/{pending['id']}", json={"decision": decision, **body})
        assert answer.status_code == 200, answer.text

    def events(self, run_id: str) -> list[Told]:
        """Return all events of a run, as the API lists them."""
        told = self.client.get(f"/v1/runs/{run_id}/events", headers={"Accept": "application/json"}).json()
        return [(one["event"], one["data"]) for one in told["data"]]

    def stream(self, **body: Any) -> list[Told]:
        """Return the events of a streamed run up to its end, or to its first question."""
        told: list[Told] = []
        with self.client.stream("POST", f"/v1/agents/{self.agent}/stream", json={**REFUND, **body}) as answer:
            name = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    told.append((name, json.loads(line.removeprefix("data: "))))
                elif told and told[-1][0] in PAUSED:
                    break
        return told

    def paid(self, run_id: str) -> list[int]:
        """Return the nano-dollars of each model call of a run in the ledger."""
        wanted = (ledger.c.run_id == run_id, ledger.c.account == "upstream", ledger.c.kind == "settle")
        return [abs(row[0]) for row in self._rows(sa.select(ledger.c.amount_nano).where(*wanted))]

    def assert_books_balance(self) -> None:
        """Check the ledger, and that nothing is held."""
        assert self._rows(sa.select(holds.c.id)) == []
        db = Database(self.database_url, pool_size=2)
        try:
            checked = check(db, PriceTable.load())
        finally:
            db.engine.dispose()
        assert (checked.faults, checked.held) == ([], 0)

    def _rows(self, statement: Any) -> list[Any]:
        return selected(self.database_url, statement)


def selected(database_url: str, what: Any) -> list[Any]:
    """Return the rows of a statement or a table."""
    db = Database(database_url, pool_size=2)
    try:
        with db.engine.connect() as connection:
            return list(connection.execute(sa.select(what) if isinstance(what, sa.Table) else what))
    finally:
        db.engine.dispose()


@contextmanager
def desk(
    folder: str, python: Path, home: Path, redis: RedisServer, database_url: str, **settings: str
) -> Iterator[Desk]:
    """Slipway with an example of this folder, whose address is the only thing changed in its agent's folder."""
    port, brake = free_port(), Brake()
    agents = home / "agents"
    (source,) = (EXAMPLES / folder / "agent").iterdir()
    (agents / source.name).mkdir(parents=True)
    for path in source.iterdir():
        text = path.read_text()
        (agents / source.name / path.name).write_text(text.replace(_port_in(text), f":{port}/"))
    host = f"127.0.0.1:{port}"
    own = {"AGENTS_DIR": str(agents), "REMOTE_HOSTS": host, "REMOTE_CREDENTIALS": f"{host}={TOKEN}"}
    own |= {"DATABASE_URL": database_url, "LEASE_SECONDS": "3", "WEB_CONCURRENCY": "2", "THREADS": "12"}
    api = MessagesApi(brake)
    with ExitStack() as stack:
        stack.callback(api.close)
        stack.callback(brake.let_go)
        server = stack.enter_context(slipway_server(home / "slipway", redis.url, api.url, **own, **settings))

        def serve() -> Example:
            return stack.enter_context(house.served(EXAMPLES / folder, python, home, port))

        client = stack.enter_context(server.client())
        yield Desk(source.name, server, client, api, brake, database_url, serve, serve())


def _port_in(text: str) -> str:
    """Return the port that an agent.yaml names, as `:9300/`."""
    words = [word for word in text.split() if word.startswith("http://")]
    return f":{urlsplit(words[0]).port}/" if words else "\0"
