"""`slipway usage`: a table and bars of what was spent, and the caps with what is left."""

from __future__ import annotations

import argparse
from decimal import Decimal

from slipway_client.account_models import Budget, UsageLine
from slipway_client.cli.console import as_json, bars, note, table
from slipway_client.client import Slipway


def usage(client: Slipway, options: argparse.Namespace) -> int:
    groups = options.by.split(",")
    lines = list(client.usage.report(*groups, since=options.since, until=options.until))
    if options.json:
        as_json(lines)
        return 0
    named = [(name_of(each, groups), each) for each in lines]
    rows = [(name, each.calls, each.input_tokens, each.output_tokens, each.cost_usd) for name, each in named]
    table(rows, options.by.upper(), "CALLS", "TOKENS IN", "TOKENS OUT", "USD", empty="No usage in this time.")
    bars([(name, each.cost_usd) for name, each in named], "USD")
    total = sum((each.cost_usd for each in lines), Decimal(0))
    saved = sum((each.cache_savings_usd for each in lines), Decimal(0))
    note(f"total {total} USD, {saved} USD saved by caches")
    for budget in client.usage.budget():
        note(told(budget))
    return 0


def name_of(usage_line: UsageLine, groups: list[str]) -> str:
    return " ".join(str(getattr(usage_line, group) or "-") for group in groups)


def told(budget: Budget) -> str:
    if budget.amount_usd is None:
        return f"{budget.scope}: {budget.spent_usd} USD spent, no cap"
    return f"{budget.scope}: {budget.spent_usd} of {budget.amount_usd} USD a {budget.period}, {budget.left_usd} left"
