"""Actors of all transactions that write: of every route, of a run on any thread, of a command, of the service."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask

from service.auth.users import User
from service.cli.common import Commands
from service.ids import new_id
from service.jobs.upkeep import delete_expired
from service.store import memory
from service.store.actor import SERVICE, Actor
from service.store.database import Database, Transaction
from service.store.memory import Holder, Writing
from service.types import Caller, RunRequest
from service.web import page_cookie
from tests.conftest import Model
from tests.made import app_in, close
from tests.rules.test_routes import routes
from tests.rules.test_visibility import OBJECTS
from tests.rules.world import AGENT, PASSWORD, World
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
QUESTION = {"input": "How do I get a refund?", "cache": "bypass"}
# A body for every route that writes.
# With the token of a run: `tests/gateway/test_messages.py` has the test of their actor.
# Those that write nothing, as `tests/runs/test_estimates.py` and `tests/gateway/test_keys.py` show.
READS = {"POST /v1/agents/<agent>/estimate", "POST /v1/messages/count_tokens"}
REQUESTS: dict[str, dict[str, Any] | None] = {
    "POST /page/renew": None,
    "POST /page/sign-in": {"username": "root", "password": PASSWORD},
    "POST /page/sign-out": None,
    "PUT /v1/admin/budgets/<path:scope>": {"amount_usd": "5", "period": "day"},
    "POST /v1/admin/users": {"username": "carol", "password": PASSWORD},
    "PATCH /v1/admin/users/<user_id>": {"role": "operator"},
    "DELETE /v1/admin/users/<user_id>": None,
    "POST /v1/admin/users/<user_id>/erase": None,
    "DELETE /v1/admin/users/<user_id>/keys/<key_id>": None,
    "DELETE /v1/admin/users/<user_id>/logins": None,
    "POST /v1/admin/workspaces": {"name": "acme"},
    "PATCH /v1/admin/workspaces/<workspace_id>": {"name": "acme-two"},
    "DELETE /v1/admin/workspaces/<workspace_id>": None,
    "POST /v1/admin/agents/<agent>/release": None,
    "POST /v1/admin/agents/<agent>/versions": {"action": "publish"},
    "POST /v1/admin/agents/<agent>/stop": {"reason": "canary"},
    "POST /v1/admin/knowledge/<agent>": {"name": "a.md", "text": "# A\nWords.", "category": "billing"},
    "DELETE /v1/admin/knowledge/<agent>/<document_id>": None,
    "POST /v1/agents/<agent>/invoke": QUESTION,
    "POST /v1/messages": {
        "model": "claude-haiku-5-5",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "Hello"}],
    },
    "POST /v1/chat/completions": {"model": "assistant", "messages": [{"role": "user", "content": "Hello"}]},
    "POST /v1/responses": {"model": "assistant", "input": "Hello"},
    "DELETE /v1/responses/<response_id>": None,
    "POST /v1/responses/<response_id>/cancel": None,
    "POST /v1/agents/<agent>/stream": QUESTION,
    "POST /v1/agents/<agent>/tasks": QUESTION,
    "POST /v1/approvals/<approval_id>": {"decision": "deny"},
    "POST /v1/auth/keys": {"name": "k"},
    "PATCH /v1/auth/keys/<key_id>": {"limit_runs": "5/minute"},
    "POST /v1/auth/keys/<key_id>/rotate": {},
    "DELETE /v1/auth/keys/<key_id>": None,
    "POST /v1/auth/login": {"username": "root", "password": PASSWORD},
    "POST /v1/auth/logout": None,
    "POST /v1/auth/refresh": None,
    "POST /v1/runs/<run_id>/cancel": None,
    "POST /v1/runs/<run_id>/feedback": {"score": 1},
    "POST /v1/runs/<run_id>/fork": {"from_step": 1},
    "POST /v1/schedules": {"agent": AGENT, "input": "Report.", "cron": "0 6 * * *"},
    "PATCH /v1/schedules/<schedule_id>": {"enabled": False},
    "DELETE /v1/schedules/<schedule_id>": None,
    "PUT /v1/memory/<note_key>": {"text": "Writes British English."},
    "DELETE /v1/memory/<note_key>": None,
    "POST /v1/sessions": {"agent": AGENT},
    "PATCH /v1/sessions/<session_id>": {"title": "New"},
    "DELETE /v1/sessions/<session_id>": None,
}
SIGNED_IN = ("/v1/auth/", "/page/")  # routes that take no API key


class Write(NamedTuple):
    """Transaction that writes: the name of its thread, and its actor."""

    thread: str
    actor: Actor


def watched(db: Database, monkeypatch: pytest.MonkeyPatch) -> list[Write]:
    """List the transactions that write from now on."""
    found: list[Write] = []
    transact = db.transact

    def watching(work: Callable[[Transaction], Any], **options: Any) -> Any:
        def noting(tx: Transaction) -> Any:
            found.append(Write(threading.current_thread().name, tx.actor))
            return work(tx)

        return transact(noting, **options)

    monkeypatch.setattr(db, "transact", watching)
    return found


@pytest.fixture
def app(tmp_path: Path, url: str, model: Model) -> Iterator[Flask]:
    model.reset()
    made = app_in(tmp_path, DATABASE_URL=url, ANTHROPIC_BASE_URL=model.url)
    yield made
    close(made)


@pytest.fixture
def root(app: Flask) -> User:
    found: User = app.extensions["slipway"].auth.users.create("root", PASSWORD, "admin")
    return found


def path_of(world: World, rule: str) -> str:
    """Path of a new object that the route of `rule` may change."""
    services = world.services
    argument = next(iter(re.findall(r"<(?:\w+:)?(\w+)>", rule)), "")
    if rule.endswith("/fork"):
        return rule.replace("<run_id>", world.ended_run(world.ada.id))
    if argument in OBJECTS:
        return rule.replace(f"<{argument}>", world.make(OBJECTS[argument]))
    if argument == "user_id":
        user_id = services.auth.users.create(new_id("bob"), PASSWORD).id
        if "<key_id>" in rule:
            rule = rule.replace("<key_id>", services.auth.keys.create(user_id, "old")["id"])
        return rule.replace("<user_id>", user_id)
    if argument == "workspace_id":
        row = services.auth.workspaces.new_row(f"w{time.monotonic_ns()}")
        services.infra.db.transact(lambda tx: services.auth.workspaces.insert(tx, row))
        return rule.replace("<workspace_id>", row["id"])
    if argument == "note_key":
        about = Holder(world.ada.id)
        services.infra.db.transact(lambda tx: memory.put(tx, about, "language", "x", Writing()))
        return rule.replace("<note_key>", "language")
    if argument == "key_id":
        return rule.replace("<key_id>", services.auth.keys.create(world.ada.id, "old")["id"])
    if "<document_id>" in rule:
        rule = rule.replace("<document_id>", world.make("doc"))
    if rule.endswith("/release"):
        services.infra.db.transact(lambda tx: services.runs.stops.stop(tx, AGENT, "x"))
    return rule.replace("<agent>", AGENT).replace("<path:scope>", "service")


def test_every_route_that_writes_acts_as_its_caller(
    app: Flask, root: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = app.extensions["slipway"]
    key = services.auth.keys.create(root.id, "k")
    tokens = services.auth.tokens.begin(root).public()
    world = World(app, root, {})
    names = sorted({name for name, _ in routes(app) if not name.startswith("GET ")} - READS)
    assert names == sorted(REQUESTS), "add a request for a route that writes"
    for name in sorted(names, key=lambda name: ("logout" in name, name.endswith("stop"))):
        method, rule = name.split(" ")
        path = path_of(world, rule)
        by_token = rule.startswith(SIGNED_IN)
        bearer = tokens["refresh_token" if "refresh" in rule else "access_token"] if by_token else key["key"]
        with monkeypatch.context() as patch:
            writes = watched(services.infra.db, patch)
            headers = {"Authorization": f"Bearer {bearer}"}
            client = app.test_client()
            if rule.startswith("/page/"):
                headers = {page_cookie.HEADER: "1"}
                client.set_cookie("slipway", services.auth.tokens.begin(root).refresh_token)
                writes.clear()
            with client.open(
                path, method=method, json=REQUESTS[name], headers=headers, buffered=True
            ) as answer:
                assert answer.status_code // 100 == 2, (name, answer.text)
        if "refresh" in rule:
            tokens = answer.get_json()
        actor = Actor("user", root.id, None if by_token else key["id"])
        wrote = {write.actor for write in writes if write.thread == "MainThread"}
        assert {one._replace(family=None, role=None) for one in wrote} == {actor}, name


def test_request_without_a_caller_is_not_that_of_the_last_one(app: Flask, root: User) -> None:
    """A thread serves one request after another."""
    seen: list[Actor] = []
    services = app.extensions["slipway"]
    app.add_url_rule(
        "/seen", view_func=lambda: seen.append(services.infra.db.query(lambda tx: tx.actor)) or ""
    )
    key = services.auth.keys.create(root.id, "k")["key"]
    client = app.test_client()
    assert client.get("/v1/runs", headers={"X-Api-Key": key}).status_code == 200
    client.get("/seen")
    assert seen == [Actor("anonymous")]


def test_run_acts_as_its_user_on_any_thread_and_the_service_before_and_after(
    app: Flask, root: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = app.extensions["slipway"]
    asked = RunRequest(AGENT, ({"role": "user", "content": QUESTION["input"]},), cache="bypass")
    caller = Caller(root.id, "root", "admin", key_id="key_1")
    run = services.runs.start.queue(caller, asked, None, "req").run
    writes = watched(services.infra.db, monkeypatch)

    def work() -> None:
        services.runs.execution.take_up(run.id)
        delete_expired(services.infra.db, 400)

    worker = threading.Thread(target=work)
    worker.start()
    worker.join(60)
    assert services.runs.queries.get(run.id).status == "succeeded"
    actors = [write.actor for write in writes if write.thread == worker.name]
    of_run = [number for number, actor in enumerate(actors) if actor == Actor("user", root.id, "key_1")]
    assert len(of_run) >= 2 and of_run == list(range(1, 1 + len(of_run)))  # after the claim
    assert {actors[0], *actors[of_run[-1] + 1 :]} == {SERVICE}


def test_command_acts_as_the_command_line(app: Flask, root: User, monkeypatch: pytest.MonkeyPatch) -> None:
    db = app.extensions["slipway"].infra.db
    groups = [group for name, group in app.cli.commands.items() if name != "doctor"]  # which writes nothing
    assert all(isinstance(group, Commands) for group in groups)
    writes = watched(db, monkeypatch)
    done = app.test_cli_runner().invoke(args=["budgets", "set", "service", "5"])
    assert done.exit_code == 0, done.output
    assert {write.actor for write in writes} == {Actor("cli")}
