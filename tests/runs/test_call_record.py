"""Record of a run's tool calls: which result answers which call of a fork."""

from __future__ import annotations

from typing import Any

from service.runs.call_record import record_of
from service.tools import ToolResult
from service.types import Event


def use(name: str, arguments: Any, call_id: str = "toolu_x") -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def asks(*uses: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"kind": "model", "reply": {"content": list(uses), **more}, "events": []}


def answers(*results: tuple[str, str, Any, str], **more: Any) -> dict[str, Any]:
    """A tools step, each of its calls as id, name, arguments and content."""
    told = [
        [1, Event.TOOL_CALLED, {"call_id": call_id, "name": name, "arguments": arguments, **more}]
        for call_id, name, arguments, _ in results
    ]
    stored = [
        {"ok": True, "content": content, "preview": "", "ms": 1, "sources": []} for *_, content in results
    ]
    return {"kind": "tools", "reply": {"results": stored, **more}, "events": told}


def content(result: ToolResult | None) -> Any:
    return None if result is None else result.content


def test_nth_same_call_has_the_nth_result_and_later_ones_the_last() -> None:
    look = {"a": 1, "b": 2}
    rows = [asks(use("look", look, f"t{n}")) for n in (1, 2)]
    record = record_of(
        [rows[0], answers(("t1", "look", look, "one")), rows[1], answers(("t2", "look", look, "two"))], {}
    )
    again = use("look", {"b": 2, "a": 1})
    assert [content(record.find(again)), content(record.find(again, [again]))] == ["one", "two"]
    record.take(again)
    assert [content(record.find(again)), content(record.find(again, [again]))] == ["two", "two"]
    assert record.find(use("look", {"a": 1})) is None and record.find(use("pay", look)) is None


def test_call_is_known_by_what_the_model_asked_for() -> None:
    """A person approved it with other arguments, which the event tells."""
    record = record_of([asks(use("pay", {"n": 7}, "t1")), answers(("t1", "pay", {"n": 6}, "paid 6"))], {})
    assert content(record.find(use("pay", {"n": 7}))) == "paid 6"
    assert record.find(use("pay", {"n": 6})) is None


def test_call_of_own_code_is_known_by_its_event() -> None:
    record = record_of([answers(("call_2_abc", "pay", {"n": 7}, "paid 7"))], {})
    assert content(record.find(use("pay", {"n": 7}))) == "paid 7"


def test_sub_agent_has_the_results_of_its_branch_first() -> None:
    """Events of one branch may be stored with a step of another."""
    two = answers(("t1", "look", {}, "one"), branch="1")
    two["events"] += answers(("t2", "look", {}, ""), branch="2")["events"]
    called = [3, Event.TOOL_CALLED, {"call_id": "agent_1", "name": "agent:worker", "branch": "1"}]
    two["events"].insert(0, called)
    later = {**answers(("t2", "look", {}, "two"), branch="2"), "events": []}
    record = record_of([two, later], {})
    assert content(record.of_branch("2").find(use("look", {}))) == "two"
    assert content(record.of_branch("1").find(use("look", {}))) == "one"
    assert content(record.of_branch("9").find(use("look", {}))) == "one"


def test_call_whose_step_was_never_finished_is_known_by_its_claim() -> None:
    stored = {"ok": False, "content": "no", "preview": "", "ms": 1, "sources": []}
    claims = {
        "t1": {"status": "failed", "name": "pay", "arguments": {"n": 7}, "result": stored},
        "t2": {"status": "unknown", "name": "pay", "arguments": {"n": 8}, "result": {"allowed_by": None}},
    }
    record = record_of([asks(use("pay", {"n": 7}, "t1"))], claims)
    assert content(record.find(use("pay", {"n": 7}))) == "no"
    assert record.find(use("pay", {"n": 8})) is None


def test_same_calls_of_an_unfinished_step_have_a_result_each() -> None:
    stored = {"ok": True, "preview": "", "ms": 1, "sources": []}
    claims = {
        call_id: {"status": "done", "name": "look", "arguments": {}, "result": {**stored, "content": call_id}}
        for call_id in ("one", "two")
    }
    record = record_of([asks(use("look", {}, "one"), use("look", {}, "two"))], claims)
    again = use("look", {})
    assert [content(record.find(again)), content(record.find(again, [again]))] == ["one", "two"]
