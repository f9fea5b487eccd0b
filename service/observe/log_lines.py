"""Log lines of runs, model attempts and money, written by a subscriber of the observer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from service.errors import RunCancelled
from service.observe.observer import CALLER_LEFT, ModelAttempt, Observer, RunPhase, Settled
from service.types import Run, Usage

_GIVEN_UP = (CALLER_LEFT, RunCancelled.code)  # by us: no fault of the model
log = logging.getLogger("slipway")
runs_log = logging.getLogger("slipway.runs")
money_log = logging.getLogger("slipway.money")


class LogLines(Observer):
    """Writes a line for each event of the observer. `price` converts usage to dollars; None without a price."""

    def __init__(self, price: Callable[[str, Usage], str | None]) -> None:
        self._price = price

    def run(self, run: Run, phase: RunPhase, error: Exception | None = None) -> None:
        about = {"run_id": run.id}
        if phase == "waits_for_approval":
            runs_log.info("run_waits_for_approval", extra=about)
        elif phase == "waits_for_batch":
            runs_log.info("run_waits_for_batch", extra=about)
        elif phase == "waits_for_budget":
            runs_log.info("run_waits_for_budget", extra=about)
        elif phase == "paused":
            runs_log.info("run_paused", extra=about)
        elif phase == "released":
            runs_log.warning("run_released", extra={**about, "why": type(error).__name__})
        elif phase == "failed":
            runs_log.error("run_failed", exc_info=error, extra={**about, "kind": type(error).__name__})

    def attempt(self, attempt: ModelAttempt) -> None:
        usage = attempt.usage
        fields = {
            "model": attempt.model,
            "provider": attempt.provider,
            "attempt": attempt.attempt,
            "ok": attempt.ok,
            "latency_ms": round(attempt.ms, 1),
            "error_code": attempt.error_code,
            "input_tokens": usage.input_tokens if usage else None,
            "output_tokens": usage.output_tokens if usage else None,
            "cost_usd": self._price(attempt.model, usage) if usage else None,
            "stream": attempt.stream,
        }
        if attempt.ok or attempt.error_code in _GIVEN_UP:
            log.info("llm_call", extra=fields)
        else:  # in production too, where INFO is not logged: without it nothing tells why a breaker opened
            log.warning("llm_call", extra=fields)

    def settlement(self, settled: Settled) -> None:
        if settled.cost > settled.held:  # never seen yet: a bound of ours would not hold
            about = {"hold": settled.hold_id, "model": settled.model}
            money_log.error("hold_overrun", extra={**about, "held": settled.held, "cost": settled.cost})

    def budget_warning(self, scope: str, percent: int, public: Mapping[str, Any]) -> None:
        money_log.warning("budget_warning", extra=public)
