"""`Steps.say`: text between steps is told once, also by a run that is resumed after it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from service.agents.pattern import Context, Events, Prompt, answer_of
from service.types import Answer
from service.wiring import Services
from tests.llm.wire_server import WireServer
from tests.runs.killed import assert_whole, told_with_a_loss
from tests.runs.scripted import ask, tell, text_of

WORDS = ("Before. ", "Between. ", "After.")


def talk(context: Context) -> Events[Answer]:
    """Say a word before, between and after two hidden steps."""
    prompt = Prompt(context.system, context.messages, publish=False)
    context.steps.say(WORDS[0])
    yield from context.steps.model("one", prompt)
    context.steps.say(WORDS[1])
    reply = yield from context.steps.model("two", prompt)
    context.steps.say("")
    context.steps.say(WORDS[2])
    return replace(answer_of(reply), output="".join(WORDS))


@pytest.fixture
def talking(kept_in_each: Services) -> Services:
    kept_in_each.runs.execution.runner.patterns = {"react": SimpleNamespace(run=talk)}  # type: ignore[dict-item]
    return kept_in_each


def test_every_word_is_told_where_it_was_said(talking: Services) -> None:
    events = tell(talking)
    assert_whole(events)
    named = [event.data.get("text") or event.data.get("name", "") for event in events[:-1]]
    assert [one for one in named if one] == ["Before. ", "one", "Between. ", "two", "After."]
    run = ask(talking)
    assert run.result is not None and run.result["output"] == text_of(talking.runs.queries.so_far(run.id))


@pytest.mark.parametrize("step", [1, 2])
def test_worker_lost_in_a_step_repeats_no_word(talking: Services, upstream: WireServer, step: int) -> None:
    events = told_with_a_loss(talking, upstream, step)
    assert_whole(events)
    assert text_of(events) == "".join(WORDS)
