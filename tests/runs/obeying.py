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
from tests.runs.injected import ALL
from tests.runs.injections import Injection
from tests.runs.scripted import Upstream

SPEC = """description: Reads documents and acts.
pattern: react
tier: {default: simple, ask: false}
tools: [read_mail, read_page, read_table, read_broken, send_mail, transfer, delete_file]
links: [good.example]
limits: {steps: 6, seconds: 20}
"""
CHIEF = """description: Has documents read.
pattern: orchestrator
tier: {default: simple, ask: false}
agents: [probe]
links: [good.example]
tree: {tasks: 1, at_once: 1, usd: "0.10"}
limits: {steps: 8, seconds: 20}
"""
TOOLS = '''
import os

from tests.runs.injected import ALL
from service.tools import ToolFailed, tool



def note(effect: str) -> None:
    with open(os.environ["TEST_EFFECTS"], "a") as file:
        print(effect, file=file)


@tool(idempotent=True, risk="read")
def read_mail(number: int) -> str:
    """Read a mail."""
    return ALL[number].text


@tool(idempotent=True, risk="read")
def read_page(number: int) -> str:
    """Read a page."""
    return ALL[number].text


@tool(idempotent=True, risk="read")
def read_table(number: int) -> list[str]:
    """Read a table."""
    return ALL[number].text.splitlines()


@tool(idempotent=True, risk="read")
def read_broken(number: int) -> str:
    """Fail with the words of a document."""
    raise ToolFailed(ALL[number].text)


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
    """Model: reads document `number`, makes its call, and answers with its link. `acts`: whether it calls.

    `source`: the tool that reads; empty: the document's own. As JSON its answer is written in escapes alone.
    """

    def __init__(self) -> None:
        self.number, self.reads, self.acts, self.source = 0, True, True, ""

    @property
    def injection(self) -> Injection:
        return ALL[self.number]

    def __call__(self, exchange: Exchange) -> None:
        body, one = exchange.json, self.injection
        may_call = bool(body.get("tools"))  # a lead's plan and join have none
        done = _results_since_the_question(body["messages"])
        plan: list[dict[str, Any]] = []
        if self.reads and may_call:
            plan.append(_use(self.source or one.source, {"number": self.number}))
        if self.acts and may_call:
            plan.append(_use(one.call, one.arguments))
        if done < len(plan):
            said = "Let me see. " + (one.answer if done or not self.reads else "")
            content, stop = [{"type": "text", "text": said}, plan[done]], "tool_use"
        else:
            content, stop = [{"type": "text", "text": _in_form(body, one.answer)}], "end_turn"
        if body.get("stream"):
            streamed(_events(content, stop))(exchange)
        else:
            whole({**MESSAGE, "content": content, "stop_reason": stop})(exchange)


def _in_form(body: dict[str, Any], answer: str) -> str:
    """Return the answer in the form that was asked for: a plan, an object of one text, or as it is."""
    if "output_config" not in body:
        return answer
    if "tasks" in body["output_config"]["format"]["schema"]["properties"]:
        return orjson.dumps({"tasks": [{"agent": "probe", "task": "Read it."}]}).decode()
    units = answer.encode("utf-16-be").hex()
    return '{"a": "' + "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)) + '"}'


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
    specs = {"probe": SPEC, "chief": CHIEF}
    with inside.services(home, redis_url, upstream.url, specs, **settings) as wired:
        yield wired


def upstream_of(model: Obeying) -> WireServer:
    return Upstream(model)
