"""`output_schema`: an answer is JSON that is valid, repaired once, and told only then; else `output_invalid`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.agents.pattern import Prompt
from service.errors import RunLimit
from service.llm.output_format import output_format
from service.runs.output_form import OutputForm
from service.text.json_schema import JsonSchema
from service.types import Event, RunStatus
from service.wiring import Services
from tests.conftest import RedisServer, wait_until
from tests.llm.wire_server import Exchange, WireServer
from tests.runs import inside
from tests.runs.inside import SINGLE
from tests.runs.scripted import (
    REACT,
    ask,
    bodies,
    call,
    calls,
    holds,
    message,
    says,
    services,
    stream_of,
    tell,
    text_of,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"total": {"type": "integer", "minimum": 1}, "unit": {"type": "string"}},
    "required": ["total"],
}
FREE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {"type": "integer"},
}  # beyond the API's subset
GOOD = '{"total": 3, "unit": "teams"}'
BAD = '{"total": 0}'


def test_a_valid_answer_is_text_and_value(acting: Services, upstream: WireServer) -> None:
    upstream.script.append(stream_of('{"total": 3,', ' "unit": "teams"}'))
    events = tell(acting, output_schema=SCHEMA)
    result = events[-1].data
    assert (result["output"], result["structured"]) == (GOOD, {"total": 3, "unit": "teams"})
    assert text_of(events) == GOOD and len(upstream.requests) == 1
    form = bodies(upstream)[0]["output_config"]["format"]
    assert form["type"] == "json_schema" and form["schema"]["additionalProperties"] is False
    assert "minimum" not in form["schema"]["properties"]["total"]  # the API takes no bounds


def test_an_invalid_answer_is_repaired_once_and_never_told(acting: Services, upstream: WireServer) -> None:
    upstream.script += [stream_of(BAD), stream_of(GOOD)]
    events = tell(acting, output_schema=SCHEMA)
    result = events[-1].data
    assert (text_of(events), result["output"], result["structured"]["total"]) == (GOOD, GOOD, 3)
    assert result["steps"] == 2 and holds(acting) == 0
    told = bodies(upstream)[1]["messages"][0]["content"]
    assert "/total" in told and "<answer>" in told and bodies(upstream)[1]["output_config"]["format"]


def test_an_answer_that_stays_invalid_fails_the_run_and_is_kept(
    acting: Services, upstream: WireServer
) -> None:
    upstream.script += [stream_of("Three teams."), stream_of(BAD)]
    events = tell(acting, output_schema=SCHEMA)
    last = events[-1]
    error = last.data["error"]
    assert (last.name, error["code"], error["status"]) == (Event.RUN_FAILED, "output_invalid", 502)
    assert (last.data["output"], last.data["structured"], text_of(events)) == (BAD, None, BAD)
    assert "/total: minimum" in error["detail"] and len(upstream.requests) == 2
    assert holds(acting) == 0


@pytest.mark.parametrize("door", ["wait", "stream", "queue"])
def test_every_way_to_run_gives_the_same(acting: Services, upstream: WireServer, door: str) -> None:
    upstream.script += [message(says("no JSON")), message(says(GOOD))]
    request = inside.request("Do it.", cache="bypass", output_schema=SCHEMA)
    if door == "queue":
        run = acting.runs.start.queue(inside.ADA, request, None, "req").run
        upstream.script[:] = [stream_of("no JSON"), stream_of(GOOD)]
        assert acting.runs.execution.take_up(run.id)
    elif door == "wait":
        run = acting.runs.start.invoke(inside.ADA, request, None, "req").run
    else:
        upstream.script[:] = [stream_of("no JSON"), stream_of(GOOD)]
        started, told = acting.runs.start.stream(inside.ADA, request, None, "req")
        assert text_of([event for batch in told for event in batch]) == GOOD
        run = started.run
    ended = acting.runs.queries.get(run.id)
    assert ended.status is RunStatus.SUCCEEDED and ended.result is not None
    assert (ended.result["output"], ended.result["structured"]) == (GOOD, json.loads(GOOD))
    assert ended.request.output_schema == SCHEMA


def test_without_a_step_left_nothing_is_repaired(acting: Services, upstream: WireServer) -> None:
    upstream.script.append(message(says(BAD)))
    run = ask(acting, output_schema=SCHEMA, max_steps=1)
    assert run.error is not None and run.error["code"] == "output_invalid" != RunLimit.code
    assert "no step was left" in run.error["detail"] and len(upstream.requests) == 1
    assert run.result is not None and run.result["output"] == BAD


def test_words_ask_for_what_the_api_does_not_take(acting: Services, upstream: WireServer) -> None:
    upstream.script.append(message(says('```json\n{"a": 1}\n```')))
    run = ask(acting, output_schema=FREE)
    assert run.result is not None and (run.result["output"], run.result["structured"]) == (
        '{"a": 1}',
        {"a": 1},
    )
    (body,) = bodies(upstream)
    assert (
        "output_config" not in body and json.dumps(FREE, separators=(",", ":")) in body["system"][-1]["text"]
    )


def test_only_the_final_answer_of_tools_has_the_form(acting: Services, upstream: WireServer) -> None:
    upstream.script += [calls(says("Let me look."), call("echo", {"text": "a"})), message(says(GOOD))]
    run = ask(acting, output_schema=SCHEMA)
    assert run.result is not None and run.result["structured"]["total"] == 3
    assert [use["name"] for use in run.result["tools"]] == ["echo"]
    events = acting.runs.queries.so_far(run.id)
    assert Event.TOOL_CALLED in [event.name for event in events] and text_of(events) == GOOD


def test_a_request_replaces_the_agents_schema(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    spec = SINGLE + "output_schema: {type: object, properties: {a: {type: string}}, required: [a]}\n"
    upstream.script += [message(says('{"a": "x"}')), message(says(GOOD))]
    with services(tmp_path, redis_server.url, upstream, spec) as wired:
        own, asked = ask(wired), ask(wired, output_schema=SCHEMA)
    assert [run.result and run.result["structured"] for run in (own, asked)] == [{"a": "x"}, json.loads(GOOD)]


def test_cached_answers_are_of_one_schema(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    upstream.script += [message(says(GOOD)), message(says("Three."))]
    spec = f"{SINGLE}cache: {{ttl_seconds: 613}}\n"  # a version of its own: other tests have the same Redis
    with services(tmp_path, redis_server.url, upstream, spec) as wired:
        asked = [{"output_schema": SCHEMA}, {"output_schema": SCHEMA}, {}]
        told = [ask(wired, cache="default", **fields).result for fields in asked]
    assert [one and one["cache"] for one in told] == ["miss", "hit", "miss"]
    assert [one and one["structured"] for one in told] == [json.loads(GOOD), json.loads(GOOD), None]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_worker_that_stops_repeats_no_stored_step(
    kept_in_each: Services, upstream: WireServer, steps: int
) -> None:
    """It stops within its first or second step; the next attempt goes on, and the text is told once."""
    wired, ids = kept_in_each, list[str]()

    def stops(exchange: Exchange) -> None:
        wait_until(lambda: ids and wired.runs.supervisor._slots.get(ids[0]), "the run's handle")
        handle = wired.runs.supervisor._slots.get(ids[0])
        assert handle is not None
        handle.stop("drain")
        exchange.wait_for_end()

    upstream.script += [stream_of(BAD), stream_of(GOOD)]
    upstream.script.insert(steps - 1, stops)
    request = inside.request("Do it.", cache="bypass", output_schema=SCHEMA)
    started, told = wired.runs.start.stream(inside.ADA, request, None, "req")
    ids.append(started.run.id)
    for _ in told:
        if wired.runs.queries.get(ids[0]).status is RunStatus.QUEUED:
            break  # else it would be followed until another worker has it
    assert wired.runs.queries.get(started.run.id).status is RunStatus.QUEUED
    assert len(upstream.requests) == steps
    assert wired.runs.execution.take_up(started.run.id)
    run = wired.runs.queries.get(started.run.id)
    assert run.status is RunStatus.SUCCEEDED and run.result is not None and run.attempt == 2
    assert (run.result["output"], run.result["steps"]) == (GOOD, 2)
    whole = wired.runs.queries.so_far(run.id)
    assert text_of(whole) == GOOD and [event.name for event in whole if event.name.is_last] == [
        Event.RUN_COMPLETED
    ]


def test_text_that_cannot_be_kept_is_replaced_in_the_value(acting: Services, upstream: WireServer) -> None:
    upstream.script.append(message(says('{"total": 1, "unit": "a\\u0000b"}')))
    run = ask(acting, output_schema=SCHEMA)
    assert run.result is not None and run.result["structured"] == {"total": 1, "unit": "a\ufffdb"}


def test_tools_are_offered_as_without_a_schema(acting: Services, upstream: WireServer) -> None:
    upstream.script.append(message(says(GOOD)))
    ask(acting, output_schema=SCHEMA)
    assert [tool["name"] for tool in bodies(upstream)[0]["tools"]] == [
        "echo",
        "refund",
        "odd",
    ] and "tools" in REACT


def test_documents_have_no_citations_beside_a_format() -> None:
    document = {"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": True}}
    form = OutputForm(SCHEMA, JsonSchema(SCHEMA), output_format(SCHEMA))
    asked = form.asked(Prompt("Be good.", [{"role": "user", "content": [document, says("Hm?")]}]))
    assert asked.json_schema is not None and "citations" not in asked.messages[0]["content"][0]
    hidden = Prompt("Classify.", [], publish=False)
    assert form.asked(hidden) is hidden
