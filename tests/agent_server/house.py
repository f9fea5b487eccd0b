"""Agents served alone, as a process, before a scripted Messages API in the gateway's place."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from service.types import now_ms, rfc3339
from tests.conftest import PYTHON, free_port, process, wait_until

TOKEN = "the operator's own"
EVERY_TOOL = ["look", "read", "search_knowledge", "fetch", "calculator", "query_table", "load_skill"]
SINGLE = "description: A test agent.\npattern: single\ntier: {default: simple, ask: false}\n"
REACT = """description: A test agent.
pattern: react
tier: {default: simple, ask: false}
tools: [look]
approvals: []
limits: {steps: 4, seconds: 20}
"""
TOOLS = '''
import time

from service.tools import tool


@tool(idempotent=True, risk="read", trusted=True, timeout=1)
def look(at: str) -> str:
    """Look at something."""
    time.sleep(3 if at == "slow" else 0)
    return f"seen {at}"


@tool(idempotent=True)
def move(what: str) -> str:
    """Move something."""
    return what


@tool(risk="read")
def count() -> int:
    """Count what changes by being counted."""
    return 1
'''


@dataclass
class Piece:
    """A running agent server."""

    url: str
    child: subprocess.Popen[bytes]
    log: Path

    def ask(self, agent: str = "probe", *, token: str = TOKEN, **body: Any) -> httpx2.Response:
        """Answer of one JSON request."""
        return self._post(agent, body, token, "application/json")

    def events(self, agent: str = "probe", **body: Any) -> list[tuple[str, Any]]:
        """Names and data of all events of one request."""
        return events_in(self._post(agent, body, TOKEN, "text/event-stream, application/json").text)

    def _post(self, agent: str, body: dict[str, Any], token: str, accept: str) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token}", "Accept": accept}
        return httpx2.post(f"{self.url}/{agent}", json=body, headers=headers, timeout=60, trust_env=False)


def asks(gateway: str, text: str = "Do it.", **fields: Any) -> dict[str, Any]:
    """Build a body for the gateway's address."""
    given = {
        "input": text,
        "messages": [{"role": "user", "content": text}],
        "context": None,
        "run_id": "run_1",
        "attempt": 1,
        "run_token": "token-of-the-run",
        "base_url": gateway,
        "deadline": rfc3339(now_ms() + 60_000),
        "resume": None,
        "slipway": {"tools": EVERY_TOOL, "untrusted": [], "words": [text]},
    }
    return {**given, **fields}


def events_in(text: str) -> list[tuple[str, Any]]:
    blocks = [block.split("\n") for block in text.split("\n\n") if block.startswith("event: ")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]


def text_of(events: Sequence[tuple[str, Any]]) -> str:
    return "".join(data["text"] for name, data in events if name == "text.delta")


def write(folder: Path, agents: Mapping[str, str], tools: str = TOOLS) -> list[Path]:
    """Write folders, by their agent.yaml."""
    for name, spec in agents.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "agent.yaml").write_text(spec)
        (folder / name / "prompt.md").write_text("Be good.")
        (folder / name / "tools.py").write_text(tools)
    return [folder / name for name in agents]


def command(port: int, folders: Sequence[Path], *options: str) -> list[str]:
    return [PYTHON, "-m", "agent_server", *map(str, folders), "--port", str(port), *options]


@contextmanager
def served(log: Path, folders: Sequence[Path], *options: str, **env: str) -> Iterator[Piece]:
    port = free_port()
    given = {"AGENT_SERVER_TOKEN": TOKEN, "LOG_FORMAT": "json", **env}
    with (
        log.open("wb") as out,
        process(command(port, folders, *options), given, stdout=out, stderr=out) as child,
    ):
        piece = Piece(f"http://127.0.0.1:{port}", child, log)
        answers = lambda: httpx2.get(f"{piece.url}/health", trust_env=False).status_code == 200  # noqa: E731
        wait_until(lambda: child.poll() is not None or answers(), "the agent server")
        assert child.poll() is None, log.read_text()
        yield piece
