"""Slipway whose agents write lines after an approval."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Model, RedisServer, Slipway, slipway_server, wait_until
from tests.web.test_doors import events_of

AGENT = """\
description: Writes lines, for tests
pattern: react
tier: {{default: simple}}
tools: [{tool}]
approvals: [{asks}]
limits: {{steps: 6, seconds: 60}}
"""
TOOLS = """\
import time
from pathlib import Path

from service.tools import ToolContext, tool

LINES = Path({lines!r})


@tool()
def write_line(text: str) -> str:
    \"\"\"Write a line.\"\"\"
    with LINES.open("a") as file:
        file.write(text + "\\n")
    return "written"


@tool()
def write_slowly(text: str) -> str:
    \"\"\"Write a line, then rest for long.\"\"\"
    write_line.run({{"text": text}}, None)
    time.sleep(20)
    return "written"


@tool(risk="danger")
def wreck_line(text: str) -> str:
    \"\"\"Write a line that must not be wrong.\"\"\"
    return write_line.run({{"text": text}}, None)


@tool()
def mail_line(text: str) -> str:
    \"\"\"Write an address as a line.\"\"\"
    return write_line.run({{"text": text}}, None)


@tool(timeout=0.3)
def write_late(text: str) -> str:
    \"\"\"Write a line, after more time than there is.\"\"\"
    time.sleep(0.8)
    return write_line.run({{"text": text}}, None)
"""
AGENTS = {
    "clerk": ("write_line", "write_line"),
    "sloth": ("write_slowly", ""),
    "late": ("write_late", ""),
    "wrecker": ("wreck_line", ""),
    "mailer": ("mail_line", "mail_line"),
}
CHIEF = """\
description: Has others write lines, for tests
pattern: orchestrator
tier: {default: simple}
agents: [wrecker, mailer]
tree: {tasks: 1, at_once: 1, usd: "0.10"}
limits: {steps: 8, seconds: 60}
"""
POLICIES = 'policies: {mail_line: {allowed_domains: {text: [example.org, "*.example.org"]}}}\n'


@dataclass
class Office:
    """A Slipway whose agents write lines, with its admin and the lines."""

    slipway: Slipway
    admin: httpx2.Client
    lines: Path

    def written(self) -> list[str]:
        return self.lines.read_text().splitlines() if self.lines.exists() else []

    def ask(self, agent: str, text: str, client: httpx2.Client | None = None) -> dict[str, Any]:
        """Start a run whose agent calls its tool with `text`, and wait until the run ends or waits."""
        tool = AGENTS[agent][0] if agent in AGENTS else "wreck_line"
        question = f'Call the {tool} tool with "{text}".'
        answer = (client or self.admin).post(f"/v1/agents/{agent}/invoke", json={"input": question})
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def pending(self, run_id: str) -> list[dict[str, Any]]:
        data = self.admin.get("/v1/approvals?status=pending&limit=100").json()["data"]
        return [approval for approval in data if approval["run_id"] == run_id]

    def question(self, run_id: str) -> dict[str, Any]:
        """The only question about a run, once it is asked."""
        [asked] = wait_until(lambda: self.pending(run_id), "the question")
        return dict(asked)

    def decide(self, approval_id: str, decision: str, **more: Any) -> httpx2.Response:
        return self.admin.post(f"/v1/approvals/{approval_id}", json={"decision": decision, **more})

    def end(self, run_id: str) -> dict[str, Any]:
        """The run's result, once it has ended."""

        def ended() -> dict[str, Any] | None:
            run: dict[str, Any] = self.admin.get(f"/v1/runs/{run_id}").json()
            return run if run["status"] in ("succeeded", "failed", "cancelled") else None

        return dict(wait_until(ended, "the end of the run"))

    def events(self, run_id: str) -> list[tuple[str, str, dict[str, Any]]]:
        """Read the run's events, without the one that only ends the stream."""
        told = events_of(self.admin.get(f"/v1/runs/{run_id}/events").text)
        return [event for event in told if event[1] != "reconnect"]

    def follow(self, run_id: str, after: str) -> AbstractContextManager[httpx2.Response]:
        headers = {"Last-Event-ID": after}
        return self.admin.stream("GET", f"/v1/runs/{run_id}/events", headers=headers)


@contextmanager
def office_server(home: Path, redis_url: str, model_url: str, **settings: str) -> Iterator[Slipway]:
    """Start a Slipway whose agents write lines."""
    settings |= {"AGENTS_DIR": write_agents(home), "WEB_CONCURRENCY": "2", "THREADS": "12"}
    with slipway_server(home, redis_url, model_url, **settings) as server:
        yield server


def write_agents(home: Path) -> str:
    """Write the folders of the agents; return AGENTS_DIR."""
    lines = home / "lines"
    for name, (tool, asks) in AGENTS.items():
        folder = home / "agents" / name
        folder.mkdir(parents=True)
        spec = AGENT.format(tool=tool, asks=asks)
        (folder / "agent.yaml").write_text(spec + (POLICIES if name == "mailer" else ""))
        (folder / "prompt.md").write_text("You write lines with your tool.")
        (folder / "tools.py").write_text(TOOLS.format(lines=str(lines)))
    chief = home / "agents" / "chief"
    chief.mkdir()
    (chief / "agent.yaml").write_text(CHIEF)
    (chief / "prompt.md").write_text("You have others write lines.")
    return str(home / "agents")


@pytest.fixture(scope="module")
def slipway(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, model: Model
) -> Iterator[Slipway]:
    with office_server(tmp_path_factory.mktemp("office"), redis_server.url, model.url) as server:
        yield server


@pytest.fixture(scope="module")
def office(slipway: Slipway) -> Iterator[Office]:
    with closing(slipway.client()) as admin:
        yield office_of(slipway, admin)


def office_of(slipway: Slipway, admin: httpx2.Client) -> Office:
    return Office(slipway, admin, Path(slipway.env["SLIPWAY_HOME"]) / "lines")


@pytest.fixture
def text() -> str:
    """Make a line that no other test writes."""
    return secrets.token_hex(6)


def names(events: list[tuple[str, str, dict[str, Any]]]) -> list[str]:
    return [name for _, name, _ in events]


def in_order(events: list[tuple[str, str, dict[str, Any]]]) -> bool:
    numbers = [int(event_id.rpartition(":")[2]) for event_id, _, _ in events]
    return numbers == list(range(1, len(numbers) + 1))
