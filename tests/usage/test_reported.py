"""Answers that do not say what they used, from the model's socket to the ledger: never free, never over the hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.store import holds
from service.store.schema import ledger
from service.types import Event
from service.usage.ledger import check
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import (
    MESSAGE,
    Exchange,
    Handler,
    WireServer,
    chunk,
    head,
    sse,
    start,
    stream,
    text_events,
    whole,
)
from tests.runs.inside import ADA, request, services

TEXT = "Good day to you. " * 4
FEWEST = {"input_tokens": 20, "output_tokens": 4}  # what the answers below tell at least, where they tell it


@pytest.fixture
def server() -> Iterator[WireServer]:
    server = WireServer(whole(MESSAGE))
    yield server
    server.stop()


@pytest.fixture
def wired(tmp_path: Path, redis_server: RedisServer, server: WireServer) -> Iterator[Services]:
    with services(tmp_path, redis_server.url, server.url) as made:
        yield made
        assert check(made.infra.db, made.usage.prices).faults == [] and made.infra.db.query(holds.every) == []


def answered(usage: Any) -> Handler:
    return whole({**MESSAGE, "content": [{"type": "text", "text": TEXT}], "usage": usage})


def streamed(first: Any, last: Any, *more: dict[str, Any]) -> Handler:
    begin = start()
    begin["message"]["usage"] = first
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": last}
    return stream([begin, *text_events(TEXT), delta, *more, {"type": "message_stop"}])


def asked(wired: Services, door: str) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """The run's result, its `usage` events, and the row of the ledger."""
    asked = request("What time is it?", tier="simple", cache="bypass", max_tokens=500)
    events: list[Any] = []
    if door == "stream":
        _, told = wired.runs.start.stream(ADA, asked, None, "req")
        events = [event for some in told for event in some]
        result = dict(events[-1].data)
    else:
        run = wired.runs.start.invoke(ADA, asked, None, "req").run
        assert run.result is not None
        result = run.result
    rows = wired.infra.db.query(lambda tx: tx.rows(sa.select(ledger).where(ledger.c.account == "upstream")))
    [row] = rows
    return result, [dict(event.data) for event in events if event.name is Event.USAGE], row


UNTOLD: list[tuple[str, Handler]] = [
    ("invoke", answered(None)),
    ("invoke", answered({})),
    ("invoke", answered([])),
    ("invoke", answered({"input_tokens": 20})),
    ("invoke", answered({"input_tokens": 20, "output_tokens": None})),
    ("invoke", answered({"input_tokens": 20, "output_tokens": 0})),
    ("invoke", answered({"input_tokens": 20, "output_tokens": -9})),
    ("invoke", answered({"input_tokens": "20", "output_tokens": "4"})),
    ("invoke", answered({"output_tokens": 4})),
    ("stream", streamed(FEWEST, None)),
    ("stream", streamed(FEWEST, {"output_tokens": 0})),
    ("stream", streamed(FEWEST, {"output_tokens": 0, "input_tokens": 0})),
    ("stream", streamed(FEWEST, {"output_tokens": "many"})),
    ("stream", streamed(None, {"output_tokens": 4})),
    ("stream", streamed({}, None)),
    ("stream", streamed({"input_tokens": 20}, {"output_tokens": -1})),
]


@pytest.mark.parametrize(("door", "handler"), UNTOLD)
def test_unreported_usage_is_a_marked_estimate(
    wired: Services, server: WireServer, door: str, handler: Handler
) -> None:
    server.script = [handler]
    result, told, row = asked(wired, door)
    assert result["status"] == "succeeded" and result["output"] == TEXT
    assert row["basis"] == "estimate" and row["amount_nano"] > 0
    assert row["input_tokens"] >= FEWEST["input_tokens"] and row["output_tokens"] >= len(TEXT)
    assert result["usage"]["usage_source"] == "estimated"
    assert result["usage"]["input_tokens"] == row["input_tokens"]
    assert result["usage"]["output_tokens"] == row["output_tokens"]
    for usage in told:
        assert usage["usage_source"] == "estimated" and usage["input_tokens"] == row["input_tokens"]
    assert len(told) == (door == "stream")


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_reported_usage_is_booked_exactly(wired: Services, server: WireServer, door: str) -> None:
    server.script = [answered(FEWEST) if door == "invoke" else streamed(FEWEST, {"output_tokens": 4})]
    result, told, row = asked(wired, door)
    assert (row["basis"], row["input_tokens"], row["output_tokens"]) == ("exact", 20, 4)
    assert result["usage"]["usage_source"] == "reported"
    assert [usage["usage_source"] for usage in told] == ["reported"] * len(told)


def test_an_estimate_never_passes_its_hold(wired: Services, server: WireServer) -> None:
    """Reported usage above the request's limits: booked, or settled at worst."""
    server.script = [answered({"input_tokens": 900_000, "output_tokens": None})]
    result, _, row = asked(wired, "invoke")
    assert row["basis"] == "worst" and result["usage"]["usage_source"] == "worst"
    [held] = wired.infra.db.query(
        lambda tx: tx.rows(sa.select(ledger).where(ledger.c.account == "held", ledger.c.kind == "hold"))
    )
    assert row["amount_nano"] == held["amount_nano"]


ABSURD: list[tuple[str, Handler]] = [
    ("invoke", answered({"input_tokens": 20, "output_tokens": 999_999_999})),
    ("invoke", answered({"input_tokens": 999_999_999, "output_tokens": 4})),
    ("invoke", answered({"input_tokens": 20, "output_tokens": 517})),  # 500 were asked for
    ("invoke", answered({"input_tokens": 20, "output_tokens": 517, "cache_read_input_tokens": "x"})),
    ("invoke", answered({**FEWEST, "server_tool_use": {"web_search_requests": 999_999_999}})),
    ("stream", streamed(FEWEST, {"output_tokens": 999_999_999})),
    ("stream", streamed({"input_tokens": 20, "cache_read_input_tokens": 9_000_000}, {"output_tokens": 4})),
]


@pytest.mark.parametrize(("door", "handler"), ABSURD)
def test_usage_that_cannot_be_true_is_settled_at_worst(
    wired: Services, server: WireServer, caplog: pytest.LogCaptureFixture, door: str, handler: Handler
) -> None:
    server.script = [handler]
    result, _, row = asked(wired, door)
    assert (result["status"], result["usage"]["usage_source"]) == ("succeeded", "worst")
    assert (row["basis"], row["amount_nano"]) == ("worst", held(wired))
    assert {"usage_implausible", "hold_overrun"} & {record.message for record in caplog.records}


def test_slight_excess_over_max_tokens_is_booked_exactly(wired: Services, server: WireServer) -> None:
    server.script = [answered({"input_tokens": 20, "output_tokens": 503})]
    result, _, row = asked(wired, "invoke")
    assert (row["basis"], row["output_tokens"]) == ("exact", 503)
    assert result["usage"]["usage_source"] == "reported"


def held(wired: Services) -> int:
    """Return the amount of the only hold."""
    only = (ledger.c.account == "held", ledger.c.kind == "hold")
    [row] = wired.infra.db.query(lambda tx: tx.rows(sa.select(ledger).where(*only)))
    return int(row["amount_nano"])


LONG = 70_000  # characters: 500 tokens may have 64 KiB
USE = {"type": "tool_use", "id": "t1", "name": "calculator", "input": {"expression": "1" * LONG}}
THOUGHT = {"type": "thinking", "thinking": "x" * LONG, "signature": "s"}


@pytest.mark.parametrize("block", [{"type": "text", "text": "x" * LONG}, THOUGHT, USE])
def test_impossibly_long_answer_is_a_model_error(
    wired: Services, server: WireServer, block: dict[str, Any]
) -> None:
    server.script = [whole({**MESSAGE, "content": [block], "usage": FEWEST})]
    result, _, row = asked(wired, "invoke")
    assert (result["status"], result["error"]["code"]) == ("failed", "model_error")
    assert (row["basis"], row["output_tokens"], len(server.requests)) == ("estimate", 500, 1)


def test_impossibly_long_stream_is_cut(wired: Services, server: WireServer) -> None:
    sent = []

    def endless(exchange: Exchange) -> None:
        exchange.send(head(200, None, "content-type: text/event-stream\r\n"))
        begin, piece, *_ = text_events("x" * 10_000)
        for event in [start(), begin, *[piece] * 2_000]:
            exchange.send(chunk(sse(event)))
            sent.append(event)

    server.script = [endless]
    result, _, row = asked(wired, "stream")
    assert (result["status"], result["error"]["code"]) == ("failed", "model_error")
    assert len(result["output"]) <= 64 * 1024 and len(sent) < 2_000
    assert (row["basis"], row["output_tokens"], len(server.requests)) == ("estimate", 500, 1)


def test_interrupted_stream_with_absurd_usage_is_settled_at_worst(
    wired: Services, server: WireServer
) -> None:
    begin = start()
    begin["message"]["usage"] = {"input_tokens": 999_999_999, "output_tokens": 1}
    server.script = [stream([begin, *text_events(TEXT)])]
    result, _, row = asked(wired, "stream")
    assert (result["error"]["code"], row["basis"]) == ("model_interrupted", "worst")
    assert row["amount_nano"] == held(wired)


BROKEN: list[tuple[Handler, str, str]] = [
    (
        streamed(FEWEST, {"output_tokens": 4}, *text_events("late"), {"type": "error", "error": {}}),
        "model_error",
        "",
    ),
    (
        stream([start(), *text_events(TEXT), {"type": "error", "error": {"type": "api_error"}}]),
        "model_unavailable",
        "",
    ),
    (stream([start(), *text_events(TEXT), *text_events("again")]), "model_error", ""),
    (stream([start(), *text_events(TEXT), {"type": "content_block_delta", "index": 9}]), "model_error", ""),
    (stream([start(), *text_events(TEXT)]), "model_interrupted", ""),
    (whole(b"packed", headers="content-encoding: gzip\r\n"), "model_error", "worst"),
    (
        lambda exchange: exchange.send(head(200, None) + chunk(b"data: " + b"x" * 20_000_000)),
        "model_error",
        "worst",
    ),
]


@pytest.mark.parametrize(("handler", "code", "basis"), BROKEN)
def test_a_stream_that_breaks_ends_its_run_and_is_paid(
    wired: Services, server: WireServer, handler: Handler, code: str, basis: str
) -> None:
    server.script = [handler]
    result, _, row = asked(wired, "stream")
    assert (result["status"], result["error"]["code"]) == ("failed", code)
    assert row["basis"] == (basis or "estimate") and row["amount_nano"] > 0
    assert result["usage"]["usage_source"] == ("worst" if basis else "estimated")


@pytest.mark.parametrize("body", [b'{"type": ' + b" " * 20_000_000, b"packed"])
def test_a_whole_answer_that_is_not_taken_is_paid(wired: Services, server: WireServer, body: bytes) -> None:
    packed = "content-encoding: br\r\n" if body == b"packed" else ""
    server.script = [whole(body, headers=packed)]
    result, _, row = asked(wired, "invoke")
    assert (result["status"], result["error"]["code"]) == ("failed", "model_error")
    assert row["basis"] == "worst" and len(server.requests) == 1


def test_a_tool_call_of_a_cut_off_answer_is_not_made(wired: Services, server: WireServer) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "calculator", "input": {"expression": "1"}}
    server.script = [whole({**MESSAGE, "content": [*MESSAGE["content"], use], "stop_reason": "max_tokens"})]
    result, _, _ = asked(wired, "invoke")
    assert result["tools"] == [] and result["stop_reason"] == "max_tokens"
