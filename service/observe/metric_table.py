"""Table of all metrics: name, help, labels, kind. `docs/metrics.md` is generated from it.

The help text is stored beside every value in the metric files, so it is short; `notes` are for the page alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

PREFIX = "slipway_"
# Label sets of a metric per process; further ones count as `(other)`. Bound, so that metric files never grow.
MAX_LABEL_SETS = 500
MAX_REQUEST_LABEL_SETS = 1000  # route, method and status
MAX_ROUTES = 200
MAX_HISTOGRAM_LABEL_SETS = 100  # each with an entry per bucket
MAX_GAUGE_LABEL_SETS = 200

_REQUEST_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LATE_BUCKETS = (1, 2.5, 5, 10, 30, 60, 300, 3600, 86400)
_MODEL_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
_RUN_BUCKETS = (0.05, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 300, 3600)
_FIRST_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30)
_COST_BUCKETS = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 5)
_RATIO_BUCKETS = (0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1)
_TOOL_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_DECISION_BUCKETS = (10, 60, 300, 900, 3600, 14400, 86400, 604800)

Kind = Literal["counter", "gauge", "histogram"]
# Of a gauge: how the values of a replica's processes are merged; `database`, `host`: read when /metrics is.
Merge = Literal["livesum", "livemax", "livemin", "livemostrecent", "database", "host"]
READ_AT_SCRAPE = frozenset({"database", "host"})


class Metric(NamedTuple):
    """One metric. `name` is without prefix, and without `_total`."""

    name: str
    kind: Kind
    about: str  # help
    labels: tuple[str, ...] = ()
    notes: str = ""  # for the page
    merge: Merge = "livesum"
    buckets: tuple[float, ...] = ()
    most: int = MAX_LABEL_SETS

    @property
    def exposed(self) -> str:
        """Name as Prometheus scrapes it; a histogram's has `_bucket`, `_sum` and `_count` after it."""
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"


def _counter(name: str, about: str, *labels: str, notes: str = "", most: int = MAX_LABEL_SETS) -> Metric:
    return Metric(name, "counter", about, labels, notes, most=most)


def _gauge(name: str, about: str, *labels: str, merge: Merge, notes: str = "") -> Metric:
    return Metric(name, "gauge", about, labels, notes, merge, most=MAX_GAUGE_LABEL_SETS)


def _histogram(
    name: str,
    about: str,
    *labels: str,
    buckets: tuple[float, ...],
    notes: str = "",
    most: int = MAX_HISTOGRAM_LABEL_SETS,
) -> Metric:
    return Metric(name, "histogram", about, labels, notes, buckets=buckets, most=most)


SECTIONS: Mapping[str, tuple[Metric, ...]] = {
    "Requests": (
        _counter(
            "http_requests",
            "HTTP requests",
            *("route", "method", "status"),
            most=MAX_REQUEST_LABEL_SETS,
        ),
        _histogram(
            "http_request_seconds",
            "Time to the answer",
            "route",
            buckets=_REQUEST_BUCKETS,
            notes="of a stream, to its beginning",
            most=MAX_ROUTES,
        ),
        _counter("rate_limited", "Requests refused by a rate limit", "action"),
        _counter("login_failures", "Log-ins that were refused"),
        _gauge(
            "websockets", "WebSockets that are open", merge="livesum", notes="see [WebSocket](websocket.md)"
        ),
        _gauge("streams_active", "Streams that clients are reading", merge="livesum"),
    ),
    "Runs": (
        _counter(
            "runs",
            "Runs that ended",
            *("agent", "status"),
            notes="`succeeded`, `failed` or `cancelled`; answers from the cache are no runs here, but in `slipway_cache_total`",
        ),
        _counter(
            "escalations",
            "Runs that asked a person to decide",
            "agent",
            notes="once for each run, with its first approval, of a local tool or a remote agent",
        ),
        _histogram(
            "run_seconds",
            "Time from a run's creation to its end",
            "agent",
            buckets=_RUN_BUCKETS,
            notes="waits in line, for people and for money included",
        ),
        _histogram(
            "run_first_token_seconds",
            "Time from a run's creation to its first text",
            "agent",
            buckets=_FIRST_BUCKETS,
            notes="of runs whose text is streamed; first attempts only",
        ),
        _histogram("run_cost_usd", "Cost of a run", "agent", buckets=_COST_BUCKETS),
        _gauge(
            "runs_active",
            "Runs that processes execute",
            merge="livesum",
            notes="when it stays near the number of [places](running.md#how-many), add a replica",
        ),
        _gauge(
            "unfinished_runs",
            "Runs that have not ended",
            "status",
            merge="database",
            notes="`queued`, `running`, `waiting_approval`, `waiting_budget`, `paused`",
        ),
        _gauge(
            "oldest_run_seconds",
            "Age of the oldest run that has not ended",
            "status",
            merge="database",
            notes="since its creation; absent where there is none",
        ),
        _gauge(
            "unfinished_run_tokens_max",
            "Most tokens of a run that has not ended",
            merge="database",
            notes="of its kept steps; grows while a run goes round in a loop",
        ),
        _gauge("sessions_active", "Sessions with a run that has not ended", merge="database"),
        _counter("feedback", "Feedback given, changes included", *("agent", "score"), notes="`-1`, `0`, `1`"),
        _counter(
            "agent_canaries",
            "Canaries of agents by outcome",
            *("agent", "outcome"),
            notes="[`started`, `rolled_back`, `pinned`, `ended`](versions.md#canary)",
        ),
    ),
    "Queue and schedules": (
        _gauge(
            "tasks_waiting",
            "Tasks in line for a worker",
            "priority",
            merge="database",
            notes="`high`, `normal`, `batch`",
        ),
        _gauge(
            "oldest_task_seconds",
            "Age of the oldest task in line",
            "priority",
            merge="database",
            notes="0 where none is; when it grows, add task workers",
        ),
        _counter(
            "schedule_slots",
            "Slots of schedules by outcome",
            *("agent", "outcome"),
            notes="of [schedules](schedules.md): `run` (fired), `skipped` (missed; one for all that were skipped at once), `refused`",
        ),
        _histogram("schedule_late_seconds", "Time from a slot to its run", "agent", buckets=_LATE_BUCKETS),
        _gauge("schedules_overdue", "Schedules whose slot is due", merge="database"),
        _gauge(
            "schedule_overdue_seconds",
            "Time since the oldest slot that is due",
            merge="database",
            notes="0 where none is; above `SWEEP_SECONDS`, nobody dispatches",
        ),
    ),
    "Model": (
        _counter(
            "model_calls",
            "Attempts at a model call",
            *("model", "outcome", "provider", "attempt"),
            notes="`outcome`: `ok` or an error code; `provider`: one of [MODEL_PROVIDERS](providers.md); "
            "`attempt`: `1`, `2`, `3+`, so retries are all but `1`",
        ),
        _histogram("model_call_seconds", "Time of one attempt", "model", buckets=_MODEL_BUCKETS),
        _histogram(
            "model_first_token_seconds",
            "Time of an attempt to its first text",
            "model",
            buckets=_FIRST_BUCKETS,
            notes="of streamed calls",
        ),
        _histogram(
            "context_used_ratio",
            "Share of the context window that a prompt fills",
            *("agent", "model"),
            buckets=_RATIO_BUCKETS,
            notes="tokens of the prompt, by the agent's `context_tokens`",
        ),
        _gauge(
            "provider_limit_remaining_ratio",
            "Share of the provider's rate limit that is left",
            *("provider", "model", "kind"),
            merge="livemostrecent",
            notes="as its last answer told, in `anthropic-ratelimit-*` or `x-ratelimit-*`; `kind`: `requests`, `tokens`, "
            "`input_tokens`, `output_tokens`. Old while there are no calls",
        ),
        _gauge(
            "breaker_open",
            "1 while a model's circuit breaker is open",
            *("model", "provider"),
            merge="livemax",
        ),
    ),
    "Money": (
        _counter(
            "tokens",
            "Tokens of settled model calls",
            *("agent", "model", "kind"),
            notes="`input`, `output`, `cache_read`, `cache_creation`, as in the ledger",
        ),
        _counter("cost_usd", "Cost of settled model calls", *("agent", "model"), notes="as in the ledger"),
        _counter(
            "saved_usd",
            "Money that was not spent, by cache",
            *("agent", "layer"),
            notes="`prompt`: the provider's cache, where it saved more than its writing cost",
        ),
        _counter(
            "cache",
            "Answers by cache result",
            *("agent", "result"),
            notes="as `X-Cache`: `hit`, `near`, `coalesced`, `stale`, `miss`, `bypass`",
        ),
        _counter("budget_warnings", "Caps that passed 50, 80 or 100 percent", *("scope", "percent")),
        _counter(
            "budget_refused",
            "Model calls that did not fit a cap",
            "scope",
            notes="the kind of scope, such as `user`; `run`: the most of one run; `tree`: of its sub-agents",
        ),
        _gauge(
            "budget_used_ratio",
            "Spent and held share of a cap",
            *("scope", "period"),
            merge="database",
            notes="of the caps of the service and of agents: `service`, `agent:support`",
        ),
        _gauge(
            "cap_overshoot_usd",
            "Money by which a cap was passed",
            merge="database",
            notes="the most of any window that counts now, beyond what was spent before its cap was lowered; must stay 0",
        ),
        _counter(
            "hold_overruns",
            "Model calls that cost more than was held",
            notes="must stay 0: page an engineer",
        ),
        _gauge("holds", "Holds that are open", merge="database"),
        _gauge("held_usd", "Money held by them", merge="database"),
        _gauge(
            "oldest_hold_seconds",
            "Age of the oldest hold",
            merge="database",
            notes="0 where none is open; holds of batches may be a day old",
        ),
    ),
    "Tools, approvals, guardrails": (
        _counter("tool_calls", "Tool calls", *("tool", "ok"), notes="`ok`: `true`, `false`"),
        _histogram("tool_call_seconds", "Time of a tool call", "tool", buckets=_TOOL_BUCKETS),
        _gauge("approvals_waiting", "Approvals that wait for a decision", merge="database"),
        _gauge(
            "oldest_approval_seconds",
            "Age of the oldest of them",
            merge="database",
            notes="0 where none waits",
        ),
        _counter(
            "approvals",
            "Approvals that were decided",
            *("agent", "decision"),
            notes="`approved`, `denied`, `expired`",
        ),
        _histogram(
            "approval_decision_seconds",
            "Time from an approval's request to its decision",
            "decision",
            buckets=_DECISION_BUCKETS,
        ),
        _counter(
            "guardrail",
            "Guardrails that acted",
            *("where", "kind", "action"),
            notes="[guardrails](guardrails.md); links and prompts `removed`, injections `flagged` "
            "([untrusted text](untrusted-text.md))",
        ),
    ),
    "Capacity and parts": (
        _gauge(
            "pool_used",
            "Threads, connections and places in use",
            "pool",
            merge="livesum",
            notes="`threads` (requests), `places` (runs), `database`, `model`, `tools`; of a few seconds ago",
        ),
        _gauge("pool_size", "Most of them that there may be", "pool", merge="livesum"),
        _gauge(
            "processes",
            "Processes that hold a lease",
            "kind",
            merge="database",
            notes="`web`, `task`, over all replicas",
        ),
        _gauge("database_up", "0 while the values below are not read", merge="database"),
        _gauge("redis_up", "0 while a process skips Redis", merge="livemin"),
        _gauge("limiter_fallback", "1 while limits are counted per process", merge="livemax"),
        _gauge(
            "mcp_up",
            "0 while a process does not reach an MCP server",
            "server",
            merge="livemin",
            notes="[MCP](mcp.md)",
        ),
        _counter(
            "transaction_retries",
            "Transactions that were run again",
            "reason",
            notes="PostgreSQL aborted them in a collision (`deadlock`, `serialization_failure`: there should be none, "
            "see [locks](architecture.md#locks)), or a statement had another result than usual (`unexpected_result`, "
            "see [trips](architecture.md#trips))",
        ),
        _gauge("disk_free_bytes", "Space left on the disk of SLIPWAY_HOME", merge="host"),
        _gauge("disk_size_bytes", "Size of the disk of SLIPWAY_HOME", merge="host"),
        _gauge(
            "audit_intact",
            "0 once a check of the audit found a fault",
            merge="livemin",
            notes="checked in the background, a piece at a time ([audit](audit.md)); absent before the first piece",
        ),
        _gauge(
            "audit_unlinked_seconds",
            "Age of the oldest audit row outside the chain",
            merge="database",
            notes="0 where none is; a row is linked within seconds",
        ),
    ),
}
ALL: Mapping[str, Metric] = {metric.name: metric for section in SECTIONS.values() for metric in section}
