"""Fallback: the next model of the route answers while no text of the first is published."""

from __future__ import annotations

import pytest

from service.errors import ModelUnavailable
from service.types import Event
from service.wiring import Services
from tests.runs import inside

FIRST, SECOND, THIRD = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"


def away(wired: Services, *models: str) -> None:
    """Their breakers are open, and stay so for as long as a test takes."""
    client = wired.runs.execution.runner.steps.client.client  # type: ignore[attr-defined]
    for name in models:
        breaker = client.breaker(name)
        breaker._circuit._recovery_timeout = 600
        while breaker.state == "closed":
            breaker.record_failure(breaker.allow())


@pytest.mark.parametrize(("gone", "answers"), [((FIRST,), SECOND), ((FIRST, SECOND), THIRD)])
def test_the_next_model_answers(wired: Services, gone: tuple[str, ...], answers: str) -> None:
    away(wired, *gone)
    run = inside.ask(wired, cache="bypass")
    assert run.status == "succeeded" and run.result is not None
    assert run.result["model"].endswith(answers)


def test_stream_has_a_step_event_for_each_model(wired: Services) -> None:
    away(wired, FIRST)
    started, told = wired.runs.start.stream(inside.ADA, inside.request("Who?", cache="bypass"), None, "req")
    events = [event for batch in told for event in batch]
    asked = [event.data["model"] for event in events if event.name is Event.STEP_STARTED]
    assert asked == [FIRST, SECOND] and events[-1].name is Event.RUN_COMPLETED
    assert [event.seq for event in events] == list(range(1, started.run.last_seq + 1))


def test_none_is_left(wired: Services) -> None:
    away(wired, FIRST, SECOND, THIRD)
    run = inside.ask(wired, cache="bypass")
    assert run.status == "failed" and run.error is not None
    assert run.error["code"] == ModelUnavailable.code


def test_answer_with_published_text_has_no_fallback(wired: Services) -> None:
    """A client would read two answers, one after the other."""
    text = "[offline fault=error_event tokens=40] Well?"
    _, told = wired.runs.start.stream(inside.ADA, inside.request(text, cache="bypass"), None, "req")
    events = [event for batch in told for event in batch]
    names = [event.name for event in events]
    assert names.count(Event.STEP_STARTED) == 1 and Event.TEXT_DELTA in names
    assert events[-1].data["error"]["code"] == ModelUnavailable.code
