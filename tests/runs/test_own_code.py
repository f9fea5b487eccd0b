"""Runs of agents of their own code: its freedoms, and its mistakes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from service.agents import requested_steps
from service.errors import AgentFault
from service.types import Event, RunStatus
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer, whole
from tests.runs import coded
from tests.runs.coded import SPEC, WHOLE, body
from tests.runs.scripted import ask, bodies, call, calls, holds, kept, message, says, stream_of, tell, text_of

Made = Callable[..., AbstractContextManager[Services]]


@pytest.fixture
def made(tmp_path: Path, redis_server: RedisServer, upstream: WireServer) -> Made:
    return partial(coded.services, tmp_path, redis_server.url, upstream)


@pytest.fixture
def faults(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[tuple[str, str]]]]:
    """Error and place of each logged fault of the code."""
    with caplog.at_level(logging.WARNING, "slipway.agents"):
        yield lambda: [
            (getattr(record, "error", ""), getattr(record, "line", ""))
            for record in caplog.records
            if record.getMessage() == "agent_code_failed"
        ]


def test_steps_are_made_in_the_order_of_the_code(made: Made, upstream: WireServer) -> None:
    upstream.script = [calls(call("echo", {"text": "all"})), message(says("Paid."))]
    with made(WHOLE) as wired:
        run = ask(wired)
        steps = [(row["kind"], row["name"]) for row in kept(wired, run) if row["kind"] != "note"]
        assert holds(wired) == 0
    assert run.result is not None and (run.status, run.result["output"]) == ("succeeded", "Paid.")
    assert steps == [("model", "plan"), ("tools", "act"), ("tools", "pay"), ("model", "answer")]
    assert [use["name"] for use in run.result["tools"]] == ["echo", "refund"]
    assert bodies(upstream)[1]["messages"][-1]["content"] == "refunded all"


def test_hidden_reply_is_told_with_the_end(made: Made, upstream: WireServer) -> None:
    upstream.script = [message(says("A draft."))]
    code = """
def run(context):
    reply = yield from context.steps.model("draft", Prompt("Be good.", context.messages, publish=False))
    return Answer(reply.text.upper(), "end_turn", reply.model)
"""
    with made(code) as wired:
        told = tell(wired)
    assert text_of(told) == told[-1].data["output"] == "A DRAFT."


def test_published_reply_is_told_once(made: Made, upstream: WireServer) -> None:
    upstream.script = [stream_of("Good ", "day.")]
    code = """
def run(context):
    reply = yield from context.steps.model("answer", Prompt("Be good.", context.messages))
    return Answer(reply.text + " Bye.", "end_turn", reply.model, sources=({"title": "T", "more": "x"},))
"""
    with made(code) as wired:
        told = tell(wired)
    assert text_of(told) == told[-1].data["output"] == "Good day. Bye."
    assert told[-1].data["sources"] == [{"title": "T", "uri": "", "quote": ""}]


@pytest.mark.parametrize("door", [ask, tell])
def test_code_without_a_step_answers(made: Made, door: Callable[[Services], object]) -> None:
    with made(body()) as wired:
        door(wired)
        [run] = [wired.runs.queries.get(one["id"]) for one in coded.all_runs(wired)]
    assert run.result is not None and (run.status, run.result["output"]) == ("succeeded", "x")


def test_a_tool_that_the_agent_does_not_list_is_not_called(made: Made) -> None:
    code = body(
        'done = yield from context.steps.call_tool("look", "calculator", {"expression": "1"})',
        'return Answer(done.content, "end_turn", "m")',
    )
    with made(code) as wired:
        run = ask(wired)
    assert run.result is not None and run.result["output"] == "There is no tool named calculator."


def test_a_call_by_name_asks_a_person_first(made: Made) -> None:
    code = body('yield from context.steps.call_tool("pay", "refund", {"order": "7"})')
    with made(code, f"{SPEC}approvals: [refund]\n") as wired:
        run = ask(wired)
        assert run.status is RunStatus.WAITING_APPROVAL
        coded.approve(wired, run.id)
        assert wired.runs.execution.take_up(run.id)
        run = wired.runs.queries.get(run.id)
        told = [event.name for event in wired.runs.queries.so_far(run.id)]
    assert run.result is not None and [use["ok"] for use in run.result["tools"]] == [True]
    assert told.count(Event.TOOL_CALLED) == told.count(Event.APPROVAL_REQUIRED) == 1


def test_what_the_code_changes_is_not_what_the_run_keeps(made: Made, upstream: WireServer) -> None:
    upstream.script = [message(says("One.")), message(says("Two."))]
    code = """
def run(context):
    context.messages[-1]["content"] = "changed"
    reply = yield from context.steps.model("one", Prompt("Be good.", context.messages))
    reply.content.append({"type": "text", "text": "changed"})
    return answer_of((yield from context.steps.model("two", Prompt("Be good.", context.messages))))
"""
    with made(code) as wired:
        run = ask(wired)
        stored = [row["reply"]["content"] for row in kept(wired, run) if row["kind"] == "model"]
    assert [len(content) for content in stored] == [1, 1] and run.request.question == "Do it."


def after_a_step(*lines: str) -> str:
    return body('yield from context.steps.call_tool("first", "echo", {"text": "a"})', *lines)


NO_STEP = ("`run` yielded something else than a step: use `yield from`", "agent.py:6")
MISTAKES = {
    "raises": (after_a_step("{}['hush']"), ("KeyError", "agent.py:6")),
    "exits": (after_a_step("raise SystemExit('hush')"), ("SystemExit", "agent.py:6")),
    "returns another thing": (after_a_step("return {'output': 'x'}"), None),
    "answers with another type": (after_a_step("return Answer(b'x', 'end_turn', 'm')"), None),
    "yields another thing": (after_a_step("yield 'text'"), NO_STEP),
    "yields a step unentered": (after_a_step("yield context.steps.call_tool('a', 'echo', {})"), NO_STEP),
    "has a name that is none": (
        after_a_step("yield from context.steps.call_tool('', 'echo', {})"),
        ("TypeError", "agent.py:6"),
    ),
    "has a prompt that is none": (
        after_a_step("yield from context.steps.model('a', 'hush')"),
        ("TypeError", "agent.py:6"),
    ),
    "makes calls up": (
        after_a_step(
            "from service.agents import ModelReply",
            "use = {'type': 'tool_use', 'id': 'toolu_1', 'name': 'refund', 'input': {}}",
            "yield from context.steps.tools('a', ModelReply('m', [use], 'tool_use', ()))",
        ),
        ("TypeError", "agent.py:8"),
    ),
    "has arguments that are no JSON": (
        after_a_step("yield from context.steps.call_tool('a', 'echo', {'text': object()})"),
        ("TypeError", "agent.py:6"),
    ),
    "has too large arguments": (
        after_a_step("yield from context.steps.call_tool('a', 'echo', {'text': 'x' * 2_000_000})"),
        ("TypeError", "agent.py:6"),
    ),
    "answers with too much": (after_a_step("return Answer('x' * 2_000_000, 'end_turn', 'm')"), None),
    "quotes too much": (
        after_a_step("return Answer('x', 'end_turn', 'm', sources=({'quote': 'x' * 20_000},))"),
        None,
    ),
    "reaches for more": (after_a_step("context.steps.seconds_left()"), ("AttributeError", "agent.py:6")),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_the_run_with_agent_fault(
    made: Made, faults: Callable[[], list[tuple[str, str]]], mistake: str
) -> None:
    code, place = MISTAKES[mistake]
    with made(code) as wired:
        last = tell(wired)[-1]
    assert (last.name, last.data["error"]["code"]) == (Event.RUN_FAILED, "agent_fault")
    assert "hush" not in str(last.data)
    [logged] = faults()
    assert logged == place or place is None


def test_a_mistake_before_the_first_step_leaves_no_run(made: Made) -> None:
    with made(body("raise ValueError('hush')")) as wired:
        for door in (ask, tell):
            with pytest.raises(AgentFault, match=r"^The agent failed$"):
                door(wired)
        assert coded.all_runs(wired) == []


def test_own_error_is_for_the_caller(made: Made) -> None:
    code = after_a_step("from service.agents import AgentFault", "raise AgentFault('Name an order.')")
    with made(code) as wired:
        run = ask(wired)
    assert run.error is not None
    assert (run.error["code"], run.error["detail"]) == ("agent_fault", "Name an order.")


def test_the_limit_of_steps_holds(made: Made, upstream: WireServer) -> None:
    code = """
def run(context):
    while True:
        try:
            yield from context.steps.model("again", Prompt("Be good.", context.messages))
        except Exception:
            pass
"""
    with made(code) as wired:
        run = ask(wired)
        assert holds(wired) == 0
    assert run.error is not None and run.error["code"] == "run_limit"
    assert len(upstream.requests) == 3


def test_the_limit_of_calls_by_name_holds(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requested_steps, "MAX_CALLS", 3)
    code = """
def run(context):
    while True:
        yield from context.steps.call_tool("again", "echo", {"text": "a"})
"""
    with made(code) as wired:
        run = ask(wired)
    assert run.error is not None and run.error["code"] == "run_limit"
    assert run.result is not None and run.result["steps"] == 3


@pytest.mark.parametrize("loop", ["while True: pass", "import time; time.sleep(15)"])
def test_code_that_hangs_is_left_behind_at_the_deadline(made: Made, loop: str) -> None:
    spec = SPEC.replace("seconds: 20", "seconds: 1")
    hanging = 'reply = yield from context.steps.model("one", Prompt("Be good.", context.messages))'
    loop = loop.replace(
        "while True: pass", "import time; end = time.time() + 3\n    while time.time() < end: pass"
    )
    with made(body(hanging, loop), spec) as wired:
        run = ask(wired)
        assert holds(wired) == 0
    assert run.error is not None and run.error["code"] == "run_timeout"


def test_finally_blocks_run_when_a_step_ends_the_run(
    made: Made, upstream: WireServer, tmp_path: Path
) -> None:
    upstream.script = [whole({"type": "error", "error": {"type": "invalid_request_error"}}, 400)]
    code = f"""
def run(context):
    try:
        return answer_of((yield from context.steps.model("one", Prompt("Be good.", context.messages))))
    finally:
        import pathlib, threading
        pathlib.Path({str(tmp_path / "closed")!r}).write_text(threading.current_thread().name)
"""
    with made(code) as wired:
        run = ask(wired)
    assert run.error is not None and run.error["code"] == "model_rejected"
    assert (tmp_path / "closed").read_text() == "agent-code"  # and not in the run's thread
