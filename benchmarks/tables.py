"""Markdown tables of docs/performance.md, and how figures look in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.shots import STREAM


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def milliseconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def added(first: float | None) -> str:
    """First token over the model's own."""
    return "–" if first is None else f"{first - STREAM.first:,.0f} ms"
