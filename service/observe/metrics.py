"""Prometheus metrics over all workers of a machine, with cached label sets.

A process that has joined a folder (in `gunicorn.conf.py` or `worker.py`) counts in shared files there; any other counts
in memory, as on a full disk.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    values,
)
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.observe.metric_files import of_tasks, take_slot
from service.observe.observer import ModelAttempt, Observer, RunPhase, Settled
from service.types import Run, Usage

log = logging.getLogger("slipway.metrics")
# Bound per metric, so that its file never grows; further label sets count as OTHER.
MAX_LABEL_SETS = 500
MAX_REQUEST_LABEL_SETS = 1000  # route, method and status
MAX_HISTOGRAM_LABEL_SETS = 200  # each with an entry per bucket
MAX_LABEL = 100  # characters
OTHER = "(other)"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "(none)"})
_REQUEST_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LATE_BUCKETS = (1, 2.5, 5, 10, 30, 60, 300, 3600, 86400)
_MODEL_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)


class _Family:
    """Metric with a cache of its labelled children: `labels()` takes a lock and builds a tuple every time."""

    __slots__ = ("_children", "_metric", "_most")

    def __init__(self, metric: MetricWrapperBase, most: int) -> None:
        self._metric = metric
        self._most = most
        self._children: dict[tuple[str, ...], Any] = {}

    def __call__(self, *labels: str) -> Any:
        return self._children.get(labels) or self._child(labels)

    def _child(self, labels: tuple[str, ...]) -> Any:
        if len(self._children) >= self._most:
            return self._metric.labels(*(OTHER for _ in labels))
        child = self._metric.labels(*(label[:MAX_LABEL] for label in labels))
        return self._children.setdefault(labels, child)


class _MergedFolders(Collector):
    """Collector of the metric files of several folders."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders

    def collect(self) -> Iterable[Any]:
        merge: Any = MultiProcessCollector.merge  # untyped
        while True:
            try:
                return list(merge([str(file) for path in self._folders for file in path.glob("*.db")]))
            except FileNotFoundError:  # a starting server has just cleared a folder
                continue


def of_folder(own: Path) -> CollectorRegistry:
    """Registry of one folder's metrics, for a metrics server of its own."""
    registry = CollectorRegistry()
    registry.register(_MergedFolders(own))
    return registry


_value_classes: dict[tuple[int, str], Any] = {}  # by pid and folder: one slot for all metrics of a process


def _value_class() -> Any:
    """Return the class that stores metric values: in files shared by the processes of a machine, or in memory."""
    own = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not own:
        return values.MutexValue
    key = (os.getpid(), own)
    if key not in _value_classes:
        try:
            slot = take_slot(Path(own))
            _value_classes[key] = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
        except OSError as error:
            log.error("metrics_not_shared", extra={"folder": own, "error": error.strerror})
            _value_classes[key] = values.MutexValue
    return _value_classes[key]


class Metrics(Observer):
    """Counters, gauges and histograms: of the observer's events, of HTTP and of Redis.

    Labels are bounded: route templates, agent ids, never ids of users."""

    def __init__(self) -> None:
        values.ValueClass = _value_class()
        self._registry = CollectorRegistry()
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self._requests = counter("http_requests", "HTTP requests", "route", "method", "status")
        self._request_seconds = histogram(
            "http_request_seconds", "Time to the answer", _REQUEST_BUCKETS, "route"
        )
        self._runs = counter("runs", "Runs that ended", "agent", "status")
        self._model_calls = counter("model_calls", "Attempts at a model call", "model", "outcome", "provider")
        self._model_seconds = histogram("model_call_seconds", "Time of one attempt", _MODEL_BUCKETS, "model")
        self._tokens = counter("tokens", "Tokens by kind", "model", "kind")
        self._prompt_cache = counter(
            "prompt_cache_tokens", "Prompt tokens by what the provider's cache did with them", "agent", "kind"
        )
        self._cost = counter("cost_nano_usd", "Cost in nano-dollars", "agent", "model")
        self._warnings = counter(
            "budget_warnings", "Caps that passed 50, 80 or 100 percent", "scope", "percent"
        )
        self._over_cap = counter("budget_refused", "Model calls that did not fit a cap", "scope")
        self._overrun = counter(
            "hold_overruns", "Model calls that cost more than was held: there must be none"
        )
        self._tools = counter("tool_calls", "Tool calls", "tool", "ok")
        self._guardrails = counter("guardrail", "Guardrails that acted", "where", "kind", "action")
        self._cache = counter("cache", "Answers by cache result", "agent", "result")
        self._feedback = counter("feedback", "Feedback given, changes included", "agent", "score")
        self._canaries = counter("agent_canaries", "Canaries of agents by outcome", "agent", "outcome")
        self._slots = counter("schedule_slots", "Slots of schedules by outcome", "agent", "outcome")
        self._late = histogram("schedule_late_seconds", "Time from a slot to its run", _LATE_BUCKETS, "agent")
        self._limited = counter("rate_limited", "Requests refused by a rate limit", "action")
        self._breaker = gauge(
            "breaker_open", "1 while a model's circuit breaker is open", "livemax", "model", "provider"
        )
        self._retried = counter("transaction_retries", "Transactions that were run again", "reason")
        self._spans = counter("spans", "Spans of traces: sent, failed to be, or dropped", "outcome")
        self._login_failures = counter("login_failures", "Log-ins that were refused")
        self._fallback = gauge("limiter_fallback", "1 while limits are counted per process", "livemax")
        self._redis = gauge("redis_up", "0 while a process skips Redis", "livemin")
        self._mcp = gauge("mcp_up", "0 while a process does not reach an MCP server", "livemin", "server")
        self._runs_active = gauge("runs_active", "Runs under way", "livesum")
        self._sockets = gauge("websockets", "WebSockets that are open", "livesum")
        self._tasks_waiting = gauge(
            "tasks_waiting", "Tasks in line for a worker", "livemostrecent", "priority"
        )
        self._oldest_task = gauge(
            "oldest_task_seconds", "Age of the oldest task in line", "livemostrecent", "priority"
        )
        self._redis.set(1)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        known = method if method in _METHODS else OTHER  # a client may send any word
        self._requests(route, known, str(status)).inc()
        self._request_seconds(route).observe(seconds)

    def run(self, run: Run, phase: RunPhase, error: Exception | None = None) -> None:
        if phase == "started":
            self._runs_active.inc()
        elif phase == "over":
            self._runs_active.dec()
        elif phase == "ended":
            self._runs(run.agent, str(run.status)).inc()

    def attempt(self, attempt: ModelAttempt) -> None:
        self._model_calls(attempt.model, attempt.error_code or "ok", attempt.provider).inc()
        self._model_seconds(attempt.model).observe(attempt.ms / 1000)
        self._breaker(attempt.model, attempt.provider).set(int(attempt.breaker_open))
        kinds = ("input", "output", "cache_read", "cache_creation")
        for kind, amount in zip(kinds, attempt.usage or (), strict=False):
            if amount:
                self._tokens(attempt.model, kind).inc(amount)

    def tool(self, name: str, ok: bool) -> None:
        self._tools(name, "true" if ok else "false").inc()

    def guardrail(self, where: str, kind: str, action: str) -> None:
        self._guardrails(where, kind, action).inc()

    def settlement(self, settled: Settled) -> None:
        self._cost(settled.agent, settled.model).inc(settled.cost)
        self._count_prompt_cache(settled.agent, settled.usage)
        if settled.cost > settled.held:
            self._overrun.inc()

    def _count_prompt_cache(self, agent: str, usage: Usage) -> None:
        """Count prompt tokens by kind; `read` / all is the cached share of an agent's prompts."""
        for kind, amount in (
            ("read", usage.cache_read_input_tokens),
            ("write", usage.cache_creation_input_tokens),
            ("none", usage.input_tokens),
        ):
            if amount:
                self._prompt_cache(agent, kind).inc(amount)

    def budget_refused(self, scope: str) -> None:
        self._over_cap(scope).inc()

    def budget_warning(self, scope: str, percent: int, public: Mapping[str, Any]) -> None:
        self._warnings(scope, str(percent)).inc()

    def cache(self, agent: str, result: str) -> None:
        self._cache(agent, result).inc()

    def feedback(self, agent: str, score: int) -> None:
        self._feedback(agent, str(score)).inc()

    def canary(self, agent: str, outcome: str) -> None:
        """Count a canary that was `started`, `rolled_back`, `pinned` or `ended`."""
        self._canaries(agent, outcome).inc()

    def schedule_slots(self, agent: str, outcome: str, late: float | None = None) -> None:
        """Count the outcome of a slot, or of several that were skipped at once; `late`: seconds from it to its run."""
        self._slots(agent, outcome).inc()
        if late is not None:
            self._late(agent).observe(late)

    def rate_limited(self, action: str) -> None:
        self._limited(action).inc()

    def limiter_fallback(self, active: bool) -> None:
        self._fallback.set(int(active))

    def transaction_retried(self, reason: str) -> None:
        """Count a retry; `reason`: `deadlock`, `serialization_failure` or `unexpected_result`."""
        self._retried(reason).inc()

    def spans(self, outcome: str, number: int) -> None:
        """Count spans; `outcome`: `sent`, `failed` as the collector took none, `dropped` as too many waited."""
        self._spans(outcome).inc(number)

    def login_failed(self) -> None:
        self._login_failures.inc()

    def mcp_up(self, server: str, up: bool) -> None:
        self._mcp(server).set(int(up))

    def redis_up(self, up: bool) -> None:
        self._redis.set(int(up))

    def socket(self, change: int) -> None:
        """Count a WebSocket that was opened (1) or has ended (-1)."""
        self._sockets.inc(change)

    def tasks_waiting(self, priority: str, count: int, oldest_seconds: float) -> None:
        self._tasks_waiting(priority).set(count)
        self._oldest_task(priority).set(oldest_seconds)

    def render(self) -> tuple[bytes, str]:
        """Render the exposition text of all workers; return it with its content type."""
        registry = self._registry
        if own := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = CollectorRegistry()
            registry.register(_MergedFolders(Path(own), of_tasks(Path(own))))
        return generate_latest(registry), CONTENT_TYPE_LATEST

    def _counter(self, name: str, about: str, *labels: str) -> Any:
        most = MAX_REQUEST_LABEL_SETS if name == "http_requests" else MAX_LABEL_SETS
        return self._bounded(Counter(f"slipway_{name}", about, labels, registry=self._registry), labels, most)

    def _gauge(self, name: str, about: str, mode: Any, *labels: str) -> Any:
        gauge = Gauge(f"slipway_{name}", about, labels, registry=self._registry, multiprocess_mode=mode)
        return self._bounded(gauge, labels, MAX_LABEL_SETS)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Any:
        metric = Histogram(f"slipway_{name}", about, labels, registry=self._registry, buckets=buckets)
        return self._bounded(metric, labels, MAX_HISTOGRAM_LABEL_SETS)

    def _bounded(self, metric: MetricWrapperBase, labels: tuple[str, ...], most: int) -> Any:
        return _Family(metric, most) if labels else metric
