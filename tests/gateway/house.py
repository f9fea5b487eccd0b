"""A run under way whose token a test holds, and the gateway over HTTP, before a model that answers by a script."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import sqlalchemy as sa
from werkzeug.serving import make_server

from service.app import create_app
from service.auth.run_tokens import TokenStep
from service.runs.attempt import Attempt
from service.runs.gateway_steps import GatewaySteps
from service.runs.journal import Journal
from service.runs.slots import Handle
from service.store import runs as run_rows
from service.store import steps as step_rows
from service.store.schema import gateway_calls, holds, ledger
from service.types import Caller, Run, RunEvent
from service.wiring import Services
from tests.described import Description
from tests.messages_api.asked import Asked, Said
from tests.messages_api.server import MessagesApi
from tests.runs import inside
from tests.runs.inside import ADA

MODEL = "claude-haiku-5-5"
SPEC = "description: A test agent.\npattern: single\nlimits: {steps: 20, seconds: 60}\n"
HELLO = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}


def says_hello(asked: Asked) -> Said:
    return Said([{"type": "text", "text": f"Answer {len(asked.prompt)}."}])


@dataclass
class Gateway:
    """The gateway at `url`. `api` is the model."""

    services: Services
    api: MessagesApi
    url: str
    client: httpx2.Client  # one for all: to make one takes longer than a call

    def run(self, caller: Caller = ADA, **fields: Any) -> Run:
        """Begin a run that this worker executes, and that does nothing by itself."""
        run = self.services.runs.start.new_runs.make(caller, inside.request("Go.", **fields), "wait", "req")
        self.services.runs.start.new_runs.open(run, None)
        return run

    def token(self, run: Run, most_calls: int = 20) -> str:
        tokens = self.services.auth.run_tokens
        return tokens.issue(run, TokenStep(1, "probe"), seconds=60, most_calls=most_calls)

    def steps(self, run: Run) -> GatewaySteps:
        """Return what the run's worker issues tokens and tells gateway calls with."""
        services = self.services
        spending, tokens = services.usage.spending, services.auth.run_tokens
        return GatewaySteps(services.infra.db, spending, tokens, self.attempt(run), "probe")

    def attempt(self, run: Run) -> Attempt:
        stored = self.services.infra.db.query(lambda tx: step_rows.of_run(tx, run.id))
        journal = Journal(self.services.infra.db, run, self.told.extend, stored=stored)
        return Attempt(run, journal, Handle(run.id, 60, run.attempt))

    @property
    def told(self) -> list[RunEvent]:
        return _told.setdefault(id(self), [])

    def again(self, run: Run) -> Run:
        """Let another worker claim the run: its next attempt."""
        db = self.services.infra.db
        assert db.transact(lambda tx: run_rows.abandon(tx, run.id, run.attempt))
        assert db.transact(lambda tx: run_rows.claim(tx, run.id, "wrk_other"))
        found = db.query(lambda tx: run_rows.get(tx, run.id))
        assert found is not None
        return found

    def sdk(self, token: str) -> anthropic.Anthropic:
        return anthropic.Anthropic(api_key=token, base_url=self.url, max_retries=0)

    def post(
        self, token: str, body: Any = HELLO, path: str = "/v1/messages", **headers: str
    ) -> httpx2.Response:
        """Post; the answer is checked against `/openapi.json`."""
        sent = {"x-api-key": token, **headers}
        answer = self.client.post(path, json=body, headers=sent)
        self.description.hook(answer)
        return answer

    @cached_property
    def description(self) -> Description:
        return Description.of(self.url)

    @property
    def spent(self) -> int:
        """Nano-dollars of model calls in the ledger."""
        query = sa.select(sa.func.coalesce(sa.func.sum(ledger.c.amount_nano), 0).label("sum"))
        query = query.where(ledger.c.account == "upstream")
        row = self.services.infra.db.query(lambda tx: tx.row(query))
        assert row is not None
        return abs(int(row["sum"]))

    def rows(self, table: sa.Table = gateway_calls) -> list[Any]:
        return self.services.infra.db.query(lambda tx: tx.rows(sa.select(table)))

    @property
    def held(self) -> int:
        return len(self.rows(holds))


_told: dict[int, list[RunEvent]] = {}


@contextmanager
def gateway(
    home: Path, redis_url: str, script: Any = says_hello, specs: dict[str, str] | None = None, **settings: Any
) -> Iterator[Gateway]:
    api = MessagesApi(script)
    try:
        with inside.services(home, redis_url, api.url, specs or {"probe": SPEC}, **settings) as wired:
            server = make_server("127.0.0.1", 0, create_app(wired.settings, wired), threaded=True)
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            url = f"http://127.0.0.1:{server.server_port}"
            try:
                with httpx2.Client(
                    base_url=url, timeout=30, limits=httpx2.Limits(), trust_env=False
                ) as client:
                    made = Gateway(wired, api, url, client)
                    assert made.description  # read before a test takes every thread
                    yield made
            finally:
                server.shutdown()
                server.server_close()
    finally:
        api.close()
