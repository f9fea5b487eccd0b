"""Slipway with a person who writes canaries into every field, and somebody whose data stays."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from service.auth.users import User
from service.ids import new_id
from service.privacy.erasure import QUIET_MS
from service.store import identities, schedules
from service.store.identities import Identity
from service.store.schema import erasures
from service.types import now_ms
from service.wiring import Services
from tests.conftest import Model, RedisServer, redis_in
from tests.llm.wire_server import Exchange, WireServer, whole
from tests.made import app_in, close
from tests.privacy.canaries import Canaries, in_redis, in_rows
from tests.usage.conftest import postgres_url, url
from tests.web.made_files import HEADS, block

__all__ = ["postgres_url", "url"]
PASSWORD = "a-password-of-some-length"
AGENT = """\
description: Writes lines, for tests
pattern: {pattern}
tier: {{default: simple}}
{more}
limits: {{steps: 6, seconds: 60}}
"""
AGENTS = {
    "clerk": AGENT.format(pattern="react", more="tools: [write_line]\napprovals: [write_line]"),
    "common": AGENT.format(pattern="single", more="cache: {ttl_seconds: 3600, shared: true, near: true}"),
}
AFAR = """\
description: Answers elsewhere, and asks a model through the gateway
pattern: remote
remote: {{url: "{url}"}}
limits: {{steps: 6, seconds: 60}}
"""
TOOLS = """\
from service.tools import tool


@tool()
def write_line(text: str) -> str:
    \"\"\"Write a line.\"\"\"
    return "written " + text
"""


@dataclass
class House:
    """Application over a database, a Redis of its own and the offline model. Ada's data is to be erased."""

    app: Flask
    redis: RedisServer
    folder: Path
    service: WireServer  # of the agent `afar`
    words: Canaries = field(default_factory=Canaries)
    kept: Canaries = field(default_factory=Canaries)

    @property
    def services(self) -> Services:
        found: Services = self.app.extensions["slipway"]
        return found

    def token(self, user: User) -> str:
        token: str = self.services.auth.tokens.begin(user).public()["access_token"]
        return token

    def ask(self, token: str, name: str, body: Any = None, words: Canaries | None = None) -> TestResponse:
        """Call `METHOD /path`, with a word in each header that is kept or may be."""
        word = (words or self.words).word
        method, path = name.split(" ")
        headers = {"Authorization": f"Bearer {token}", "User-Agent": word(), "X-Request-ID": word()}
        if method == "POST":
            headers["Idempotency-Key"] = word()
        return self.app.test_client().open(path, method=method, json=body, headers=headers, buffered=True)

    def live(self, user: User, words: Canaries, root: str, turns: int) -> None:
        """Let a user do everything that users may do, writing words wherever they may."""
        word, token = words.word, self.token(user)

        def ask(name: str, body: Any = None) -> Any:
            answer = self.ask(token, name, body, words)
            assert answer.status_code // 100 == 2, (name, answer.text)
            return answer.get_json() if answer.is_json else answer.text

        ask("POST /v1/auth/keys", {"name": word()})
        session = ask("POST /v1/sessions", {"agent": "clerk", "title": word(), "metadata": {word(): word()}})[
            "id"
        ]
        ask(f"PATCH /v1/sessions/{session}", {"title": word()})
        schedule = {"agent": "clerk", "input": f"Tell me of {word()}", "cron": "0 6 * * *"}
        missed = self.services.schedules.get(ask("POST /v1/schedules", schedule)["id"]).row
        self.services.infra.db.transact(lambda tx: schedules.update(tx, missed, {"next_at": 1}))
        ask(f"PATCH /v1/schedules/{missed['id']}", {"enabled": False, "input": word()})
        for _ in range(turns):
            more = {"context": {word(): word()}, "metadata": {word(): word()}}
            run = ask("POST /v1/agents/common/invoke", {"input": f"Tell me of {word()}", **more})
            ask(f"POST /v1/runs/{run['run_id']}/feedback", {"score": 1, "comment": word()})
            ask("POST /v1/agents/common/stream", {"input": f"Tell me of {word()}", **more})
            ask("POST /v1/agents/clerk/invoke", {"input": f"Tell me of {word()}", "session_id": session})
            ask("POST /v1/agents/afar/invoke", {"input": f"Tell me of {word()}", **more})
        waiting = [
            ask("POST /v1/agents/clerk/invoke", {"input": f'Call the write_line tool with "{word()}".'})
            for _ in range(3)
        ]
        assert {run["status"] for run in waiting} == {"waiting_approval"}
        for run, decision in zip(waiting, ("approve", "deny"), strict=False):
            decided = {"decision": decision, "comment": word()}
            answer = self.ask(root, f"POST /v1/approvals/{run['approvals'][0]}", decided, words)
            assert answer.status_code == 200, answer.text
            self.services.runs.execution.take_up(run["run_id"])
        for agent, question in (
            ("common", "Tell me of {}"),
            ("clerk", 'Call the write_line tool with "{}".'),
        ):
            task = {"input": question.format(word()), "callback_url": f"https://example.com/{word()}"}
            queued = ask(f"POST /v1/agents/{agent}/tasks", task)
            self.services.runs.execution.take_up(queued["run_id"])
        ask("POST /v1/agents/common/tasks", {"input": f"Tell me of {word()}"})  # stays in the queue
        image = a2b_base64(f"{b2a_base64(HEADS['image/png'] + b'-').decode().strip()}{word()}{word()}")
        content = [block("image/png", image), {"type": "text", "text": word()}]
        messages = [{"role": "user", "content": content}]
        ask("POST /v1/messages", {"model": "common", "max_tokens": 99, "messages": messages})
        self._live_elsewhere(ask, words)

    def _live_elsewhere(self, ask: Callable[..., Any], words: Canaries) -> None:
        """Let a user ask at the doors for other clients: agents, and models themselves."""

        def text() -> str:
            return f"Tell me of {words.word()}"

        kept = ask("POST /v1/responses", {"model": "common", "input": text(), "instructions": text()})
        more = {"metadata": {words.word(): words.word()}}
        on = {"model": "common", "input": text(), "previous_response_id": kept["id"], **more}
        ask("POST /v1/responses", on)
        ask(
            "POST /v1/responses", {"model": "common", "input": text(), "background": True}
        )  # stays in the queue
        for stream in (False, True):
            said = {"messages": [{"role": "user", "content": text()}], "max_tokens": 99, "stream": stream}
            ask("POST /v1/chat/completions", {"model": "common", **said})
            ask("POST /v1/messages", {"model": "claude-haiku-5-5", **said})

    def create(self, words: Canaries, root: str) -> User:
        name = words.word()
        body = {"username": name, "password": PASSWORD}
        answer = self.ask(root, "POST /v1/admin/users", body, words)
        assert answer.status_code == 201, answer.text
        sign_in = {"username": name, "password": PASSWORD}
        for attempt in ({**sign_in, "password": "another-password"}, sign_in):
            self.app.test_client().post("/v1/auth/login", json=attempt, buffered=True)
        found = self.services.auth.users.by_name(name)
        assert found is not None
        identity = Identity("https://idp.example.com", words.word())
        self.services.infra.db.transact(
            partial(identities.insert, identity=identity, user_id=found.id, roles_at=0)
        )
        return found

    def erased(self, user_id: str) -> dict[str, Any]:
        """Erase a user, and look again as after all that was under way."""
        self.services.erasures.erase(user_id)
        db = self.services.infra.db
        with db.begin() as tx:
            tx.execute(erasures.update(), {"asked_at": now_ms() - 2 * QUIET_MS, "next_at": now_ms()})
        self.services.erasures.go_on()
        return self.services.erasures.erase(user_id)

    def answer_afar(self, exchange: Exchange) -> None:
        """Answer as a remote agent: by what the gateway's model says to the question."""
        asked = exchange.json
        message = {"role": "user", "content": asked["input"]}
        body = {"model": "claude-haiku-5-5", "max_tokens": 100, "messages": [message]}
        headers = {"x-api-key": asked["run_token"]}
        client = self.app.test_client()
        told = client.post("/v1/messages", json=body, headers=headers, buffered=True)
        output = told.get_json()["content"][0]["text"] if told.status_code == 200 else ""
        status = "succeeded" if output else "failed"
        whole({"status": status, "output": f"{output} {asked['input']}"})(exchange)

    def state(self) -> Iterator[tuple[str, bytes]]:
        yield from in_redis(self.redis.url)
        yield from in_rows(self.services.infra.db.engine)


@contextmanager
def house_in(folder: Path, url: str, model: Model, scratch: Path, **more: str) -> Iterator[House]:
    """Build a house with its agents in a folder; `more` are further settings."""
    for name, text in AGENTS.items():
        agent = folder / "agents" / name
        agent.mkdir(parents=True, exist_ok=True)
        (agent / "agent.yaml").write_text(text)
        (agent / "prompt.md").write_text("You write lines.")
        (agent / "tools.py").write_text(TOOLS)
    service = WireServer(whole({"status": "failed"}))
    (folder / "agents" / "afar").mkdir(exist_ok=True)
    (folder / "agents" / "afar" / "agent.yaml").write_text(AFAR.format(url=service.url))
    (folder / "agents" / "afar" / "prompt.md").write_text("You answer.")
    more = {"REMOTE_HOSTS": service.url.removeprefix("http://"), **more}
    with redis_in(scratch / new_id("r")) as server:
        settings = {"DATABASE_URL": url, "REDIS_URL": server.url, "ANTHROPIC_BASE_URL": model.url}
        app = app_in(folder, AGENTS_DIR=str(folder / "agents"), **settings, **more)
        try:
            made = House(app, server, folder, service)
            service.otherwise = made.answer_afar
            yield made
        finally:
            close(app)
            service.stop()


@pytest.fixture
def house(tmp_path: Path, url: str, model: Model, scratch: Path) -> Iterator[House]:
    with house_in(tmp_path, url, model, scratch) as made:
        yield made
