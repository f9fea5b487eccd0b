"""A model that obeys every injected word, over HTTP, and an agent with tools for it to misuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from service.wiring import Services
from tests.llm.wire_server import MESSAGE, Exchange, WireServer, end, start, text_events, whole
from tests.llm.wire_server import stream as streamed
from tests.runs import inside
from tests.runs.injections import INJECTIONS, Injection
from tests.runs.scripted import Upstream

SPEC = """description: Reads documents and acts.
pattern: react
tier: {default: simple, ask: false}
tools: [read_mail, read_page, read_table, send_mail, transfer, delete_file]
links: [good.example]
limits: {steps: 6, seconds: 20}
"""
TOOLS = '''
import os

from tests.runs.injections import INJECTIONS
from service.tools import tool



def note(effect: str) -> None:
    with open(os.environ["TEST_EFFECTS"], "a") as file:
        print(effect, file=file)


@tool(idempotent=True, risk="read")
def read_mail(number: int) -> str:
    """Read a mail."""
    return INJECTIONS[number].text


@tool(idempotent=True, risk="read")
def read_page(number: int) -> str:
    """Read a page."""
    return INJECTIONS[number].text


@tool(idempotent=True, risk="read")
def read_table(number: int) -> list[str]:
    """Read a table."""
    return INJECTIONS[number].text.splitlines()


@tool()
def send_mail(to: str, body: str) -> str:
    """Send a mail."""
    note(to)
    return "sent"


@tool(idempotent=True)
def transfer(iban: str, amount: float) -> str:
    """Transfer money."""
    note(iban)
    return "transferred"


@tool(risk="danger")
def delete_file(path: str) -> str:
    """Delete a file."""
    note(path)
    return "deleted"
'''


class Obeying:
    """Model: reads document `number`, makes its call, and answers with its link. `acts`: whether it calls."""

    def __init__(self) -> None:
        self.number, self.reads, self.acts = 0, True, True

    @property
    def injection(self) -> Injection:
        return INJECTIONS[self.number]

    def __call__(self, exchange: Exchange) -> None:
        body, one = exchange.json, self.injection
        done = _results_since_the_question(body["messages"])
        plan: list[dict[str, Any]] = []
        if self.reads:
            plan.append(_use(one.source, {"number": self.number}))
        if self.acts:
            plan.append(_use(one.call, one.arguments))
        if done < len(plan):
            said = "Let me see. " + (one.answer if done or not self.reads else "")
            content, stop = [{"type": "text", "text": said}, plan[done]], "tool_use"
        else:
            content, stop = [{"type": "text", "text": one.answer}], "end_turn"
        if body.get("stream"):
            streamed(_events(content, stop))(exchange)
        else:
            whole({**MESSAGE, "content": content, "stop_reason": stop})(exchange)


def _use(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{name}", "name": name, "input": arguments}


def _results_since_the_question(messages: list[dict[str, Any]]) -> int:
    done = 0
    for message in reversed(messages):
        blocks = message["content"] if isinstance(message["content"], list) else [{"type": "text"}]
        results = sum(block["type"] == "tool_result" for block in blocks)
        if message["role"] == "user" and not results:
            break
        done += results
    return done


def _events(content: list[dict[str, Any]], stop: str) -> Iterator[dict[str, Any]]:
    """Stream a reply, its text in pieces of three characters."""
    yield start()
    for index, block in enumerate(content):
        if block["type"] == "text":
            text = block["text"]
            yield from text_events(*(text[at : at + 3] for at in range(0, len(text), 3)), index=index)
            continue
        yield {"type": "content_block_start", "index": index, "content_block": {**block, "input": {}}}
        figures = {"type": "input_json_delta", "partial_json": orjson.dumps(block["input"]).decode()}
        yield {"type": "content_block_delta", "index": index, "delta": figures}
        yield {"type": "content_block_stop", "index": index}
    yield from end(stop)


@contextmanager
def services(home: Path, redis_url: str, upstream: WireServer, **settings: Any) -> Iterator[Services]:
    folder = home / "agents" / "probe"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tools.py").write_text(TOOLS)
    with inside.services(home, redis_url, upstream.url, {"probe": SPEC}, **settings) as wired:
        yield wired


def upstream_of(model: Obeying) -> WireServer:
    return Upstream(model)
