"""Table of all metrics: name, help, labels, kind. `docs/metrics.md` is generated from it."""

from __future__ import annotations

from collections.abc import Mapping

from service.observe.metric_kinds import (
    MAX_REQUEST_LABEL_SETS,
    MAX_ROUTES,
    Metric,
    counter,
    gauge,
    histogram,
)

SECTIONS: Mapping[str, tuple[Metric, ...]] = {
    "Requests": (
        counter(
            "http_requests", "HTTP requests", *("route", "method", "status"), most=MAX_REQUEST_LABEL_SETS
        ),
        histogram(
            "http_request_seconds",
            "Time to the answer",
            "route",
            buckets="request",
            notes="of a stream, to its beginning",
            most=MAX_ROUTES,
        ),
        counter("rate_limited", "Requests refused by a rate limit", "action"),
        counter("login_failures", "Log-ins that were refused"),
        gauge("websockets", "WebSockets that are open", merge="livesum", notes="[WebSocket](websocket.md)"),
        gauge("streams_active", "Streams that clients are reading", merge="livesum"),
    ),
    "Runs": (
        counter(
            "runs",
            "Runs that ended",
            *("agent", "status"),
            notes="`succeeded`, `failed`, `cancelled`; answers from the cache are counted in `slipway_cache_total`",
        ),
        counter(
            "escalations",
            "Runs that asked a person to decide",
            "agent",
            notes="once for each run, with its first approval, of a local tool or a remote agent",
        ),
        histogram(
            "run_seconds",
            "Time from a run's creation to its end",
            "agent",
            buckets="run",
            notes="waits in line, for people and for money included",
        ),
        histogram(
            "run_first_token_seconds",
            "Time from a run's creation to its first text",
            "agent",
            buckets="first",
            notes="of runs whose text is streamed; first attempts only",
        ),
        histogram("run_cost_usd", "Cost of a run", "agent", buckets="cost"),
        gauge(
            "runs_active",
            "Runs that processes execute",
            merge="livesum",
            notes="when it stays near the number of [places](running.md#how-many), add a replica",
        ),
        gauge(
            "unfinished_runs",
            "Runs that have not ended",
            "status",
            merge="database",
            notes="`queued`, `running`, `waiting_approval`, `waiting_budget`, `paused`",
        ),
        gauge(
            "oldest_run_seconds",
            "Age of the oldest run that has not ended",
            "status",
            merge="database",
            notes="since its creation; absent where there is none",
        ),
        gauge(
            "unfinished_run_tokens_max",
            "Most tokens of a run that has not ended",
            merge="database",
            notes="of its kept steps; grows while a run goes round in a loop",
        ),
        gauge("sessions_active", "Sessions with a run that has not ended", merge="database"),
        counter("feedback", "Feedback given, changes included", *("agent", "score"), notes="`-1`, `0`, `1`"),
        counter(
            "agent_canaries",
            "Canaries of agents by outcome",
            *("agent", "outcome"),
            notes="[`started`, `rolled_back`, `pinned`, `ended`](versions.md#canary)",
        ),
    ),
    "Queue and schedules": (
        gauge(
            "tasks_waiting",
            "Tasks in line for a worker",
            "priority",
            merge="database",
            notes="`high`, `normal`, `batch`",
        ),
        gauge(
            "oldest_task_seconds",
            "Age of the oldest task in line",
            "priority",
            merge="database",
            notes="0 where none is; when it grows, add task workers",
        ),
        counter(
            "schedule_slots",
            "Slots of schedules by outcome",
            *("agent", "outcome"),
            notes="of [schedules](schedules.md): `run` (fired), `skipped` (missed; once for all at once), `refused`",
        ),
        histogram("schedule_late_seconds", "Time from a slot to its run", "agent", buckets="late"),
        gauge("schedules_overdue", "Schedules whose slot is due", merge="database"),
        gauge(
            "schedule_overdue_seconds",
            "Time since the oldest slot that is due",
            merge="database",
            notes="0 where none is; above `SWEEP_SECONDS`, nobody dispatches",
        ),
    ),
    "Model": (
        counter(
            "model_calls",
            "Attempts at a model call",
            *("model", "outcome", "provider", "attempt"),
            notes="`outcome`: `ok` or an error code; `provider`: one of [MODEL_PROVIDERS](providers.md); "
            "`attempt`: `1`, `2`, `3+`, so retries are all but `1`",
        ),
        histogram("model_call_seconds", "Time of one attempt", "model", buckets="model"),
        histogram(
            "model_first_token_seconds",
            "Time of an attempt to its first text",
            "model",
            buckets="first",
            notes="of streamed calls",
        ),
        histogram(
            "context_used_ratio",
            "Share of the context window that a prompt fills",
            *("agent", "model"),
            buckets="ratio",
            notes="tokens of the prompt, by the agent's `context_tokens`",
        ),
        gauge(
            "provider_limit_remaining_ratio",
            "Share of the provider's rate limit that is left",
            *("provider", "model", "kind"),
            merge="livemostrecent",
            notes="as its last answer told, in `anthropic-ratelimit-*` or `x-ratelimit-*`; `kind`: `requests`, "
            "`tokens`, `input_tokens`, `output_tokens`. Old while there are no calls",
        ),
        gauge(
            "breaker_open",
            "1 while a model's circuit breaker is open",
            *("model", "provider"),
            merge="livemax",
        ),
    ),
    "Money": (
        counter(
            "tokens",
            "Tokens of settled model calls",
            *("agent", "model", "kind"),
            notes="`input`, `output`, `cache_read`, `cache_creation`, as in the ledger",
        ),
        counter("cost_usd", "Cost of settled model calls", *("agent", "model"), notes="as in the ledger"),
        counter(
            "saved_usd",
            "Money that was not spent, by cache",
            *("agent", "layer"),
            notes="`hit`, `near`, `coalesced`: answers; `batch`; `prompt`: gains only ([usage](money.md#usage))",
        ),
        counter(
            "cache",
            "Answers by cache result",
            *("agent", "result"),
            notes="as `X-Cache`: `hit`, `near`, `coalesced`, `stale`, `miss`, `bypass`",
        ),
        counter("budget_warnings", "Caps that passed 50, 80 or 100 percent", *("scope", "percent")),
        counter(
            "budget_refused",
            "Model calls that did not fit a cap",
            "scope",
            notes="the kind of scope, such as `user`; `run`: the most of one run; `tree`: of its sub-agents",
        ),
        gauge(
            "budget_used_ratio",
            "Spent and held share of a cap",
            *("scope", "period"),
            merge="database",
            notes="of the caps of the service and of agents: `service`, `agent:support`",
        ),
        gauge(
            "cap_overshoot_usd",
            "Money by which a cap was passed",
            merge="database",
            notes="of any cap but those of end users, and but for caps changed in their day or month; must stay 0",
        ),
        counter(
            "hold_overruns", "Model calls that cost more than was held", notes="must stay 0: page an engineer"
        ),
        gauge("holds", "Holds that are open", merge="database"),
        gauge("held_usd", "Money held by them", merge="database"),
        gauge(
            "oldest_hold_seconds",
            "Age of the oldest hold",
            merge="database",
            notes="0 where none is open; holds of batches may be a day old",
        ),
    ),
    "Tools, approvals, guardrails": (
        counter("tool_calls", "Tool calls", *("tool", "ok"), notes="`ok`: `true`, `false`"),
        histogram("tool_call_seconds", "Time of a tool call", "tool", buckets="tool"),
        gauge("approvals_waiting", "Approvals that wait for a decision", merge="database"),
        gauge(
            "oldest_approval_seconds",
            "Age of the oldest of them",
            merge="database",
            notes="0 where none waits",
        ),
        counter(
            "approvals",
            "Approvals that were decided",
            *("agent", "decision"),
            notes="`approved`, `denied`, `expired`",
        ),
        histogram(
            "approval_decision_seconds",
            "Time from an approval's request to its decision",
            "decision",
            buckets="decision",
        ),
        counter(
            "guardrail",
            "Guardrails that acted",
            *("where", "kind", "action"),
            notes="[guardrails](guardrails.md); links and prompts `removed`, injections `flagged` "
            "([untrusted text](untrusted-text.md))",
        ),
    ),
    "Capacity and parts": (
        gauge(
            "pool_used",
            "Threads, connections and places in use",
            "pool",
            merge="livesum",
            notes="`threads` (requests), `places` (runs), `database`, `model`, `tools`; of a few seconds ago",
        ),
        gauge("pool_size", "Most of them that there may be", "pool", merge="livesum"),
        gauge(
            "processes",
            "Processes that hold a lease",
            "kind",
            merge="database",
            notes="`web`, `task`, over all replicas",
        ),
        gauge("database_up", "0 while the database is not read", merge="database"),
        gauge("redis_up", "0 while a process skips Redis", merge="livemin"),
        gauge("limiter_fallback", "1 while limits are counted per process", merge="livemax"),
        gauge(
            "mcp_up",
            "0 while a process does not reach an MCP server",
            "server",
            merge="livemin",
            notes="[MCP](mcp.md)",
        ),
        counter(
            "transaction_retries",
            "Transactions that were run again",
            "reason",
            notes="PostgreSQL aborted them in a collision (`deadlock`, `serialization_failure`: there should be none, "
            "see [locks](architecture.md#locks)), or a statement had another result than usual (`unexpected_result`, "
            "see [trips](architecture.md#trips))",
        ),
        counter(
            "spans", "Spans of traces", "outcome", notes="[traces](tracing.md): `sent`, `failed`, `dropped`"
        ),
        gauge("disk_free_bytes", "Space left on the disk of SLIPWAY_HOME", merge="host"),
        gauge("disk_size_bytes", "Size of the disk of SLIPWAY_HOME", merge="host"),
        gauge(
            "audit_intact",
            "0 once a check of the audit found a fault",
            merge="livemin",
            notes="checked in the background, a piece at a time ([audit](audit.md))",
        ),
        gauge(
            "audit_unlinked_seconds",
            "Age of the oldest audit row outside the chain",
            merge="database",
            notes="0 where none is; a row is linked within seconds",
        ),
    ),
}
ALL: Mapping[str, Metric] = {metric.name: metric for section in SECTIONS.values() for metric in section}
