"""An agent with guardrails, and a tool that reads and one that writes, before a model that answers as scripted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service.audit.record import Action
from service.store import schema
from service.store.database import Row
from service.types import DEFAULT_WORKSPACE, Event, Run, RunEvent
from service.wiring import Services
from tests.llm.wire_server import WireServer
from tests.runs import inside, scripted

MAIL = "ada.lovelace@engine.example"  # of the user
OTHER = "grace.hopper@navy.example"  # in the result of a tool
TIER = "tier: {default: simple, ask: false}\n"
SPEC = f"""description: A guarded agent.
pattern: react
{TIER}tools: [look_up, send]
limits: {{steps: 4, seconds: 20}}
"""
IN, OUT = "guardrails: {input: {email: redact}}\n", "guardrails: {output: {email: redact}}\n"
BOTH = "guardrails: {input: {email: redact}, output: {email: redact}}\n"
TOOLS = f'''
from service.tools import tool


@tool(idempotent=True, risk="read", trusted=True)
def look_up(who: str) -> str:
    """Look a person up."""
    return "Her address is {OTHER}, and his is alan.turing@bletchley.example" if who == "all" else f"{{who}}: {OTHER}"


@tool(trusted=True)
def send(to: str) -> str:
    """Send a mail."""
    return f"sent to {{to}}"
'''


@contextmanager
def services(
    home: Path, redis_url: str, upstream: WireServer, rails: str, spec: str = SPEC, **settings: Any
) -> Iterator[Services]:
    folder = home / "agents" / "probe"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tools.py").write_text(TOOLS)
    with inside.services(home, redis_url, upstream.url, {"probe": spec + rails}, **settings) as wired:
        yield wired


def sent(wired: Services, run: Run) -> list[str]:
    """Return what the tools of a run returned, as it is stored."""
    rows = [row["reply"] for row in scripted.kept(wired, run) if row["kind"] == "tools"]
    return [result["content"] for reply in rows for result in reply["results"]]


def acted(events: list[RunEvent]) -> list[tuple[str, str, str, int]]:
    """Return where, kind, action and count of each `guardrail` event."""
    found = [event.data for event in events if event.name is Event.GUARDRAIL]
    return [(one["where"], one["kind"], one["action"], one["count"]) for one in found]


def audited(wired: Services) -> list[Row]:
    """Return the audit rows of guardrails, oldest first."""
    rows = (
        sa.select(schema.audit).where(schema.audit.c.action == Action.GUARDRAIL).order_by(schema.audit.c.id)
    )
    return wired.infra.db.query(lambda tx: tx.rows(rows))


def of_workspace(wired: Services, guardrails: dict[str, Any]) -> None:
    """Replace the guardrails of the workspace `default`, in force at once."""
    wired.auth.workspaces.change(DEFAULT_WORKSPACE, guardrails=guardrails)
    wired.runs.start.guardrails.forget()
