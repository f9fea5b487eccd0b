"""A lead with two sub-agents, before a model that answers by what it is asked: branches ask in any order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.store import steps as step_rows
from service.types import Event, Run, RunEvent
from service.usage.ledger import check
from service.wiring import Services
from tests.llm.wire_server import Exchange, Handler
from tests.runs import inside, scripted
from tests.runs.scripted import TOOLS, calls, message, says, stream_of
from tests.usage.house import TABLE

TIER = "tier: {default: simple, ask: false}\n"
LEAD = f"""description: A lead.
pattern: orchestrator
{TIER}agents: [writer, worker]
tree: {{at_once: 2, usd: "0.10"}}
limits: {{steps: 40, seconds: 20}}
"""
WRITER = f"description: A writer.\npattern: single\n{TIER}limits: {{steps: 1}}\n"
WORKER = f"""description: A worker.
pattern: react
{TIER}tools: [echo, refund]
approvals: [refund]
limits: {{steps: 3}}
"""
AGENTS = {"probe": LEAD, "writer": WRITER, "worker": WORKER}
PLAN = [("writer", "Write of cats."), ("worker", "Work on dogs.")]


class Script:
    """Handler that answers plans with `plan`, joins with "Joined.", and tasks by the first key their turn begins with.

    A reply is a handler, or a list of them: for each turn of that conversation.
    """

    def __init__(self, plan: list[tuple[str, str]], replies: Mapping[str, Handler | list[Handler]]) -> None:
        self.plan = plan
        self.replies = dict(replies)
        self.asked: list[str] = []  # the tasks for which the model was called
        self.joins: list[str] = []  # texts of the joins
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, exchange: Exchange) -> None:
        self.bodies.append(exchange.json)
        self._handler(exchange.json)(exchange)

    def _handler(self, body: dict[str, Any]) -> Handler:
        if "output_config" in body:
            tasks = [{"agent": agent, "task": task} for agent, task in self.plan]
            return message(says(json.dumps({"tasks": tasks})))
        first = _text(body["messages"][0])
        if "<results>" in first:
            self.joins.append(first)
            return stream_of("Join", "ed.") if body.get("stream") else message(says("Joined."))
        self.asked.append(first)
        reply = next((reply for key, reply in self.replies.items() if first.startswith(key)), None)
        if reply is None:
            return message(says(f"Done: {first}"))
        turns = len(body["messages"]) // 2
        return reply[min(turns, len(reply) - 1)] if isinstance(reply, list) else reply


def _text(turn: Mapping[str, Any]) -> str:
    content = turn["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def uses(name: str, arguments: Any, call_id: str = "toolu_1") -> Handler:
    return calls(scripted.call(name, arguments, call_id))


@contextmanager
def services(
    home: Path, redis_url: str, model_url: str, agents: Mapping[str, str] = AGENTS, **settings: Any
) -> Iterator[Services]:
    for name in agents:
        folder = home / "agents" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tools.py").write_text(TOOLS)
    with inside.services(home, redis_url, model_url, agents, **settings) as wired:
        assert wired.agents.faults == ()
        yield wired


def told(wired: Services, run: Run) -> list[RunEvent]:
    """Return the stored events of a run, in the order of its rows."""
    rows = wired.infra.db.query(lambda tx: step_rows.of_run(tx, run.id))
    return [RunEvent(Event(name), data, seq) for row in rows for seq, name, data in row["events"]]


def assert_whole(wired: Services, run_id: str) -> None:
    """Assert that the books are right, that no hold is open, and that every event was told once."""
    run = wired.runs.queries.get(run_id)
    events = told(wired, run)
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    marks = [
        (event.name, event.data.get("branch"), event.data.get("call_id") or event.data["step"])
        for event in events
        if event.name in (Event.STEP_STARTED, Event.TOOL_CALLED, Event.TOOL_FINISHED, Event.USAGE)
    ]
    assert len(marks) == len(set(marks)), marks
    checked = check(wired.infra.db, TABLE)
    assert (checked.faults, checked.held) == ([], 0)


def of_branch(events: list[RunEvent], branch: str) -> list[tuple[str, Any]]:
    return [
        (str(event.name), event.data.get("name")) for event in events if event.data.get("branch") == branch
    ]
