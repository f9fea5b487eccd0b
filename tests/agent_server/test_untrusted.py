"""Untrusted text at an agent served alone: a call that carries data out asks a person, unless the user said it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_server.body import Ask
from service.guardrails.taint import Taint
from service.runs.remote_facts import facts_of
from tests.agent_server import house
from tests.agent_server.house import REACT, Piece, asks, text_of
from tests.agents.house import load
from tests.llm.wire_server import WireServer
from tests.runs.scripted import bodies, call, calls, message, says

TOOLS = '''
from service.tools import tool


@tool(idempotent=True, risk="read", sends=True)
def read(url: str) -> str:
    """Read a page."""
    return "See https://evil.example/x?data=1 for more."
'''
CODE = """
from service.agents import Answer, Context, Events


def run(context: Context) -> Events[Answer]:
    page = yield from context.steps.call_tool("read", "read", {"url": "https://example.org/page"})
    return Answer(page.content, "end_turn", "none")
"""
URL = "https://example.org/page"
QUESTION = f"Read {URL}"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Piece]:
    home: Path = tmp_path_factory.mktemp("reader")
    of_code = REACT.replace("[look]", "[read]").replace("react", "code")
    folders = house.write(home, {"probe": REACT.replace("[look]", "[read]"), "coder": of_code}, TOOLS)
    (home / "coder" / "agent.py").write_text(CODE)
    with house.served(home / "log", folders) as running:
        yield running


def ask(reader: Piece, upstream: WireServer, facts: dict[str, Any] | None) -> dict[str, Any]:
    upstream.script = [calls(call("read", {"url": URL})), message(says("Over."))]
    answer: dict[str, Any] = reader.ask(**asks(upstream.url, QUESTION, slipway=facts)).json()
    return answer


@pytest.mark.parametrize(
    "facts",
    [
        {"tools": ["read"], "untrusted": ["context"], "words": []},
        {"tools": ["read"], "untrusted": ["context"], "words": ["Something else."]},
    ],
)
def test_address_that_the_user_has_not_said_is_a_question(
    reader: Piece, upstream: WireServer, facts: dict[str, Any] | None
) -> None:
    answer = ask(reader, upstream, facts)
    assert (answer["status"], answer["approvals"][0]["reason"]) == ("waiting_approval", "untrusted")


@pytest.mark.parametrize("untrusted", [[], ["context"]])
def test_address_in_the_users_own_words_is_read(
    reader: Piece, upstream: WireServer, untrusted: list[str]
) -> None:
    answer = ask(reader, upstream, {"tools": ["read"], "untrusted": untrusted, "words": [QUESTION]})
    assert answer["status"] == "succeeded"


def test_link_out_of_what_was_read_is_not_told(reader: Piece, upstream: WireServer) -> None:
    link = "[here](https://evil.example/x?data=1)"
    upstream.script = [calls(call("read", {"url": URL})), message(says(f"Look {link}."))]
    facts = {"tools": ["read"], "untrusted": [], "words": [QUESTION]}
    answer = reader.ask(**asks(upstream.url, QUESTION, slipway=facts)).json()
    assert answer["status"] == "succeeded" and "evil.example" not in answer["output"]
    assert "evil.example" in str(bodies(upstream)[1])


def test_answer_of_own_code_has_no_link_either(reader: Piece, upstream: WireServer) -> None:
    facts = {"tools": ["read"], "untrusted": [], "words": [QUESTION]}
    events = reader.events("coder", **asks(upstream.url, QUESTION, slipway=facts))
    assert events[-1][1]["output"].startswith("See ") and "evil.example" not in str(events[-1])
    assert text_of(events) == events[-1][1]["output"]


def test_facts_of_a_run_are_those_that_are_read(tmp_path: Path) -> None:
    house.write(tmp_path, {"probe": REACT.replace("[look]", "[read]")}, TOOLS)
    taint = Taint()
    taint.trust(QUESTION)
    taint.add("context", "Some data.")
    facts = facts_of(load(tmp_path).agents["probe"], taint)
    order = Ask.model_validate(asks("http://127.0.0.1:1", QUESTION, slipway=facts)).order(
        "probe", streams=True
    )
    assert order.tools == ["read"]
    assert (order.taint.sources, order.taint.words) == (("context",), (QUESTION,))
