"""Printing in the terminal: text of others without control characters, tables, bars, and JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from slipway_client.parsing import Model

LAYOUT = "\n\t"
BAR = 40  # columns of the longest bar
EIGHTHS = " ▏▎▍▌▋▊▉"
MAX_LINE = 1024 * 1024  # characters read at once; the server takes less
MAX_SHOWN = 500  # characters of a tool's arguments or result

# Markup, emoji codes and highlighting are off: text of a model or a tool is printed as it is.
out = Console(markup=False, emoji=False, highlight=False)
err = Console(markup=False, emoji=False, highlight=False, stderr=True)


def clean(text: object, keep: str = "") -> str:
    """Replace what is not printable by spaces: terminal escapes, and signs that change the order of letters."""
    return "".join(letter if letter.isprintable() or letter in keep else " " for letter in str(text))


def shown(value: Any) -> str:
    """Format a cell."""
    if value is None or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list):
        return clean(", ".join(map(str, value)))
    return clean(value)


def shortened(value: Any) -> str:
    """Return JSON of a value on one line, cut."""
    text = clean(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def note(text: str) -> None:
    """Print a line about the work, apart from its result."""
    err.print(Text(clean(text), style="dim"), soft_wrap=True)


def fail(text: str) -> None:
    err.print(Text(clean(text, keep="\n"), style="red"), soft_wrap=True)


def line(text: str, style: str = "") -> None:
    out.print(Text(clean(text, keep=LAYOUT), style=style), soft_wrap=True)


def piece(text: str) -> None:
    """Print a piece of text at once, without an end of line."""
    sys.stdout.write(clean(text, keep=LAYOUT))
    sys.stdout.flush()


def person() -> bool:
    """Whether a person is at the terminal who sees questions and can answer."""
    return sys.stdin.isatty() and err.is_terminal


def answered(question: str) -> str | None:
    """Read a line, after a question that a person sees even where stdout is a pipe; None at the end."""
    if out.is_terminal and person():
        try:
            return input(question)  # with the line editing of the terminal
        except EOFError:
            return None
    if person():
        sys.stderr.write(question)
        sys.stderr.flush()
    text = sys.stdin.readline(MAX_LINE)
    return text.rstrip("\n") if text else None


def as_json(value: Model | Sequence[Model]) -> None:
    """Print answers as they came. JSON escapes control characters by itself."""
    raw = value.raw if isinstance(value, Model) else [each.raw for each in value]
    sys.stdout.write(json.dumps(raw, indent=2) + "\n")


def table(rows: Iterable[Sequence[Any]], *columns: str, empty: str) -> None:
    """Print a table; without a terminal, lines with tabs between the cells, and no heading."""
    cells = [[shown(cell) for cell in row] for row in rows]
    if not out.is_terminal:
        for row in cells:
            sys.stdout.write("\t".join(row) + "\n")
    elif not cells:
        note(empty)
    else:
        built = Table(box=None, header_style="bold", pad_edge=False)
        for at, name in enumerate(columns):  # an id is never cut, the last column first
            widest = max(len(row[at]) for row in cells)
            built.add_column(name, no_wrap=True, min_width=None if at else widest)
        for row in cells:
            built.add_row(*map(Text, row))
        out.print(built)


def card(title: str, rows: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one a line."""
    line(title, style="bold")
    for name, value in rows:
        text = Text(f"  {name:<12} ", style="dim")
        out.print(
            text.append(clean(shown(value) if not isinstance(value, str) else value), style="not dim"),
            soft_wrap=True,
        )


def bars(amounts: Sequence[tuple[str, Decimal]], unit: str) -> None:
    """Print a bar for each amount, the longest `BAR` columns; in a terminal only."""
    longest = max((amount for _, amount in amounts), default=Decimal(0))
    if not out.is_terminal or longest <= 0:
        return
    width = max(len(name) for name, _ in amounts)
    for name, amount in amounts:
        text = Text(f"{clean(name):<{width}} ", style="dim")
        text.append(bar(amount / longest), style="cyan")
        out.print(text.append(f" {amount} {unit}", style="not dim"), soft_wrap=True)


def bar(share: Decimal) -> str:
    """Return a bar of that share of `BAR` columns, to an eighth of a column."""
    eighths = int(share * BAR * 8)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
