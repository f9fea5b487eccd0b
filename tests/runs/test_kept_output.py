"""Runs without an answer keep their published text: cancelled, failed or lost, at any moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.store import schema
from service.store.database import Transaction
from service.types import Event, RunEvent, RunStatus
from service.wiring import Services
from tests.conftest import RedisServer, wait_until
from tests.llm.wire_server import Exchange, Handler, WireServer, chunk, head, sse, start, stream, text_events
from tests.runs import inside
from tests.runs.scripted import REACT, call, end, kept, services, stream_of, text_of

ASKS_FIRST = f"{REACT}approvals: [refund]\n"


def and_then_silence(*pieces: str) -> Handler:
    """A handler: text, and nothing more until the client leaves."""

    def answer(exchange: Exchange) -> None:
        exchange.send(head(200, None, "content-type: text/event-stream\r\n"))
        for event in [start(), *text_events(*pieces)]:
            exchange.send(chunk(sse(event)))
        exchange.wait_for_end()

    return answer


def says_and_calls(text: str, *uses: dict[str, Any]) -> Handler:
    """A handler: a stream of text and of tool calls."""
    blocks: list[dict[str, Any]] = []
    for index, use in enumerate(uses, 1):
        blocks += [
            {"type": "content_block_start", "index": index, "content_block": use},
            {"type": "content_block_stop", "index": index},
        ]
    return stream([start(), *text_events(text), *blocks, *end("tool_use")])


def test_cancelled_run_keeps_its_published_text(acting: Services, upstream: WireServer) -> None:
    upstream.script.append(and_then_silence("Half an ", "answer"))
    request = inside.request("Do it.", cache="bypass")
    started, told = acting.runs.start.stream(inside.ADA, request, None, "req")
    events: list[RunEvent] = []

    def read() -> None:
        for batch in told:
            events.extend(batch)

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(
        lambda: text_of(acting.runs.queries.so_far(started.run.id)) == "Half an answer", "the text", 10
    )
    acting.runs.cancellation.cancel(started.run)
    reader.join(60)
    assert (events[-1].name, events[-1].data["output"]) == (Event.RUN_CANCELLED, "Half an answer")
    found = acting.runs.queries.get(started.run.id)
    assert found.result is not None and found.result["output"] == "Half an answer"


@pytest.fixture
def careful(tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str) -> Iterator[Services]:
    """Asks a person before it pays."""
    with services(tmp_path, redis_server.url, upstream, ASKS_FIRST, database_url=url) as wired:
        yield wired


def test_run_cancelled_during_an_approval_keeps_text_and_tools(
    careful: Services, upstream: WireServer
) -> None:
    upstream.script += [
        says_and_calls("I look. ", call("echo", {"text": "a"}, "toolu_a")),
        says_and_calls("I pay.", call("refund", {"order": "1"}, "toolu_b")),
    ]
    started, told = careful.runs.start.stream(
        inside.ADA, inside.request("Do it.", cache="bypass"), None, "req"
    )
    for _ in told:
        pass
    assert careful.runs.queries.get(started.run.id).status == "waiting_approval"
    careful.runs.cancellation.cancel(careful.runs.queries.get(started.run.id))
    found = careful.runs.queries.get(started.run.id)
    assert found.result is not None and found.status == "cancelled"
    assert (found.result["output"], found.result["steps"]) == ("I look. I pay.", 3)
    assert [(use["name"], use["ok"]) for use in found.result["tools"]] == [("echo", True)]


def test_run_failed_in_its_second_attempt_keeps_the_valid_text_of_both(
    acting: Services, upstream: WireServer
) -> None:
    upstream.script += [says_and_calls("I look. ", call("echo", {"text": "a"})), stream_of("First.")]
    started, told = acting.runs.start.stream(
        inside.ADA, inside.request("Do it.", cache="bypass"), None, "req"
    )
    for _ in told:
        pass
    run = started.run

    def lost(tx: Transaction) -> None:
        """As if the worker had died in its last model call."""
        steps, runs = schema.steps, schema.runs
        tx.execute(sa.delete(steps).where(steps.c.run_id == run.id, steps.c.n > 2))
        row = sa.update(runs).where(runs.c.id == run.id)
        tx.execute(row.values(status=RunStatus.QUEUED, finished_at=None, result=None, worker_id=None))

    acting.infra.db.transact(lost)
    upstream.script.append(stream_of("Second.", stop="refusal"))
    assert acting.runs.execution.take_up(run.id)
    again = acting.runs.queries.get(run.id)
    assert again.result is not None and (again.status, again.attempt) == ("failed", 2)
    assert again.result["output"].startswith("I look. ") and again.result["output"].endswith("Second.")
    assert "First" not in again.result["output"] and len(kept(acting, run)) >= 3
