"""Boards of agents: cost, tools and quality."""

from __future__ import annotations

from scripts.boards.queries import (
    ENDED,
    FAILED,
    Board,
    Panel,
    mean,
    quantile,
    rate,
    share,
    stored,
)

COST = Board(
    "cost",
    "Slipway: cost",
    {
        "Spent": (
            Panel(
                "Per hour, by agent",
                "currencyUSD",
                {"{{agent}}": f"3600 * {rate('cost_usd_total', 'agent')}"},
            ),
            Panel(
                "Per hour, by model",
                "currencyUSD",
                {"{{model}}": f"3600 * {rate('cost_usd_total', 'model')}"},
            ),
            Panel("A run, mean", "currencyUSD", {"{{agent}}": mean("run_cost_usd", "agent")}),
            Panel("A run, p95", "currencyUSD", {"{{agent}}": quantile(0.95, "run_cost_usd", "agent")}),
            Panel("Tokens by kind", "short", {"{{kind}}": rate("tokens_total", "kind")}, about="Per second."),
            Panel(
                "Tokens by agent", "short", {"{{agent}}": rate("tokens_total", "agent")}, about="Per second."
            ),
        ),
        "Saved": (
            Panel(
                "Per hour, by cache",
                "currencyUSD",
                {"{{layer}}": f"3600 * {rate('saved_usd_total', 'layer')}"},
            ),
            Panel("Answers by cache", "ops", {"{{result}}": rate("cache_total", "result")}),
            Panel(
                "Prompt tokens from the provider's cache",
                "percentunit",
                {
                    "{{agent}}": share(
                        "tokens_total", '{kind="cache_read"}', '{kind=~"input|cache_.*"}', "agent"
                    )
                },
            ),
        ),
        "Caps": (
            Panel(
                "Used of a cap",
                "percentunit",
                {"{{scope}} {{period}}": stored("budget_used_ratio", "scope", "period")},
            ),
            Panel("Held", "currencyUSD", {"held": stored("held_usd")}),
            Panel("Over a cap", "currencyUSD", {"over": stored("cap_overshoot_usd")}, about="Must stay 0."),
            Panel("Calls refused by a cap", "ops", {"{{scope}}": rate("budget_refused_total", "scope")}),
            Panel(
                "Caps that passed 50, 80, 100 %",
                "ops",
                {"{{scope}} {{percent}}": rate("budget_warnings_total", "scope", "percent")},
            ),
            Panel(
                "Calls over their hold",
                "short",
                {"calls": "sum(slipway_hold_overruns_total)"},
                about="Must stay 0.",
            ),
        ),
    },
)

AGENTS = Board(
    "agents",
    "Slipway: agents and tools",
    {
        "Agents": (
            Panel("Ended runs", "ops", {"{{agent}}": rate("runs_total", "agent")}),
            Panel("Failed runs", "percentunit", {"{{agent}}": share("runs_total", FAILED, ENDED, "agent")}),
            Panel("Duration, p95", "s", {"{{agent}}": quantile(0.95, "run_seconds", "agent")}),
            Panel(
                "Context used, p95",
                "percentunit",
                {"{{agent}}": quantile(0.95, "context_used_ratio", "agent")},
            ),
            Panel("Most tokens of a run under way", "short", {"tokens": stored("unfinished_run_tokens_max")}),
            Panel(
                "Answers by cache", "ops", {"{{agent}} {{result}}": rate("cache_total", "agent", "result")}
            ),
        ),
        "Tools": (
            Panel("Calls", "ops", {"{{tool}}": rate("tool_calls_total", "tool")}),
            Panel(
                "Failed calls",
                "percentunit",
                {"{{tool}}": share("tool_calls_total", '{ok="false"}', "", "tool")},
            ),
            Panel("Duration, p95", "s", {"{{tool}}": quantile(0.95, "tool_call_seconds", "tool")}),
        ),
        "People": (
            Panel("Approvals that wait", "short", {"waiting": stored("approvals_waiting")}),
            Panel("Age of the oldest", "s", {"oldest": stored("oldest_approval_seconds")}),
            Panel("Decisions", "ops", {"{{decision}}": rate("approvals_total", "decision")}),
            Panel(
                "Time to a decision, p50",
                "s",
                {"{{decision}}": quantile(0.5, "approval_decision_seconds", "decision")},
            ),
        ),
        "Schedules": (
            Panel(
                "Slots by outcome",
                "ops",
                {"{{agent}} {{outcome}}": rate("schedule_slots_total", "agent", "outcome")},
            ),
            Panel("Late, p95", "s", {"{{agent}}": quantile(0.95, "schedule_late_seconds", "agent")}),
            Panel("Overdue", "s", {"oldest": stored("schedule_overdue_seconds")}),
        ),
    },
)

QUALITY = Board(
    "quality",
    "Slipway: quality",
    {
        "Answers": (
            Panel(
                "Runs that succeed",
                "percentunit",
                {"{{agent}}": share("runs_total", '{status="succeeded"}', ENDED, "agent")},
            ),
            Panel(
                "Runs that ask a person",
                "percentunit",
                {"{{agent}}": f"{rate('escalations_total', 'agent')} / {rate('runs_total', 'agent')}"},
            ),
            Panel(
                "Model calls that fail",
                "percentunit",
                {"{{model}}": share("model_calls_total", '{outcome!="ok"}', "", "model")},
            ),
        ),
        "Feedback": (
            Panel("Given", "ops", {"{{score}}": rate("feedback_total", "score")}),
            Panel(
                "Good, of good and bad",
                "percentunit",
                {"{{agent}}": share("feedback_total", '{score="1"}', '{score=~"1|-1"}', "agent")},
            ),
            Panel(
                "Canaries", "ops", {"{{agent}} {{outcome}}": rate("agent_canaries_total", "agent", "outcome")}
            ),
        ),
        "Safety": (
            Panel(
                "Guardrails that acted",
                "ops",
                {"{{where}} {{kind}} {{action}}": rate("guardrail_total", "where", "kind", "action")},
            ),
            Panel(
                "Refused log-ins",
                "ops",
                {"refused": "sum(rate(slipway_login_failures_total[$__rate_interval]))"},
            ),
            Panel(
                "Audit",
                "short",
                {
                    "intact": "min(slipway_audit_intact)",
                    "oldest row outside the chain (s)": stored("audit_unlinked_seconds"),
                },
            ),
        ),
    },
)
