"""The observer: each thing is told once, to every subscriber."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from service.errors import ModelRejected
from service.observe.log_lines import LogLines
from service.observe.observer import CALLER_LEFT, ModelAttempt, Observer, RunPhase, Settled
from service.types import Run, Usage
from tests.runs.house import asked, run_of

USAGE = Usage(10, 5)
SETTLED = Settled("hld_1", "support", "claude", USAGE, 1_500, 2_000)
ATTEMPT = ModelAttempt("claude", 1, True, 12.34, USAGE, None, stream=True)


class Recorder(Observer):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def run(self, run: Run, phase: RunPhase, error: Exception | None = None) -> None:
        self.told.append((run.id, phase, error))

    def settlement(self, settled: Settled) -> None:
        self.told.append(settled)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.message) for record in caplog.records]


def test_every_subscriber_gets_its_events() -> None:
    first, second = Recorder(), Recorder()
    observer = Observer(first, second)
    run = run_of(asked("Hello"))
    observer.run(run, "started")
    observer.settlement(SETTLED)
    for method, arguments in (
        (observer.step, (run, "model", "answer")),
        (observer.attempt, (ATTEMPT,)),
        (observer.tool, ("calculator", True, 4.0)),
        (observer.context, ("support", "claude", 0.5)),
        (observer.first_text, ("support", 0.5)),
        (observer.escalated, ("support",)),
        (observer.budget_refused, ("user",)),
        (observer.budget_warning, ("user", 80, {})),
    ):
        method(*arguments)  # type: ignore[operator]
    assert first.told == second.told == [(run.id, "started", None), SETTLED]


def test_lines_of_a_run(caplog: pytest.LogCaptureFixture) -> None:
    run, log_lines = run_of(asked("Hello")), LogLines(lambda model, usage: None)
    with caplog.at_level(logging.INFO, "slipway"):
        log_lines.run(run, "started")
        log_lines.run(run, "waits_for_approval")
        log_lines.run(run, "waits_for_batch")
        log_lines.run(run, "released", KeyError())
        log_lines.run(run, "failed", ModelRejected())
    assert lines(caplog) == [
        ("INFO", "run_waits_for_approval"),
        ("INFO", "run_waits_for_batch"),
        ("WARNING", "run_released"),
        ("ERROR", "run_failed"),
    ]
    released, failed = (vars(record) for record in caplog.records[2:])
    assert (released["run_id"], released["why"]) == (run.id, "KeyError")
    assert failed["kind"] == "ModelRejected" and failed["exc_info"][0] is ModelRejected


def test_the_line_of_an_attempt_has_its_price(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "slipway"):
        LogLines(lambda model, usage: f"{model} {usage.input_tokens}").attempt(ATTEMPT)
    (record,) = map(vars, caplog.records)
    assert (record["message"], record["latency_ms"], record["cost_usd"]) == ("llm_call", 12.3, "claude 10")
    assert (record["output_tokens"], record["error_code"], record["stream"]) == (5, None, True)


def test_a_failed_attempt_is_told_where_only_warnings_are(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "slipway"):
        log_lines = LogLines(lambda model, usage: None)
        log_lines.attempt(ATTEMPT)
        log_lines.attempt(replace(ATTEMPT, ok=False, error_code=CALLER_LEFT))
        log_lines.attempt(replace(ATTEMPT, ok=False, error_code="model_error"))
    assert lines(caplog) == [("WARNING", "llm_call")]


def test_a_call_that_cost_more_than_was_held_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    log_lines = LogLines(lambda model, usage: None)
    log_lines.settlement(SETTLED)
    log_lines.settlement(SETTLED._replace(cost=2_001))
    assert lines(caplog) == [("ERROR", "hold_overrun")]
