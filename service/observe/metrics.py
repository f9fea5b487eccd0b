"""Metrics of one process: of the observer's events, of HTTP, of parts. They are listed in `metric_table`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from service.observe.metric_files import of_tasks
from service.observe.metric_values import OTHER, MergedFolders, made
from service.observe.observer import ModelAttempt, Observer, RunPhase, Settled
from service.observe.traffic import Traffic
from service.types import NANO, Run

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "(none)"})
_PROBES = frozenset({"/health", "/ready", "/metrics"})  # not the traffic of clients
_KINDS = ("input", "output", "cache_read", "cache_creation")
_ATTEMPTS = ("1", "2")
_MORE_ATTEMPTS = "3+"


class Metrics(Observer):
    """Counters, gauges and histograms of one process.

    Labels are bounded: route templates, agent ids, never ids of users."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.counted = made(self._registry)
        self.traffic = Traffic()
        self._read: list[Collector] = []
        self.counted["redis_up"].set(1)
        self.counted["audit_intact"].set(1)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        if route not in _PROBES:
            self.traffic.note(status, seconds)
        known = method if method in _METHODS else OTHER  # a client may send any word
        self.counted["http_requests"](route, known, str(status)).inc()
        self.counted["http_request_seconds"](route).observe(seconds)

    def run(self, run: Run, phase: RunPhase, error: Exception | None = None) -> None:
        if phase == "started":
            self.counted["runs_active"].inc()
        elif phase == "over":
            self.counted["runs_active"].dec()
        elif phase == "ended":
            self.counted["runs"](run.agent, str(run.status)).inc()
            self.counted["run_cost_usd"](run.agent).observe(run.cost_nano / NANO)
            if run.finished_at is not None:
                self.counted["run_seconds"](run.agent).observe(
                    max(0, run.finished_at - run.created_at) / 1000
                )

    def first_text(self, agent: str, seconds: float) -> None:
        self.counted["run_first_token_seconds"](agent).observe(max(0.0, seconds))

    def escalated(self, agent: str) -> None:
        self.counted["escalations"](agent).inc()

    def attempt(self, attempt: ModelAttempt) -> None:
        model, provider, number = attempt.model, attempt.provider, attempt.attempt
        label = _ATTEMPTS[number - 1] if number <= len(_ATTEMPTS) else _MORE_ATTEMPTS
        self.counted["model_calls"](model, attempt.error_code or "ok", provider, label).inc()
        self.counted["model_call_seconds"](model).observe(attempt.ms / 1000)
        self.counted["breaker_open"](model, provider).set(int(attempt.breaker_open))
        if attempt.first_ms is not None:
            self.counted["model_first_token_seconds"](model).observe(attempt.first_ms / 1000)
        for kind, share in attempt.headroom:
            self.counted["provider_limit_remaining_ratio"](provider, model, kind).set(share)

    def context(self, agent: str, model: str, share: float) -> None:
        self.counted["context_used_ratio"](agent, model).observe(share)

    def tool(self, name: str, ok: bool, ms: float) -> None:
        self.counted["tool_calls"](name, "true" if ok else "false").inc()
        self.counted["tool_call_seconds"](name).observe(ms / 1000)

    def approval(self, agent: str, decision: str, seconds: float) -> None:
        """Count an approval that was `approved`, `denied` or `expired`, that many seconds after it was requested."""
        self.counted["approvals"](agent, decision).inc()
        self.counted["approval_decision_seconds"](decision).observe(max(0.0, seconds))

    def guardrail(self, where: str, kind: str, action: str) -> None:
        self.counted["guardrail"](where, kind, action).inc()

    def settlement(self, settled: Settled) -> None:
        agent, model = settled.agent, settled.model
        self.counted["cost_usd"](agent, model).inc(settled.cost / NANO)
        for kind, amount in zip(_KINDS, settled.usage, strict=False):
            if amount:
                self.counted["tokens"](agent, model, kind).inc(amount)
        self.saved(agent, "prompt", settled.saved)
        self.saved(agent, "batch", settled.batch_saved)
        if settled.cost > settled.held:
            self.counted["hold_overruns"].inc()

    def saved(self, agent: str, layer: str, nano: int) -> None:
        """Count what was not spent; `layer`: `prompt`, `batch`, or the cache result of an answer."""
        if nano > 0:
            self.counted["saved_usd"](agent, layer).inc(nano / NANO)

    def budget_refused(self, scope: str) -> None:
        self.counted["budget_refused"](scope).inc()

    def budget_warning(self, scope: str, percent: int, public: Mapping[str, Any]) -> None:
        self.counted["budget_warnings"](scope, str(percent)).inc()

    def cache(self, agent: str, result: str) -> None:
        self.counted["cache"](agent, result).inc()

    def feedback(self, agent: str, score: int) -> None:
        self.counted["feedback"](agent, str(score)).inc()

    def canary(self, agent: str, outcome: str) -> None:
        """Count a canary that was `started`, `rolled_back`, `pinned` or `ended`."""
        self.counted["agent_canaries"](agent, outcome).inc()

    def schedule_slots(self, agent: str, outcome: str, late: float | None = None) -> None:
        """Count the outcome of a slot, or of several that were skipped at once; `late`: seconds from it to its run."""
        self.counted["schedule_slots"](agent, outcome).inc()
        if late is not None:
            self.counted["schedule_late_seconds"](agent).observe(late)

    def rate_limited(self, action: str) -> None:
        self.counted["rate_limited"](action).inc()

    def limiter_fallback(self, active: bool) -> None:
        self.counted["limiter_fallback"].set(int(active))

    def transaction_retried(self, reason: str) -> None:
        """Count a retry; `reason`: `deadlock`, `serialization_failure` or `unexpected_result`."""
        self.counted["transaction_retries"](reason).inc()

    def spans(self, outcome: str, number: int) -> None:
        """Count spans; `outcome`: `sent`, `failed` as the collector took none, `dropped` as too many waited."""
        self.counted["spans"](outcome).inc(number)

    def login_failed(self) -> None:
        self.counted["login_failures"].inc()

    def mcp_up(self, server: str, up: bool) -> None:
        self.counted["mcp_up"](server).set(int(up))

    def redis_up(self, up: bool) -> None:
        self.counted["redis_up"].set(int(up))

    def socket(self, change: int) -> None:
        """Count a WebSocket that was opened (1) or has ended (-1)."""
        self.counted["websockets"].inc(change)

    def stream(self, change: int) -> None:
        """Count a stream that a client began (1) or has ended (-1) to read."""
        self.counted["streams_active"].inc(change)

    def pool(self, name: str, used: int, size: int) -> None:
        self.counted["pool_used"](name).set(used)
        self.counted["pool_size"](name).set(size)

    def audit_intact(self, intact: bool) -> None:
        self.counted["audit_intact"].set(int(intact))

    def read_at_scrape(self, *collectors: Collector) -> None:
        """Add collectors of values that this process reads when it renders."""
        self._read += collectors

    def render(self) -> tuple[bytes, str]:
        """Render the exposition text of all workers; return it with its content type."""
        registry = CollectorRegistry()
        own = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        counted: Collector = MergedFolders(Path(own), of_tasks(Path(own))) if own else self._registry
        for collector in (counted, *self._read):
            registry.register(collector)
        return generate_latest(registry), CONTENT_TYPE_LATEST
