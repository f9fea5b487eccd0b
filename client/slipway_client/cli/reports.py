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
    note(f"total {total} USD{saved_by_layer(lines)}")
    for budget in client.usage.budget():
        note(told(budget))
    return 0


LAYERS = {
    "same questions": "hit_savings_usd",
    "near questions": "near_savings_usd",
    "requests at once": "coalesced_savings_usd",
    "the provider's prompt cache": "prompt_cache_savings_usd",
    "batches": "batch_savings_usd",
}


def saved_by_layer(lines: list[UsageLine]) -> str:
    """Tell what was saved by each layer that saved something."""
    sums = {layer: sum(getattr(each, name) for each in lines) for layer, name in LAYERS.items()}
    told = [f"{amount} by {layer}" for layer, amount in sums.items() if amount]
    return f", saved {', '.join(told)}" if told else ""


def name_of(usage_line: UsageLine, groups: list[str]) -> str:
    return " ".join(str(getattr(usage_line, group) or "-") for group in groups)


def told(budget: Budget) -> str:
    if budget.amount_usd is None:
        return f"{budget.scope}: {budget.spent_usd} USD spent, no cap"
    return f"{budget.scope}: {budget.spent_usd} of {budget.amount_usd} USD a {budget.period}, {budget.left_usd} left"
