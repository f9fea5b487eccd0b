"""Spans of runs and of model calls, made by a subscriber of the observer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from service.errors import SlipwayError
from service.observe import genai, tracing
from service.observe.observer import ModelAttempt, Observer, RunPhase
from service.observe.tracing import Span, TraceContext, Tracer
from service.types import Run, Usage, usd

Price = Callable[[str, Usage], str | None]


class Spans(Observer):
    """Makes a span for each attempt at a run, under the request that started it, and for each attempt at a model call.

    A run that waits, or is taken up by another worker, goes on in the same trace: its row has the place of its request.
    """

    def __init__(self, tracer: Tracer, price: Price) -> None:
        self._tracer = tracer
        self._price = price
        self._runs: dict[
            tuple[str, int], tuple[Span, Span | None]
        ] = {}  # with the span that was current before

    def run(self, run: Run, phase: RunPhase, error: Exception | None = None) -> None:
        key = run.id, run.attempt
        if phase == "started":
            span = self._begin(run)
            if span is not None:
                self._runs[key] = span, tracing.current()
                tracing.enter(span)
        elif phase == "over":
            if (found := self._runs.pop(key, None)) is not None:
                span, before = found
                tracing.enter(before)
                span.end()
        elif (found := self._runs.get(key)) is not None and found[0].context.sampled:
            _tell(found[0], run, phase, error)

    def attempt(self, attempt: ModelAttempt) -> None:
        parent = tracing.current()
        if parent is None or not parent.context.sampled:
            return
        began = time.time_ns() - int(attempt.ms * 1e6)
        span = tracing.start(f"{genai.CHAT} {attempt.model}", "client", self._of_call(attempt), began)
        if span is not None:
            if attempt.error_code is not None:
                span.fail(attempt.error_code)
            span.end()

    def _begin(self, run: Run) -> Span | None:
        parent = TraceContext.parse(run.request.trace)
        return self._tracer.begin(
            f"{genai.INVOKE_AGENT} {run.agent}",
            "consumer" if run.mode == "queue" else "internal",
            _of_run(run) if parent is None or parent.sampled else tracing.NO_ATTRIBUTES,
            parent=parent,
        )

    def _of_call(self, attempt: ModelAttempt) -> dict[str, Any]:
        usage = attempt.usage
        return {
            genai.OPERATION: genai.CHAT,
            genai.PROVIDER: genai.provider(attempt.provider),
            genai.REQUEST_MODEL: attempt.model,
            genai.STREAM: attempt.stream,
            genai.MODEL_ATTEMPT: attempt.attempt,
            **(_tokens(usage) if usage is not None else {}),
            genai.COST: self._price(attempt.model, usage) if usage is not None else None,
        }


def _of_run(run: Run) -> dict[str, Any]:
    return {
        genai.OPERATION: genai.INVOKE_AGENT,
        genai.AGENT: run.agent,
        genai.AGENT_VERSION: run.agent_version,
        genai.CONVERSATION: run.request.session_id,
        genai.RUN: run.id,
        genai.ATTEMPT: run.attempt,
        genai.DOOR: run.door,
        genai.USER: run.user_id,
        genai.WORKSPACE: run.workspace_id,
        genai.SCHEDULE: run.request.schedule_id,
        genai.REQUEST_ID: run.request_id,
    }


def _tell(span: Span, run: Run, phase: RunPhase, error: Exception | None) -> None:
    """Tell how an attempt at a run ends: by the run's end, an internal error, or a wait."""
    if phase == "failed":
        span.fail(error.code if isinstance(error, SlipwayError) else type(error).__name__)
    elif phase == "ended":
        result = run.result or {}
        span.set({genai.STATUS: str(run.status), genai.CACHE: run.cache, genai.COST: usd(run.cost_nano)})
        span.set({genai.RESPONSE_MODEL: result.get("model"), **_tokens(run.usage)})
        if result.get("stop_reason"):
            span.set({genai.FINISH_REASONS: [result["stop_reason"]]})
        if run.error is not None:
            span.fail(str(run.error.get("code", "")))
    else:
        span.set({genai.STATUS: phase})


def _tokens(usage: Usage) -> dict[str, int]:
    """Return the tokens of a call; the conventions count what a cache read or wrote as input too."""
    cached, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    return {
        genai.INPUT_TOKENS: usage.input_tokens + cached + written,
        genai.OUTPUT_TOKENS: usage.output_tokens,
        genai.CACHE_READ_TOKENS: cached,
        genai.CACHE_WRITE_TOKENS: written,
    }
