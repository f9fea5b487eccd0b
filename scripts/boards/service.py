"""Boards of the service: overview and capacity."""

from __future__ import annotations

from scripts.boards.queries import (
    RATE,
    REAL,
    Board,
    Panel,
    quantile,
    rate,
    share,
    stored,
)

OVERVIEW = Board(
    "overview",
    "Slipway: overview",
    {
        "Now": (
            Panel("Processes that answer", "short", {"": 'count(up{job=~"slipway.*"} == 1)'}, "stat"),
            Panel("Alerts", "short", {"": 'count(ALERTS{alertstate="firing"}) or vector(0)'}, "stat"),
            Panel(
                "Requests", "reqps", {"": f"sum(rate(slipway_http_requests_total{{{REAL}}}{RATE}))"}, "stat"
            ),
            Panel(
                "Answered with 5xx",
                "percentunit",
                {"": share("http_requests_total", f'{{status=~"5..", {REAL}}}', f"{{{REAL}}}")},
                "stat",
            ),
            Panel("Active runs", "short", {"": "sum(slipway_runs_active)"}, "stat"),
            Panel(
                "Cost of 24 hours", "currencyUSD", {"": "sum(increase(slipway_cost_usd_total[24h]))"}, "stat"
            ),
        ),
        "Requests": (
            Panel(
                "Requests by status",
                "reqps",
                {"{{status}}": rate("http_requests_total", "status", where=f"{{{REAL}}}")},
            ),
            Panel(
                "Latency",
                "s",
                {
                    f"p{int(100 * q)}": quantile(q, "http_request_seconds", where=f"{{{REAL}}}")
                    for q in (0.5, 0.95, 0.99)
                },
                about="Of a stream: to its beginning.",
            ),
            Panel(
                "p95 by route",
                "s",
                {"{{route}}": quantile(0.95, "http_request_seconds", "route", where=f"{{{REAL}}}")},
            ),
        ),
        "Runs": (
            Panel("Ended runs", "ops", {"{{status}}": rate("runs_total", "status")}),
            Panel("Duration, p95", "s", {"{{agent}}": quantile(0.95, "run_seconds", "agent")}),
            Panel(
                "Time to the first token, p95",
                "s",
                {"{{agent}}": quantile(0.95, "run_first_token_seconds", "agent")},
            ),
        ),
        "Parts": (
            Panel(
                "Parts that are up",
                "short",
                {
                    "database": "min by (instance) (slipway_database_up)",
                    "Redis": "min by (instance) (slipway_redis_up)",
                    "audit intact": "min(slipway_audit_intact)",
                },
                about="0: away, or broken.",
            ),
            Panel("Model calls by outcome", "ops", {"{{outcome}}": rate("model_calls_total", "outcome")}),
            Panel(
                "Open breakers",
                "short",
                {"{{model}} {{provider}}": "max by (model, provider) (slipway_breaker_open)"},
            ),
        ),
    },
)

CAPACITY = Board(
    "capacity",
    "Slipway: capacity",
    {
        "Processes": (
            Panel(
                "Used of a pool",
                "percentunit",
                {"{{pool}}": "sum by (pool) (slipway_pool_used) / sum by (pool) (slipway_pool_size)"},
            ),
            Panel(
                "Active",
                "short",
                {
                    "runs": "sum(slipway_runs_active)",
                    "streams": "sum(slipway_streams_active)",
                    "WebSockets": "sum(slipway_websockets)",
                },
            ),
            Panel("Processes with a lease", "short", {"{{kind}}": stored("processes", "kind")}),
            Panel(
                "Disk that is free",
                "percentunit",
                {"{{instance}}": "min by (instance) (slipway_disk_free_bytes / slipway_disk_size_bytes)"},
            ),
            Panel("Refused by a rate limit", "ops", {"{{action}}": rate("rate_limited_total", "action")}),
            Panel(
                "Transactions run again", "ops", {"{{reason}}": rate("transaction_retries_total", "reason")}
            ),
        ),
        "Waiting": (
            Panel("Tasks in line", "short", {"{{priority}}": stored("tasks_waiting", "priority")}),
            Panel("Age of the oldest task", "s", {"{{priority}}": stored("oldest_task_seconds", "priority")}),
            Panel("Unfinished runs", "short", {"{{status}}": stored("unfinished_runs", "status")}),
            Panel("Age of the oldest run", "s", {"{{status}}": stored("oldest_run_seconds", "status")}),
            Panel("Sessions with a run", "short", {"sessions": stored("sessions_active")}),
            Panel("Age of the oldest hold", "s", {"oldest": stored("oldest_hold_seconds")}),
        ),
        "Model": (
            Panel(
                "Left of the provider's limits",
                "percentunit",
                {
                    "{{provider}} {{model}} {{kind}}": "min by (provider, model, kind) "
                    "(slipway_provider_limit_remaining_ratio)"
                },
            ),
            Panel("A call, p95", "s", {"{{model}}": quantile(0.95, "model_call_seconds", "model")}),
            Panel(
                "First token of a call, p95",
                "s",
                {"{{model}}": quantile(0.95, "model_first_token_seconds", "model")},
            ),
            Panel(
                "Calls by provider",
                "ops",
                {"{{provider}} {{model}}": rate("model_calls_total", "provider", "model")},
            ),
            Panel(
                "Retries", "ops", {"{{model}}": rate("model_calls_total", "model", where='{attempt!="1"}')}
            ),
            Panel(
                "Open breakers",
                "short",
                {"{{model}} {{provider}}": "max by (model, provider) (slipway_breaker_open)"},
            ),
        ),
    },
)
