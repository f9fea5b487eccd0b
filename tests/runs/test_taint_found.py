"""Untrusted text found again by each attempt: in the request, the session's history and the steps."""

from __future__ import annotations

from typing import Any

from service.guardrails.taint import Taint
from service.history import History
from service.llm.client import ModelReply, ModelRequest
from service.runs.untrusted import add_history, add_results, answer_without_links, hosts_of, taint_of
from service.tools import ToolResult
from service.types import Answer, Usage
from tests.runs.house import ANALYST, asked
from tests.runs.scripted import call

REQUEST = ModelRequest("m", [], 1)


def row(role: str, content: Any, untrusted: Any) -> dict[str, Any]:
    return {"role": role, "content": content, "untrusted": untrusted}


def sources(past: History) -> tuple[str, ...]:
    found = Taint()
    add_history(found, past)
    return found.sources


def test_context_is_untrusted_unless_empty() -> None:
    assert taint_of(asked("Hello", context='{"a": "b\\u0041c"}')).marks({"x": "bAc"}, [])["pointers"] == [
        "/x"
    ]
    assert not taint_of(asked("Hello", context="{}")) and not taint_of(asked("Hello"))


def test_turns_bring_the_sources_of_their_runs() -> None:
    question = row("user", "Why?", ["read_mail"])
    assert sources(History("", (), (question, row("assistant", "So.", [])))) == ()
    assert sources(History("", (question, row("assistant", "So.", ["read_mail", "context"])))) == (
        "context",
        "read_mail",
    )


def test_a_turn_without_a_mark_is_untrusted() -> None:
    """As of a version before the marks, or one that was cancelled while it waited."""
    assert sources(History("", (), (row("assistant", "So.", None),))) == ("session",)


def test_a_summary_brings_the_sources_of_what_it_sums_up() -> None:
    assert sources(History("They met.", untrusted=("read_mail",))) == ("read_mail",)
    assert sources(History("They met.", untrusted=None)) == ("session",)
    assert sources(History("", untrusted=None)) == ()


def test_results_count_unless_their_tool_is_trusted() -> None:
    uses = [call("calculator", {}), call("none", {})]
    reply, found = ModelReply("m", uses, "tool_use", Usage()), Taint()
    results = [ToolResult.of(True, "3"), ToolResult.failed("There is no tool named none.")]
    add_results(found, ANALYST, reply, results)
    assert "calculator" in ANALYST.tools and not found


def test_any_link_is_kept_until_there_is_untrusted_text() -> None:
    found = Taint()
    assert hosts_of(found, ANALYST, REQUEST) is None
    found.add("context", "x")
    assert hosts_of(found, ANALYST, REQUEST) is not None


def test_tools_of_the_provider_bring_it_into_the_reply_itself() -> None:
    request = ModelRequest("m", [], 1, tools=[{"type": "web_search_20260318", "name": "web_search"}])
    assert hosts_of(Taint(), ANALYST, request) is not None


def test_what_a_pattern_puts_together_is_cleaned_with_its_sources() -> None:
    found, answer = (
        Taint(),
        Answer("See https://evil.io/x.", "end_turn", "m", sources=({"uri": "https://evil.io"},)),
    )
    assert answer_without_links(answer, found, ANALYST) is answer
    found.add("context", "x")
    cleaned = answer_without_links(answer, found, ANALYST)
    assert (cleaned.output, cleaned.sources) == ("See [link removed].", ({"uri": "[link removed]"},))
