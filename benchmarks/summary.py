"""From figures to numbers that can be compared: medians of rounds, ratios of neighbours."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

Row = dict[str, Any]  # one of `Figures`, as it is kept


@dataclass(frozen=True)
class Ratio:
    """Of rounds that were measured one after the other: the median and the spread."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} – {self.most:.2f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """None when there is no pair of figures above nought."""
    found = [one / other for one, other in zip(ours, theirs, strict=False) if one > 0 and other > 0]
    return Ratio(statistics.median(found), min(found), max(found)) if found else None


MADE: dict[str, Callable[[Row], float]] = {
    "rate": lambda row: row["good"] / row["seconds"],  # good answers a second
    "all_ms": lambda row: row["cpu_ms"] + row["redis_ms"] + row["database_ms"],
}


COMPARED = ("rate", "p50", "p99", "first_p99", "cpu_ms", "all_ms")


class Summary:
    """Reads what a run has kept."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self.kept = kept
        self.rows: list[Row] = kept["figures"]
        self.found: dict[str, dict[str, Any]] = kept["found"]

    def of(self, case: str, server: str) -> list[Row]:
        rows = [row for row in self.rows if row["case"] == case and row["server"] == server]
        return sorted(rows, key=lambda row: int(row["round"]))

    def values(self, case: str, server: str, name: str) -> list[float]:
        """A figure by round, or one of `MADE`; of rounds with no good answer nought."""
        made: Callable[[Row], float] = MADE.get(name) or itemgetter(name)
        return [float(made(row)) if row["good"] else 0.0 for row in self.of(case, server)]

    def median(self, case: str, server: str, name: str) -> float | None:
        values = [value for value in self.values(case, server, name) if value > 0]
        return statistics.median(values) if values else None

    def errors(self, case: str, server: str) -> int:
        return sum(sum(row["errors"].values()) for row in self.of(case, server))

    def servers(self, case: str) -> list[str]:
        """Who was measured, in the order of the run."""
        return list(dict.fromkeys(row["server"] for row in self.rows if row["case"] == case))

    def ratio(self, case: str, name: str, ours: str, theirs: str) -> Ratio | None:
        return ratio(self.values(case, ours, name), self.values(case, theirs, name))

    def single(self, case: str, server: str, what: str) -> Any:
        """What was found once, such as a start; None when it was not."""
        return self.found.get(case, {}).get(server, {}).get(what)


def beside(of: Summary, name: str) -> list[str]:
    """Tell how other checkouts compare with the server `name`, a line each: above 1 is more than there."""
    found = []
    for case, other in dict.fromkeys((row["case"], row["server"]) for row in of.rows if "@" in row["server"]):
        ratios = {figure: of.ratio(case, figure, other, name) for figure in COMPARED}
        told = "  ".join(f"{figure} {one}" for figure, one in ratios.items() if one)
        found.append(f"{case:10} {other} / {name}: {told}  errors {of.errors(case, other)}")
    return found
