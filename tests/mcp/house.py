"""MCP servers before an agent: the tests' own evil server, configured as an operator would."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from service.tools import ToolContext, ToolResult
from service.tools.runner import ToolRunner
from service.wiring import Services
from tests.llm.wire_server import WireServer
from tests.runs import inside

SERVER = Path(__file__).with_name("evil_server.py")
RISKS = {
    "echo": "read",
    "pay": "write",
    "die": "write",
    "hang": "write",
}
TOOLS = [
    *("echo", "pay", "hang", "flood", "flood_raw", "die", "orders", "structured"),
    *("refuse", "fail", "malformed", "secret", "ask"),  # all but `hidden`
]
AGENT = """description: A test agent.
pattern: react
tier: {default: simple, ask: false}
tools: [%s]
limits: {steps: 4, seconds: 60}
"""


def rules(**changed: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: {"risk": RISKS.get(name, "read"), "timeout_seconds": 20} for name in TOOLS}
    return {name: {**rule, **changed.get(name, {})} for name, rule in plain.items()}


def stdio(folder: Path, **more: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True, parents=True)
    return {"command": [sys.executable, str(SERVER), str(folder)], "tools": rules(), **more}


@contextmanager
def services(
    home: Path,
    redis_url: str,
    upstream: WireServer,
    servers: Mapping[str, Any],
    tools: str = "evil.echo, evil.pay",
    **settings: Any,
) -> Iterator[Services]:
    (home / "mcp.yaml").write_text(yaml.safe_dump({"servers": dict(servers)}))
    with inside.services(home, redis_url, upstream.url, {"probe": AGENT % tools}, **settings) as wired:
        yield wired


def use(
    wired: Services, tool: str, user_id: str = "usr_ada", seconds: float = 60.0, **arguments: Any
) -> ToolResult:
    """Call a tool as a run does."""
    found = wired.mcp.sources[0].tools(Path())[tool]
    context = ToolContext("run_1", user_id, "probe", "toolu_1", time.monotonic() + seconds)
    return ToolRunner().call(found, arguments, context)


def made(folder: Path) -> list[str]:
    """Names of the tools that were called."""
    calls = folder / "calls"
    return [line.split()[0] for line in calls.read_text().splitlines()] if calls.exists() else []


def define(folder: Path, **descriptions: str) -> None:
    (folder / "definitions.json").write_text(json.dumps(descriptions))
