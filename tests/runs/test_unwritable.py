"""Text that no database or wire can carry: replaced, or a failed tool result; the run goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from service.agents.pattern import Context, Events, Prompt, answer_of
from service.errors import RunLimit
from service.types import Answer, Event, RunEvent
from service.wiring import Services
from tests.llm.wire_server import WireServer
from tests.runs import inside
from tests.runs.scripted import ask, call, calls, holds, kept, message, says, stream_of, tell

KEPT = {
    "surrogate": "half \ufffd of a pair",
    "nul": "a\ufffdb",
    "nested surrogate": '{"text":"half \ufffd"}',
    "big": f'{{"n":{2**200}}}',
    "set": "[1,2]",
    "nan": "NaN",
    "sources": "x",
}
FAILED = ["surrogate key", "deep", "bytes", "object", "no sources"]


@pytest.mark.parametrize("kind", [*KEPT, *FAILED, "huge"])
def test_whatever_a_tool_returns_the_run_ends_and_is_paid(
    kept_in_each: Services, upstream: WireServer, kind: str
) -> None:
    upstream.script.append(calls(call("odd", {"kind": kind})))
    run = ask(kept_in_each)
    assert run.result is not None and run.status == "succeeded", run.error
    (result,) = upstream.requests[1].json["messages"][-1]["content"]
    assert result["is_error"] is (kind in FAILED)
    if kind in KEPT:
        assert result["content"] == KEPT[kind]
    if kind == "huge":
        assert len(result["content"]) < 20_100
    assert (len(upstream.requests), holds(kept_in_each)) == (2, 0)
    found = kept_in_each.runs.queries.get(run.id)
    assert (found.status, found.attempt, len(kept(kept_in_each, run))) == ("succeeded", 1, 3)


def test_sources_are_text_with_the_fields_of_the_contract(acting: Services, upstream: WireServer) -> None:
    upstream.script.append(calls(call("odd", {"kind": "sources"})))
    run = ask(acting)
    assert run.result is not None
    (source,) = run.result["sources"]
    assert source["title"] == "half \ufffd" and source["uri"] == str(2**80)
    assert list(source) == ["title", "uri", "quote"]


@pytest.mark.parametrize("depth", [190, 250, 253, 300, 900])
def test_arguments_too_deep_are_a_failed_result(
    kept_in_each: Services, upstream: WireServer, depth: int
) -> None:
    arguments: dict[str, Any] = {"text": "end"}
    for _ in range(depth):
        arguments = {"text": arguments}
    upstream.script.append(calls(call("echo", arguments)))
    run = ask(kept_in_each)
    assert run.result is not None and run.status == "succeeded", run.error
    assert [use["ok"] for use in run.result["tools"]] == [False]
    assert (len(upstream.requests), holds(kept_in_each)) == (2, 0)


def test_nul_and_emoji_are_stored_by_either_database(kept_in_each: Services, upstream: WireServer) -> None:
    said = says("A nul: \0, an emoji: \U0001f600.")
    upstream.script += [calls(said, call("refund", {"order": "\0"})), message(said)]
    run = ask(kept_in_each)
    assert run.status == "succeeded" and run.result is not None, run.error
    assert run.result["output"] == "A nul: \ufffd, an emoji: \U0001f600."
    assert kept_in_each.runs.queries.get(run.id).result == run.result and holds(kept_in_each) == 0


class _Unforeseen:
    """Nothing can encode it."""


def _pattern(value: Any, *, early: bool) -> Any:
    """A pattern that tells, or answers, what cannot be written."""

    def run(context: Context) -> Events[Answer]:
        reply = yield from context.steps.model("answer", Prompt("", context.messages))
        if early:
            journal: Any = context.steps._journal  # type: ignore[attr-defined]
            journal.publish_after_commit(Event.TOOL_FINISHED, {"call_id": "x", "preview": value})
            yield from context.steps.model("again", Prompt("", context.messages))
        return answer_of(reply, sources=[{"title": value}])

    return run


@pytest.mark.parametrize("early", [True, False], ids=["in a step", "in the answer"])
@pytest.mark.parametrize(
    "value", [_Unforeseen(), "half \ud83d", 2**80, {"deep": None}], ids=["object", "surrogate", "int", "deep"]
)
def test_a_run_that_cannot_be_written_ends_as_the_agents_fault(
    kept_in_each: Services, upstream: WireServer, value: Any, early: bool
) -> None:
    """The last line of defence: one last event, paid once, and no worker lost over it."""
    if isinstance(value, dict):
        for _ in range(300):
            value = {"deep": value}
    patterns: Any = kept_in_each.runs.execution.runner.patterns
    kept_in_each.runs.execution.runner.patterns = {
        **patterns,
        "react": SimpleNamespace(run=_pattern(value, early=early)),
    }
    run = ask(kept_in_each)
    assert run.error is not None and (run.status, run.error["code"]) == ("failed", "agent_fault")
    found = kept_in_each.runs.queries.get(run.id)
    assert (found.status, found.attempt, found.losses) == ("failed", 1, 0)
    assert found.cost_nano > 0 and holds(kept_in_each) == 0


def test_run_error_is_kept_when_its_step_cannot_be_stored(
    kept_in_each: Services, upstream: WireServer
) -> None:
    def run(context: Context) -> Events[Answer]:
        yield from context.steps.model("answer", Prompt("", context.messages))
        journal: Any = context.steps._journal  # type: ignore[attr-defined]
        journal.publish_after_commit(Event.TOOL_FINISHED, {"call_id": "x", "preview": _Unforeseen()})
        raise RunLimit()

    patterns: Any = kept_in_each.runs.execution.runner.patterns
    kept_in_each.runs.execution.runner.patterns = {**patterns, "react": SimpleNamespace(run=run)}
    found = kept_in_each.runs.queries.get(ask(kept_in_each).id)
    assert found.error is not None and found.error["code"] == "run_limit"
    assert found.cost_nano > 0 and holds(kept_in_each) == 0


def test_a_nul_in_a_question_is_no_fault_of_the_session(kept_in_each: Services, upstream: WireServer) -> None:
    row = kept_in_each.sessions.new(inside.ADA, "probe", "", None)
    kept_in_each.infra.db.transact(lambda tx: kept_in_each.sessions.create(tx, row))
    run = inside.ask(kept_in_each, "a\0b", session_id=row["id"])
    assert run.status == "succeeded", run.error
    assert kept_in_each.sessions.get(inside.ADA, row["id"])["title"] == "a\ufffdb"


def test_a_stream_that_cannot_be_written_has_one_last_event(
    kept_in_each: Services, upstream: WireServer
) -> None:
    patterns: Any = kept_in_each.runs.execution.runner.patterns
    pattern = _pattern(_Unforeseen(), early=False)
    kept_in_each.runs.execution.runner.patterns = {**patterns, "react": SimpleNamespace(run=pattern)}
    upstream.otherwise = stream_of("Some ", "words.")
    events: list[RunEvent] = tell(kept_in_each)
    last = [event for event in events if event.name.is_last]
    assert [event.name for event in last] == [Event.RUN_FAILED] and events[-1] is last[0]
    assert last[0].data["output"] == "Some words." and holds(kept_in_each) == 0
    stored = kept_in_each.runs.queries.so_far(events[0].data["run_id"])
    numbers = list(range(1, len(events) + 1))
    assert [event.seq for event in events] == numbers == [event.seq for event in stored]
