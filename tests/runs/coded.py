"""An agent of its own code, with tools, before a model that answers as a test scripts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service.approvals import decide
from service.store import approvals as approval_rows
from service.store import schema
from service.store.approvals import Decision
from service.store.database import Row, Transaction
from service.types import Caller, RunStatus
from service.wiring import Services
from tests.conftest import wait_until
from tests.llm.wire_server import WireServer
from tests.runs import inside

OPERATOR = Caller("usr_ada", "ada", "operator")
SPEC = """\
description: A test agent.
pattern: code
tier: {default: simple, ask: false}
tools: [echo, refund]
limits: {steps: 3, seconds: 20}
"""
HEAD = "from service.agents import Answer, Context, Prompt, answer_of, assistant_turn, tool_turn\n\n\n"
# Function to run once during a call of a tool, by its name, before the tool has returned.
DURING: dict[str, Callable[[], object]] = {}
MADE: list[str] = []  # orders of refunds
TOOLS = """
from service.tools import tool
from tests.runs.coded import DURING, MADE


@tool(idempotent=True, risk="read", trusted=True)
def echo(text: str) -> str:
    \"\"\"Say it again.\"\"\"
    DURING.pop("echo", lambda: None)()
    return text


@tool(trusted=True)
def refund(order: str = "all") -> str:
    \"\"\"Pay money back.\"\"\"
    MADE.append(order)
    DURING.pop("refund", lambda: None)()
    return f"refunded {order}"
"""
# A model step, the calls of its reply, a call by name, and the answer.
WHOLE = """
def run(context):
    messages = list(context.messages)
    plan = Prompt(context.system, messages, tools=True, publish=False)
    reply = yield from context.steps.model("plan", plan)
    results = yield from context.steps.tools("act", reply)
    paid = yield from context.steps.call_tool("pay", "refund", {"order": results[0].content})
    turns = [assistant_turn(reply), tool_turn(reply.tool_uses, results)]
    turns.append({"role": "user", "content": paid.content})
    reply = yield from context.steps.model("answer", Prompt(context.system, messages + turns, tools=True))
    return answer_of(reply)
"""


@contextmanager
def services(
    home: Path, redis_url: str, upstream: WireServer, code: str, spec: str = SPEC, **settings: Any
) -> Iterator[Services]:
    folder = home / "agents" / "probe"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.py").write_text(HEAD + code)
    (folder / "tools.py").write_text(TOOLS)
    MADE.clear()
    with inside.services(home, redis_url, upstream.url, {"probe": spec}, **settings) as wired:
        yield wired
    DURING.clear()


def body(*lines: str) -> str:
    """Code of `run` that ends with an answer unless a line does."""
    return "\n    ".join(
        ["def run(context):", *lines, "yield from ()", 'return Answer("x", "end_turn", "m")\n']
    )


def take_over(wired: Services) -> None:
    """Free the one run, as after the death of its worker, and execute it by another attempt."""
    [row] = all_runs(wired)
    free = sa.update(schema.runs).values(status=RunStatus.QUEUED, worker_id=None)
    wired.infra.db.transact(lambda tx: tx.execute(free))
    # A claim that a busy machine makes slow is given up, and tried again.
    wait_until(lambda: wired.runs.execution.take_up(row["id"]), "the next attempt")


def all_runs(wired: Services) -> list[Row]:
    return wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.runs.c.id)))


def approve(wired: Services, run_id: str) -> None:
    """Approve the one call that waits."""

    def work(tx: Transaction) -> None:
        [asked] = [row for row in approval_rows.of_run(tx, run_id) if row["status"] == "pending"]
        decide(tx, OPERATOR, asked["id"], Decision("approve", None, None, "dec_1"))

    wired.infra.db.transact(work)
