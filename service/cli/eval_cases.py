"""`flask evals from-run` and `from-feedback`: cases of real runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click
from flask.cli import with_appcontext

from service.agents.files import EVALS
from service.cli.agents import named
from service.cli.common import WholeNumber, services
from service.evals import from_runs
from service.evals.from_runs import CannotAppend, Mask
from service.store import feedback as feedback_rows
from service.store.database import Row
from service.types import Run

unmasked_option = click.option(
    "--unmasked", is_flag=True, help="Keep personal data and secrets in the texts."
)
append_option = click.option(
    "--append", is_flag=True, help="Append to the agent's evals.yaml; else they are printed."
)


@click.command("from-run")
@click.argument("run_ids", metavar="RUN...", nargs=-1, required=True)
@append_option
@unmasked_option
@with_appcontext
def from_run(run_ids: Sequence[str], append: bool, unmasked: bool) -> None:
    """Make a case of each run: what was asked, with the answer as a comment. The expectations are yours to write.

    Personal data and secrets are masked, as far as the guardrails know them.
    """
    queries = services().runs.queries
    mask = str if unmasked else from_runs.masked
    _cases([(queries.get(run_id), None) for run_id in run_ids], mask, append=append)


@click.command("from-feedback")
@click.option("--agent", help="Only runs of this agent.")
@click.option(
    "--score", type=click.IntRange(-1, 1), default=-1, show_default=True, help="Only of this score."
)
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Given on this day (UTC) or later.")
@click.option("--limit", type=WholeNumber(1, 200), default=20, show_default=True, help="How many at most.")
@append_option
@unmasked_option
@with_appcontext
def from_feedback(
    agent: str | None, score: int, since: datetime | None, limit: int, append: bool, unmasked: bool
) -> None:
    """Make a case of each run that users have rated so, newest first."""
    rows = services().infra.db.query(
        lambda tx: feedback_rows.recent(tx, limit=limit, agent=agent, score=score)
    )
    if since is not None:
        rows = [row for row in rows if row["updated_at"] >= since.replace(tzinfo=UTC).timestamp() * 1000]
    if not rows:
        click.echo("There is no such feedback.", err=True)
    queries = services().runs.queries
    mask = str if unmasked else from_runs.masked
    _cases([(queries.get(row["run_id"]), row) for row in rows], mask, append=append)


def _cases(found: Sequence[tuple[Run, Row | None]], mask: Mask, *, append: bool) -> None:
    """Print the cases, or append them to the files of their agents."""
    texts: dict[str, list[str]] = {}
    for run, rating in found:
        if not run.request.question.strip():
            click.echo(f"{run.id} has no question in words.", err=True)
            continue
        texts.setdefault(run.agent, []).append(from_runs.case_of(run, services().sessions, mask, rating))
    for agent, cases in texts.items():
        if append:
            _append(agent, cases)
        else:
            click.echo("\n".join(cases), nl=False)


def _append(agent: str, cases: Sequence[str]) -> None:
    path = named(services(), agent).folder / EVALS
    try:
        added = from_runs.append(path, cases)
    except CannotAppend as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}.") from None
    click.echo(f"{path}: {added} added, {len(cases) - added} there already.")
