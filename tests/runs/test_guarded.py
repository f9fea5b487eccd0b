"""Guardrails on runs: the model reads placeholders, tools get true values, clients get what the policy says."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.errors import GuardrailRefused
from service.types import Event, RunStatus
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer
from tests.runs import guarded, inside, scripted
from tests.runs.guarded import BOTH, IN, MAIL, OTHER, OUT
from tests.runs.scripted import call, calls, message, says, stream_of
from tests.runs.turns import begin, shown

Guarded = Callable[..., Services]
MARK = re.compile(r"\[EMAIL_[0-9]+\]")


@pytest.fixture
def guard(tmp_path: Path, redis_server: RedisServer, upstream: WireServer) -> Iterator[Guarded]:
    made = []

    def make(rails: str, spec: str = guarded.SPEC, **settings: Any) -> Services:
        context = guarded.services(tmp_path, redis_server.url, upstream, rails, spec, **settings)
        made.append(context)
        return context.__enter__()

    yield make
    for context in made:
        context.__exit__(None, None, None)


def placeholder(upstream: WireServer, number: int = -1) -> str:
    """Return the only placeholder in a request to the model."""
    found = set(MARK.findall(json.dumps(scripted.bodies(upstream)[number])))
    assert len(found) == 1, found
    return found.pop()


def test_model_reads_a_placeholder_and_its_tool_gets_the_value(guard: Guarded, upstream: WireServer) -> None:
    wired = guard(IN)
    upstream.script = [
        lambda exchange: calls(call("send", {"to": f"<{placeholder(upstream)}>"}))(exchange),
        lambda exchange: message(says(f"Sent to {placeholder(upstream)}."))(exchange),
    ]
    run = inside.ask(wired, f"Write to {MAIL}, please.", cache="bypass")
    assert MAIL not in json.dumps(scripted.bodies(upstream)), (
        "in no request, nor in the turn with its own call"
    )
    assert guarded.sent(wired, run) == [f"sent to <{MAIL}>"]
    assert run.result is not None and MARK.fullmatch(run.result["output"].removeprefix("Sent to ")[:-1])
    assert run.result["input"] == f"Write to {MAIL}, please.", "as it was asked"


def test_result_of_a_tool_is_filtered_too(guard: Guarded, upstream: WireServer) -> None:
    wired = guard(IN)
    upstream.script = [
        calls(call("look_up", {"who": "Grace"})),
        lambda exchange: calls(call("send", {"to": placeholder(upstream)}, "toolu_2"))(exchange),
        message(says("Done.")),
    ]
    events = wired.runs.queries.so_far(inside.ask(wired, "Write to Grace.", cache="bypass").id)
    assert OTHER not in json.dumps(scripted.bodies(upstream))
    called = [event.data["arguments"] for event in events if event.name is Event.TOOL_CALLED]
    assert called == [{"who": "Grace"}, {"to": OTHER}], "what comes out is not under any policy"
    assert guarded.acted(events) == [("tool", "email", "redact", 1)] * 2, (
        "its address, and that it was sent to"
    )
    rows = guarded.audited(wired)
    assert rows[0]["details"]["acted"] == [{"where": "tool", "kind": "email", "action": "redact", "count": 1}]
    assert OTHER not in str(rows)


@pytest.mark.parametrize("seed", range(4))
def test_no_chunking_lets_a_value_out(guard: Guarded, upstream: WireServer, seed: int) -> None:
    wired, chance = guard(OUT), random.Random(seed)
    text = f"You can reach her: {OTHER}. Or him: {MAIL}."
    cuts = sorted(chance.sample(range(1, len(text)), 12)) if seed else range(1, len(text))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    upstream.script = [stream_of(*pieces)]
    events = scripted.tell(wired)
    told = scripted.text_of(events)
    assert re.sub(r"_[0-9]+", "", told) == "You can reach her: [EMAIL]. Or him: [EMAIL]."
    assert events[-1].data["output"] == told
    assert guarded.acted(events) == [("output", "email", "redact", 2)]
    assert not re.search("grace|navy|lovelace|engine", str(events))


def test_whole_answer_and_events_of_tools_are_filtered(guard: Guarded, upstream: WireServer) -> None:
    wired = guard(OUT)
    upstream.script = [
        calls(says(f"I ask {OTHER}."), call("send", {"to": OTHER})),
        message(says(f"Asked {OTHER}.")),
    ]
    run = inside.ask(wired, "Ask her.", cache="bypass")
    assert guarded.sent(wired, run) == [f"sent to {OTHER}"], "the tool has the true value"
    events = wired.runs.queries.so_far(run.id)
    assert OTHER not in str(events) and OTHER not in str(run.result)
    assert {event.name for event in events} > {Event.TOOL_CALLED, Event.TOOL_FINISHED, Event.TEXT_DELTA}


def test_preview_that_is_cut_ends_before_half_a_value(guard: Guarded, upstream: WireServer) -> None:
    wired = guard(OUT)
    long = "x " * 94 + OTHER
    upstream.script = [calls(call("send", {"to": long})), message(says("Done."))]
    run = inside.ask(wired, "Ask her.", cache="bypass")
    (preview,) = [
        e.data["preview"] for e in wired.runs.queries.so_far(run.id) if e.name is Event.TOOL_FINISHED
    ]
    assert preview.endswith("…") and "grace" not in preview


def test_refused_question_spends_nothing(guard: Guarded, upstream: WireServer) -> None:
    wired = guard("guardrails: {input: {email: refuse}}\n")
    with pytest.raises(GuardrailRefused) as refused:
        inside.ask(wired, f"Write to {MAIL}.", cache="bypass")
    assert refused.value.extra == {"where": "input", "kind": "email"} and MAIL not in str(refused.value)
    with pytest.raises(GuardrailRefused):
        scripted.tell(wired, context=json.dumps({"deep": [{"to": MAIL}]}))
    assert not upstream.requests
    rows = guarded.audited(wired)
    assert [(row["result"], row["subject"]) for row in rows] == [("refused", "agent:probe")] * 2
    assert MAIL not in str(rows)
    assert inside.ask(wired, "Write to her.", cache="bypass").status == RunStatus.SUCCEEDED


def test_refused_task_fails_before_its_first_call(guard: Guarded, upstream: WireServer) -> None:
    wired = guard("guardrails: {input: {email: refuse}}\n")
    run = wired.runs.start.queue(inside.ADA, inside.request(f"To {MAIL}."), None, "req").run
    assert wired.runs.execution.take_up(run.id)
    found = wired.runs.queries.get(run.id)
    assert (found.status, found.cost_nano) == (RunStatus.FAILED, 0)
    assert found.error is not None and found.error["code"] == "guardrail_refused"
    assert guarded.acted(wired.runs.queries.so_far(run.id)) == [("input", "email", "refuse", 1)]
    assert not upstream.requests


@pytest.mark.parametrize("streams", [True, False])
def test_refused_answer_fails_and_is_paid(guard: Guarded, upstream: WireServer, *, streams: bool) -> None:
    wired = guard("guardrails: {output: {email: refuse}}\n")
    pieces = ("Reach her at grace.", "hopper@navy.exam", "ple, or at home.")
    upstream.script = [stream_of(*pieces) if streams else message(says("".join(pieces)))]
    if streams:
        events = scripted.tell(wired)
        run = wired.runs.queries.get(events[-1].data["run_id"])
        assert scripted.text_of(events) == "Reach her at "
    else:
        run = inside.ask(wired, "Who?", cache="bypass")
        events = wired.runs.queries.so_far(run.id)
    assert (events[-1].name, run.error and run.error["code"]) == (Event.RUN_FAILED, "guardrail_refused")
    assert run.cost_nano > 0 and scripted.holds(wired) == 0
    assert guarded.acted(events) == [("output", "email", "refuse", 1)]
    assert "navy" not in str(events) and "navy" not in str(scripted.kept(wired, run))


def test_refused_result_of_a_tool_ends_the_run(guard: Guarded, upstream: WireServer) -> None:
    wired = guard("guardrails: {input: {email: refuse}}\n")
    upstream.script = [calls(call("look_up", {"who": "Grace"}))]
    run = inside.ask(wired, "Look her up.", cache="bypass")
    assert run.error is not None
    assert (run.error["code"], run.error["where"]) == ("guardrail_refused", "tool")
    assert len(upstream.requests) == 1 and OTHER not in str(run.result)


def test_session_has_the_same_placeholders(guard: Guarded, upstream: WireServer) -> None:
    wired = guard(BOTH)
    session_id = begin(wired)
    upstream.script = [
        calls(call("look_up", {"who": "Grace"})),
        lambda exchange: message(says(f"It is {placeholder(upstream)}."))(exchange),
    ]
    first = inside.ask(wired, "Look her up.", session_id=session_id)
    mark = placeholder(upstream)
    upstream.script = [calls(call("send", {"to": mark})), message(says("Sent."))]
    run = inside.ask(wired, "Write to her.", session_id=session_id)
    assert guarded.sent(wired, run) == [f"sent to {OTHER}"], "which no prompt of this turn has held"
    assert first.result is not None and first.result["output"] == f"It is {mark}."
    assert OTHER not in json.dumps(scripted.bodies(upstream))
    upstream.script = [message(says("Yes."))]
    inside.ask(wired, f"Was it {OTHER}?", session_id=session_id)
    assert placeholder(upstream) == mark


def test_title_and_messages_of_a_session(guard: Guarded, upstream: WireServer) -> None:
    wired = guard(BOTH)
    session_id = begin(wired)
    upstream.script = [message(says(f"Not {OTHER}?"))]
    inside.ask(wired, f"Is it {MAIL}?", session_id=session_id)
    question, answer = shown(wired, session_id)
    assert question["content"] == f"Is it {MAIL}?", "a transcript is its user's own"
    assert MARK.fullmatch(answer["content"][4:-1])
    title = wired.sessions.get(inside.ADA, session_id)["title"]
    assert MARK.search(title) and MAIL not in title


def test_workspace_and_agent_the_stricter_wins(guard: Guarded, upstream: WireServer) -> None:
    wired = guard(OUT)
    guarded.of_workspace(wired, {"output": {"email": "mask"}, "input": {"email": "redact"}})
    upstream.script = [message(says(f"It is {OTHER}."))]
    run = inside.ask(wired, f"Is it {MAIL}?", cache="bypass")
    assert run.result is not None and run.result["output"] == "It is [EMAIL]."
    assert MAIL not in json.dumps(scripted.bodies(upstream))
    guarded.of_workspace(wired, {})
    upstream.script = [message(says(f"It is {OTHER}."))]
    run = inside.ask(wired, "Is it her?", cache="bypass")
    assert run.result is not None and MARK.search(run.result["output"])


def test_cached_answer_is_that_of_the_guardrails_in_force(guard: Guarded, upstream: WireServer) -> None:
    wired = guard(
        "cache: {ttl_seconds: 60}\n", guarded.SPEC.replace("tools: [look_up, send]", "tools: [look_up]")
    )
    upstream.script = [message(says(f"It is {OTHER}."))] * 2
    first, again = (inside.ask(wired, "Who is it, then?") for _ in range(2))
    assert (first.cache, again.cache) == ("miss", "hit")
    guarded.of_workspace(wired, {"output": {"email": "mask"}})
    run = inside.ask(wired, "Who is it, then?")
    assert (run.cache, run.result and run.result["output"]) == ("miss", "It is [EMAIL].")


def test_structured_answer_is_filtered_by_its_values(guard: Guarded, upstream: WireServer) -> None:
    wired = guard(OUT)
    schema = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
    upstream.script = [message(says('{"to": "grace.hopper\\u0040navy.example"}'))]
    run = inside.ask(wired, "Who?", cache="bypass", output_schema=schema)
    assert run.result is not None and MARK.fullmatch(run.result["structured"]["to"])
    events = wired.runs.queries.so_far(run.id)
    assert "navy" not in str(events) and "navy" not in str(run.result)


def test_approval_shows_its_person_the_true_value(guard: Guarded, upstream: WireServer) -> None:
    wired = guard("approvals: [send]\n" + BOTH)
    upstream.script = [
        lambda exchange: calls(call("send", {"to": placeholder(upstream)}))(exchange),
        message(says("Sent.")),
    ]
    run = inside.ask(wired, f"Write to {MAIL}.", cache="bypass")
    assert run.status is RunStatus.WAITING_APPROVAL
    events = wired.runs.queries.so_far(run.id)
    assert MAIL not in str([event for event in events if event.name is Event.APPROVAL_REQUIRED])
    from service.store import approvals

    (row,) = wired.infra.db.query(lambda tx: approvals.of_run(tx, run.id))
    assert row["arguments"] == {"to": MAIL}


def test_agent_without_guardrails_is_as_it_was(guard: Guarded, upstream: WireServer) -> None:
    wired = guard("")
    upstream.script = [stream_of("It is [EMAIL_1]: ", OTHER)]
    events = scripted.tell(wired)
    assert scripted.text_of(events) == f"It is [EMAIL_1]: {OTHER}" and not guarded.acted(events)
    assert not guarded.audited(wired)


def test_arguments_are_filtered_however_deep(guard: Guarded, upstream: WireServer) -> None:
    wired = guard(BOTH)
    deep: Any = OTHER
    for _ in range(150):
        deep = [deep]
    upstream.script = [calls(call("send", {"to": deep})), message(says("Done."))]
    run = inside.ask(wired, "Ask her.", cache="bypass")
    assert OTHER not in str(wired.runs.queries.so_far(run.id))
    assert OTHER not in str(scripted.bodies(upstream)[-1])
