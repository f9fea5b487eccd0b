"""Progress and table of `flask evals run`."""

from __future__ import annotations

import sys
import time

import click

from service.cli.common import print_rows, printable
from service.evals.evaluation import FAULTS, Evaluation, Report, Row
from service.evals.house import House
from service.evals.statistics import wilson
from service.types import usd

WIDTH = 48  # characters of a case in the table
EVERY = 10.0  # seconds between two lines of progress, where there is no terminal
LIVE = 0.2  # the same in a terminal, which has one line for all
ENOUGH = 10  # repeats of a baseline, from which a case that drops to nothing is caught each time
MAX_FAILURES = 3  # failed repeats of a case that are told


class Meter:
    """Progress on stderr: repeats done of those planned, which grow with each case that is asked again."""

    def __init__(self, evaluation: Evaluation, house: House) -> None:
        self._evaluation = evaluation
        self._house = house
        self._done = 0
        self._live = sys.stderr.isatty()
        self._next = time.monotonic() + (LIVE if self._live else EVERY)

    def step(self) -> None:
        """Count a repeat, and tell when it is time."""
        self._done += 1
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + (LIVE if self._live else EVERY)
            more = max(0, self._done - self._evaluation.repeats)
            asked = f"{self._done - more} of {self._evaluation.repeats} asked" + (
                f", {more} again" if more else ""
            )
            line = f"{asked}, {usd(self._house.spent())} USD"
            click.echo(f"\r{line}\033[K" if self._live else line, nl=not self._live, err=True)

    def end(self) -> None:
        if self._live:
            click.echo("\r\033[K", nl=False, err=True)


def print_report(report: Report) -> None:
    """Print a row for each case, the failures, and the summary."""
    print_rows(
        [_cells(row) for row in report.rows], "verdict agent case passed rate spread baseline usd s steps", ""
    )
    for row in report.rows:
        if row.verdict != "skipped" and row.tally.failures():
            _print_failures(row)
    for name, p in report.together.items():
        click.echo(f"{name}: its cases, all together, pass less often than in the baseline (p = {p:.2g}).")
    if report.model == "real" and any(row.baseline and row.baseline.runs < ENOUGH for row in report.rows):
        click.echo(
            f"The baseline has fewer than {ENOUGH} repeats of some cases: it shows little. See docs/evals.md."
        )
    click.echo(_summary(report))


def _cells(row: Row) -> dict[str, str | None]:
    text = " ".join(row.tally.case.input.split())
    case = text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
    about: dict[str, str | None] = {"verdict": row.verdict, "agent": row.agent, "case": case}
    names = ("passed", "rate", "spread", "baseline", "usd", "s", "steps")
    if row.verdict == "skipped" or not row.tally.rate.runs:
        return {**about, **dict.fromkeys(names)}
    record, rate = row.tally.record(), row.tally.rate
    low, high = wilson(rate)
    values = [
        f"{rate.passed}/{rate.runs}",
        f"{rate.share:.0%}",
        f"{low:.0%}-{high:.0%}",
        None if row.baseline is None else f"{row.baseline.passed}/{row.baseline.runs}",
        f"{record.cost_usd:.6f}",
        f"{record.seconds:.2f}",
        f"{record.steps:g}",
    ]
    return {**about, **dict(zip(names, values, strict=True))}


def _print_failures(row: Row) -> None:
    colour = "red" if row.verdict in FAULTS else "yellow"
    click.echo(click.style(f"{row.verdict}  {row.agent}: {printable(row.tally.case.input)[:200]}", fg=colour))
    failures = row.tally.failures()
    for outcome in failures[:MAX_FAILURES]:
        for line in outcome.missing:
            click.echo(f"      {printable(line)}")
    if (more := len(failures) - MAX_FAILURES) > 0:
        click.echo(f"      and {more} more repeats failed")


def _summary(report: Report) -> str:
    judged = [row for row in report.rows if row.verdict != "skipped"]
    counts = {verdict: sum(row.verdict == verdict for row in judged) for verdict in sorted(FAULTS)}
    told = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    good = len(judged) - sum(counts.values())
    skipped = len(report.rows) - len(judged)
    parts = [f"{good} of {len(judged)} cases are as expected", *told, f"{usd(report.spent)} USD"]
    if skipped:
        parts.append(f"{skipped} not asked: they need a real model (ANTHROPIC_API_KEY)")
    if report.capped:
        parts.append("the cap was reached before the end: raise --cap")
    return "; ".join(parts) + "."
