"""Sending of an answer with the configured latency and faults."""

from __future__ import annotations

import asyncio
import time

import orjson

from offline_model.compose import Answer
from offline_model.exchange import Exchange
from offline_model.faults import HANG_SECONDS, SLOW_MS, Knobs
from offline_model.shapes import error_body, sse
from offline_model.stats import Call

JSON_TYPE = "application/json"


async def send(
    exchange: Exchange, answer: Answer, knobs: Knobs, call: Call, headers: dict[str, str], stream: bool
) -> str:
    """Send an answer; return the outcome for the statistics. Cancelled when the client disconnects."""
    if knobs.fault == "hang":
        await asyncio.sleep(HANG_SECONDS)
    if knobs.fault in ("hang", "drop_first"):
        exchange.close()
        return f"fault:{knobs.fault}"
    call.usage = answer.usage(0)
    sender = _stream if stream else _json
    await sender(exchange, answer, knobs, call, headers)
    return "ok" if knobs.fault in (None, "slow") else f"fault:{knobs.fault}"


def _first_token_delay(knobs: Knobs) -> float:
    """Return seconds to the first token."""
    wait = knobs.first_token_ms or 0.0
    return (max(wait, SLOW_MS) if knobs.fault == "slow" else wait) / 1000


async def _json(
    exchange: Exchange, answer: Answer, knobs: Knobs, call: Call, headers: dict[str, str]
) -> None:
    wait = _first_token_delay(knobs) + answer.output_tokens * (knobs.token_ms or 0.0) / 1000
    if wait > 0:
        await asyncio.sleep(wait)
    call.usage = answer.usage()
    message = answer.message()
    if knobs.fault == "no_stop":
        message["stop_reason"] = None
    body = orjson.dumps(message)
    if knobs.fault == "garbage":
        body = b"<html><body>this is not the JSON you are looking for"
    if knobs.fault == "drop":
        exchange.send_part(200, body, headers, JSON_TYPE)
    else:
        exchange.send(200, body, headers, JSON_TYPE)


async def _stream(
    exchange: Exchange, answer: Answer, knobs: Knobs, call: Call, headers: dict[str, str]
) -> None:
    exchange.begin(headers)
    events = list(answer.events())
    deltas = sum(1 for _, count in events if count)
    cut = deltas // 2 if knobs.fault in ("drop", "error_event", "garbage") else deltas
    await exchange.write(answer.opening())
    await _paced(exchange, answer, events, max(1, cut), knobs, call)
    if knobs.fault == "drop":
        exchange.close()
        return
    if knobs.fault == "error_event":
        request_id = headers["request-id"]
        await exchange.write(sse("error", error_body(529, "Overloaded", request_id)))
    elif knobs.fault == "garbage":
        await exchange.write(b"event: content_block_delta\ndata: {this is not JSON\n\n")
    elif knobs.fault != "no_stop":
        await exchange.write(answer.closing())
    exchange.end()


async def _paced(
    exchange: Exchange, answer: Answer, events: list[tuple[bytes, int]], most: int, knobs: Knobs, call: Call
) -> None:
    """Write events, each delta at its scheduled time, late ones together; stops after `most` deltas.

    Times are relative to the start, so a busy machine catches up instead of drifting, and thousands of streams cost
    at most one wake-up per delta.
    """
    start = time.monotonic() + _first_token_delay(knobs)
    gap = (knobs.token_ms or 0.0) / 1000
    ready: list[bytes] = []
    sent = deltas = 0
    for event, count in events:
        if count:
            if deltas == most:
                break
            due = start + deltas * gap
            wait = due - time.monotonic()
            if wait > 0:
                if ready:
                    await exchange.write(b"".join(ready))
                    ready.clear()
                call.usage = answer.usage(sent)
                await asyncio.sleep(wait)
            deltas += 1
            sent += count
        ready.append(event)
    if ready:
        await exchange.write(b"".join(ready))
    call.usage = answer.usage(max(1, sent))
