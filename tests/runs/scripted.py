"""An agent with tools of its own before a model that answers exactly as a test scripts it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service.store import schema
from service.store import steps as step_rows
from service.store.database import Row
from service.types import Event, Run, RunEvent
from service.wiring import Services
from tests.llm.wire_server import MESSAGE, Exchange, WireServer, end, head, start, text_events, whole
from tests.llm.wire_server import stream as streamed
from tests.runs import inside

REACT = """description: A test agent.
pattern: react
tier: {default: simple, ask: false}
tools: [echo, refund, odd]
limits: {steps: 3, seconds: 20}
"""
THOUGHT: dict[str, Any] = {"type": "thinking", "thinking": "Hm.", "signature": "c2VhbA=="}
SEARCH: dict[str, Any] = {
    "type": "server_tool_use",
    "id": "srvtoolu_1",
    "name": "web_search",
    "input": {"query": "x"},
}
FOUND: dict[str, Any] = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
TOOLS = '''
from service.tools import ToolContext, ToolOutput, tool

DONE = []


@tool(idempotent=True, risk="read", trusted=True)
def echo(text: str) -> str:
    """Say it again."""
    return text


@tool(trusted=True)
def refund(order: str = "all") -> str:
    """Pay money back."""
    DONE.append(order)
    return f"refunded {order}"


@tool(idempotent=True, risk="read", trusted=True)
def odd(kind: str) -> object:
    """Return what no author should."""
    return ODD[kind]()


def deep(depth: int) -> object:
    value: object = "end"
    for _ in range(depth):
        value = {"in": value}
    return value


ODD = {
    "surrogate": lambda: "half \\ud83d of a pair",
    "nul": lambda: "a\\0b",
    "nested surrogate": lambda: {"text": "half \\ude00"},
    "surrogate key": lambda: {"half \\ude00": 1},
    "deep": lambda: deep(300),
    "big": lambda: {"n": 2**200},
    "set": lambda: {1, 2},
    "bytes": lambda: b"\\xff\\xfe",
    "nan": lambda: float("nan"),
    "object": lambda: object(),
    "huge": lambda: "word " * 1_000_000,
    "sources": lambda: ToolOutput("x", [{"title": "half \\ud83d", "uri": 2**80, "quote": {1}, "more": object()}]),
    "no sources": lambda: ToolOutput("x", [None, 7]),
}
'''


class Upstream(WireServer):
    """Counts tokens by itself, so that only model calls take from the script."""

    @staticmethod
    def _read(conn: socket.socket) -> tuple[bytes, bytes] | None:
        counted = b'{"input_tokens": 50}'
        asked = WireServer._read(conn)
        while asked is not None and b"/count_tokens" in asked[0].partition(b"\r\n")[0]:
            conn.sendall(head(200, len(counted), "content-type: application/json\r\n") + counted)
            asked = WireServer._read(conn)
        return asked


@contextmanager
def services(
    home: Path, redis_url: str, upstream: WireServer, spec: str = REACT, **settings: Any
) -> Iterator[Services]:
    folder = home / "agents" / "probe"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tools.py").write_text(TOOLS)
    with inside.services(home, redis_url, upstream.url, {"probe": spec}, **settings) as wired:
        yield wired


def call(name: str, arguments: Any, call_id: str = "toolu_1") -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def says(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def message(*content: dict[str, Any], stop: str = "end_turn") -> Callable[[Exchange], None]:
    """A handler: one whole answer."""
    return whole({**MESSAGE, "content": list(content), "stop_reason": stop})


def calls(*content: dict[str, Any]) -> Callable[[Exchange], None]:
    return message(*content, stop="tool_use")


def stream_of(*pieces: str, stop: str = "end_turn") -> Callable[[Exchange], None]:
    """A handler: a stream of text."""

    return streamed([start(), *text_events(*pieces), *end(stop)])


def ask(wired: Services, **fields: Any) -> Run:
    return inside.ask(wired, "Do it.", **{"cache": "bypass", **fields})


def tell(wired: Services, **fields: Any) -> list[RunEvent]:
    """Every event of a streamed run."""
    request = inside.request("Do it.", **{"cache": "bypass", **fields})
    _, told = wired.runs.start.stream(inside.ADA, request, None, "req")
    return [event for batch in told for event in batch]


def text_of(events: list[RunEvent]) -> str:
    return "".join(event.data["text"] for event in events if event.name is Event.TEXT_DELTA)


def holds(wired: Services) -> int:
    """Holds that are still open."""
    counted = sa.select(sa.func.count().label("n")).select_from(schema.holds)
    return int(wired.infra.db.query(lambda tx: tx.rows(counted))[0]["n"])


def kept(wired: Services, run: Run) -> list[Row]:
    return wired.infra.db.query(lambda tx: step_rows.of_run(tx, run.id))


def bodies(upstream: WireServer) -> list[dict[str, Any]]:
    """Return the bodies of all requests so far."""
    return [exchange.json for exchange in upstream.requests]
