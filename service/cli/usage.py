"""`flask usage`: what was spent and saved, as a table, and as bars in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import click

from service.cli.common import Commands, WholeNumber, as_json, print_json, print_rows, printable, services
from service.store.usage import UNROLLED, UsageQuery
from service.types import now_ms
from service.usage import reports
from service.usage.reports import GROUPS

usage = Commands("usage", help="What was spent and saved, over all users.")
DAY_MS = 86_400_000
MAX_DAYS, MAX_UNROLLED_DAYS = 400, 31
BAR = 40  # columns of the longest bar
EIGHTHS = " ▏▎▍▌▋▊▉"
VALUES = ("cost_usd", "calls", "savings_usd")
by_option = click.option(
    "--by", default="day", show_default=True, metavar="GROUPS", help=f"Any of {', '.join(GROUPS)}, by commas."
)
days_option = click.option(
    "--days", type=WholeNumber(1, MAX_DAYS), default=30, show_default=True, help="The last days, in UTC."
)
limit_option = click.option(
    "--limit", type=WholeNumber(1, 1000), default=100, show_default=True, help="Lines at most."
)


@usage.command("report")
@by_option
@days_option
@limit_option
@as_json
def report(by: str, days: int, limit: int, as_json: bool) -> None:
    """Print calls, tokens, cost and savings by group. Days and hours are UTC."""
    groups, page = _page(by, days, limit)
    lines = [_with_savings(line) for line in page.lines]
    if as_json:
        return print_json({"data": lines, "total": _with_savings(page.total), "more": page.next is not None})
    print_rows(lines, " ".join((*groups, *_SHOWN)), "No usage in this time.")
    _print_total(page)


@usage.command("plot")
@by_option
@days_option
@limit_option
@click.option("--of", "value", type=click.Choice(VALUES), default=VALUES[0], show_default=True)
def plot(by: str, days: int, limit: int, value: str) -> None:
    """Draw a bar for each group. Days and hours are UTC."""
    groups, page = _page(by, days, limit)
    lines = [_with_savings(line) for line in page.lines]
    names = [" ".join(printable(str(line[group] or "-")) for group in groups) for line in lines]
    amounts = [Decimal(line[value]) for line in lines]
    if not lines:
        click.echo("No usage in this time.")
    longest, width = max(amounts, default=Decimal(0)), max(map(len, names), default=0)
    for name, amount in zip(names, amounts, strict=True):
        click.echo(f"{name:<{width}} {bar(amount / longest if longest > 0 else Decimal(0))} {amount}")
    _print_total(page)


def bar(share: Decimal) -> str:
    """Return a bar of that share of `BAR` columns, to an eighth of a column; empty for a negative one."""
    eighths = max(0, int(share * BAR * 8))
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


_SHOWN = (
    "calls",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "hits",
    "near_hits",
    "coalesced",
    "savings_usd",
)


def _page(by: str, days: int, limit: int) -> tuple[Sequence[str], reports.Page]:
    groups = tuple(name for name in by.split(",") if name)
    if not groups or len({*groups}) != len(groups) or not {*groups} <= {*GROUPS}:
        raise click.ClickException(f"--by is any of {', '.join(GROUPS)}, each once, with commas between.")
    if UNROLLED & {*groups} and days > MAX_UNROLLED_DAYS:
        raise click.ClickException(f"By {min(UNROLLED & {*groups})}: {MAX_UNROLLED_DAYS} days at most.")
    until = now_ms() + 1
    query = UsageQuery((until // DAY_MS - days + 1) * DAY_MS, until, groups)
    return groups, reports.page(services().infra.db, query, limit=limit)


def _with_savings(line: dict[str, Any]) -> dict[str, Any]:
    """Add the sum of a line's savings."""
    return {**line, "savings_usd": str(sum(Decimal(line[name]) for name in reports.SAVINGS.values()))}


def _print_total(page: reports.Page) -> None:
    if page.next is not None:
        click.echo(f"The first {len(page.lines)} lines; --limit shows more.")
    saved = [f"{page.total[name]} by {layer}" for layer, name in reports.SAVINGS.items()]
    click.echo(f"total {page.total['cost_usd']} USD; saved {', '.join(saved)}")
