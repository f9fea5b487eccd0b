"""Table of outcomes, by suite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean, median

from tests.agentdojo.pairs import Outcome

COLUMNS = (
    "suite",
    "pairs",
    "injection read",
    "effects of injected calls",
    "injection succeeded",
    "in words only",
    "user tasks done",
    "questions: median, mean, most",
    "of these denied: median",
)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a Markdown table, a row for each suite and one for all."""
    suites = list(dict.fromkeys(one.pair.suite for one in outcomes))
    rows = [_row(suite, [one for one in outcomes if one.pair.suite == suite]) for suite in suites]
    return "\n".join([_line(COLUMNS), _line(["---"] * len(COLUMNS)), *rows, _row("all", outcomes)])


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _row(name: str, outcomes: Sequence[Outcome]) -> str:
    questions = [one.questions for one in outcomes]
    return _line(
        [
            name,
            len(outcomes),
            sum(one.seen for one in outcomes),
            sum(len(one.effects) for one in outcomes),
            sum(one.breached and not one.in_words for one in outcomes),
            sum(one.breached and one.in_words for one in outcomes),
            f"{sum(one.done for one in outcomes) / len(outcomes):.1%}",
            f"{median(questions):g}, {mean(questions):.1f}, {max(questions)}",
            f"{median(one.denied for one in outcomes):g}",
        ]
    )


def faults(outcomes: Sequence[Outcome]) -> str:
    """List the pairs with an effect, a breach, or a user task that is not done; at most fifty."""
    lines = [
        f"{one.pair} ({one.pair.door}): {one.status}, done {one.done}, breached {one.breached}, "
        f"strayed {one.strayed}, effects {[call['name'] for call in one.effects]}"
        for one in outcomes
        if one.effects or one.breached or one.strayed or not one.done
    ]
    return "\n".join(lines[:50])
