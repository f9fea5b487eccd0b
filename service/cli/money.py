"""`flask prices`, `flask ledger` and `flask budgets`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

import click

from service.cli.common import (
    Commands,
    Progress,
    as_json,
    paginate,
    print_json,
    print_rows,
    services,
    until_option,
)
from service.store.cap_scopes import FORMS, is_scope
from service.store.ledger_entries import estimate as ledger_rows
from service.types import NO_USAGE, usd
from service.usage import rollup
from service.usage.caps import PERIODS, Period, nano_of
from service.usage.ledger import check as check_books
from service.usage.prices import DATED, OFFLINE, today
from service.usage.reconcile import KINDS, Drift, drifts
from service.webhooks import BUDGET_SIGNER

prices = Commands("prices", help="The price table.")
ledger = Commands("ledger", help="The books: proof that they are right, and the provider's beside them.")
budgets = Commands("budgets", help="Spending caps: how they stand, and setting them.")
SOON = timedelta(days=60)
_BUDGET = "scope period amount_usd spent_usd reserved_usd left_usd renews_at default until after_usd"


@prices.command("check")
def check_prices() -> None:
    """Compare the models in use with the price table and with what the API lists."""
    from service.llm.build import claude

    used = {model for agent in services().agents.agents.values() for model in agent.models}
    client = claude(services().settings)
    try:
        listed = {model["id"]: model for model in client.list_models()}
    finally:
        client.close()
    wrong = False
    for model in sorted(used):
        for bad, line in model_findings(model, listed):
            wrong = wrong or bad
            click.echo(line)
    for model in sorted(listed):
        if model not in used and not has_price(model):
            click.echo(f"note  {model} is to be had, and has no price")
    sys.exit(1 if wrong else 0)


def model_findings(model: str, listed: dict[str, dict[str, Any]]) -> Iterator[tuple[bool, str]]:
    """Yield findings about a model in use, as (is an error, line)."""
    if not has_price(model):
        yield True, f"WRONG {model} has no price for {today()}: every call is refused"
    entry = listed.get(model) or listed.get(DATED.sub("", model)) or listed.get(model.removeprefix(OFFLINE))
    if entry is None:
        yield True, f"WRONG {model} is not among the models the API lists"
        return
    if entry.get("lifecycle") not in (None, "active"):
        yield False, f"warn  {model} is {entry['lifecycle']}"
    if entry.get("retires_at"):
        ends = datetime.fromisoformat(str(entry["retires_at"])).date()
        if ends <= today() + SOON:
            yield ends <= today(), f"{'WRONG' if ends <= today() else 'warn '} {model} retires on {ends}"
            return
    if has_price(model):
        yield False, f"ok    {model} at {services().usage.prices.price(model, today()).id}"


def has_price(model: str) -> bool:
    return services().usage.prices.usd_today(model, NO_USAGE) is not None


@ledger.command("check")
@as_json
def check_ledger(as_json: bool) -> None:
    """Prove that counters and daily sums equal the rows, and no cap was passed. Exits 1 and names the rows.

    Read-only: run it at any time, stop it with Ctrl-C. A stopped check has proven nothing.
    """
    db = services().infra.db
    found = check_books(db, services().usage.prices, Progress(ledger_rows(db)).read)
    named = [*found.faults, *rollup.check(db)]
    faults = len(named) + found.more
    summary = {
        "entries": found.entries,
        "counters": found.counters,
        "spent_usd": usd(found.spent),
        "held_usd": usd(found.held),
        "faults": [str(fault) for fault in named],
        "faults_not_named": found.more,
    }
    if as_json:
        print_json(summary)
    else:
        for fault in named:
            click.echo(f"WRONG {fault}")
        if found.more:
            click.echo(f"WRONG {found.more} more places")
        click.echo(
            f"{found.entries} entries, {found.counters} counters, {summary['spent_usd']} dollars spent, "
            f"{summary['held_usd']} held: {f'{faults} faults' if faults else 'all right'}."
        )
    sys.exit(1 if faults else 0)


@ledger.command()
@click.argument("export", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@as_json
def reconcile(export: Path, as_json: bool) -> None:
    """Print the drift from the provider's usage export (CSV or JSON), per day and model."""
    try:
        found = drifts(services().infra.db, export.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        return print_json([{**drift._asdict(), "differs": drift.differs} for drift in found])
    print_rows([line for drift in found for line in _drift_rows(drift)], _DRIFT, "The export is empty.")


_DRIFT = "day model what ours theirs drift"


def _drift_rows(drift: Drift) -> Iterator[dict[str, Any]]:
    for name in (*KINDS, "cost"):
        ours, theirs = drift.ours.get(name, 0), drift.theirs.get(name)
        if theirs is None or not (ours or theirs):
            continue
        show = usd if name == "cost" else str
        change = f"{(ours - theirs) * 100 / theirs:+.2f} %" if theirs else "new"
        figures = (show(ours), show(theirs), "0" if ours == theirs else change)
        yield dict(zip(_DRIFT.split(), (drift.day, drift.model, name, *figures), strict=True))


@budgets.command("list")
@as_json
def list_budgets(as_json: bool) -> None:
    """List the caps that were set, and the service's, with their state."""
    shown = [state.public() for state in paginate(services().usage.budgets.page, attrgetter("cap.id"))]
    print_rows(shown, _BUDGET, "There are no caps.", as_json=as_json)


@budgets.command("set")
@click.argument("scope")
@click.argument("amount_usd")
@click.option("--period", type=click.Choice(PERIODS), default="day", show_default=True)
@until_option
def set_budget(scope: str, amount_usd: str, period: Period, until: int | None) -> None:
    """Set the cap of a scope, such as user:ID or end_user:KEY_ID/NAME; the amount `none` lifts it."""
    if not is_scope(scope):
        raise click.ClickException(f"The scope is {FORMS}.")
    try:
        amount = None if amount_usd == "none" else nano_of(amount_usd)
    except ValueError as error:
        raise click.ClickException(f"{amount_usd} {error}.") from None
    if amount is not None:
        services().usage.budgets.look_up(scope)
    print_rows([services().usage.budgets.put(scope, period, amount, until=until).public()], _BUDGET, "")


@budgets.command("webhook-secret")
def webhook_secret() -> None:
    """Print the secret that signs the warnings posted to BUDGET_WEBHOOK_URL."""
    click.echo(services().webhooks.secret_of(BUDGET_SIGNER))
