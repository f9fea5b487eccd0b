"""Forks made without HTTP, and executed at once."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from service.runs.forks import Wanted
from service.store import schema, tool_calls
from service.types import Caller, Run
from service.wiring import Services
from tests.llm.wire_server import Exchange, Handler, end, start, stream, text_events
from tests.runs import inside
from tests.runs.scripted import kept, message

OPERATOR = inside.ADA._replace(role="operator")


def reply(*content: dict[str, Any], stop: str | None = None) -> Handler:
    """A handler: this reply, as a stream where one is asked for."""
    reason = stop or ("tool_use" if any(block["type"] == "tool_use" for block in content) else "end_turn")

    def answer(exchange: Exchange) -> None:
        if exchange.json.get("stream"):
            parts = [event for index, block in enumerate(content) for event in _events(index, block)]
            stream([start(), *parts, *end(reason)])(exchange)
        else:
            message(*content, stop=reason)(exchange)

    return answer


def _events(index: int, block: dict[str, Any]) -> list[dict[str, Any]]:
    if block["type"] == "text":
        return text_events(block["text"], index=index)
    given = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    return [
        {"type": "content_block_start", "index": index, "content_block": {**block, "input": {}}},
        {"type": "content_block_delta", "index": index, "delta": given},
        {"type": "content_block_stop", "index": index},
    ]


def queued(wired: Services, run: Run, step: int, caller: Caller = OPERATOR, **wanted: Any) -> Run:
    request = wired.runs.forks.request(caller, run.id, Wanted(step, **wanted))
    return wired.runs.start.queue(caller, request, None, "req").run


def fork(wired: Services, run: Run, step: int, caller: Caller = OPERATOR, **wanted: Any) -> Run:
    """Fork a run, and wait for its end."""
    made = queued(wired, run, step, caller, **wanted)
    assert wired.runs.execution.take_up(made.id)
    return wired.runs.queries.wait(made.id)


def steps(wired: Services, run: Run) -> list[tuple[str, str, int]]:
    """Return kind, name and attempt of each step; those that were kept have attempt 0."""
    return [(row["kind"], row["name"], row["attempt"]) for row in kept(wired, run) if row["kind"] != "note"]


def claims(wired: Services, run: Run) -> set[str]:
    return set(wired.infra.db.query(lambda tx: tool_calls.of_run(tx, run.id)))


def approvals_of(wired: Services, run: Run) -> int:
    counted = sa.select(sa.func.count().label("n")).select_from(schema.approvals)
    found = wired.infra.db.query(lambda tx: tx.rows(counted.where(schema.approvals.c.run_id == run.id)))
    return int(found[0]["n"])
