"""From figures to numbers that can be compared: medians of rounds, ratios of neighbours, goals met or missed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.shots import STREAM, TWO_SECONDS, ideal_seconds

Row = dict[str, Any]  # one of `Figures`, as it is kept


@dataclass(frozen=True)
class Ratio:
    """Of rounds that were measured one after the other: the median and the spread."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} – {self.most:.2f})"


@dataclass(frozen=True)
class Goal:
    """A goal of the project, what was found, and whether that meets it (None: it was not measured)."""

    what: str
    goal: str
    found: str
    met: bool | None


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio | None:
    """None when there is no pair of figures above nought."""
    found = [one / other for one, other in zip(ours, theirs, strict=False) if one > 0 and other > 0]
    return Ratio(statistics.median(found), min(found), max(found)) if found else None


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
        """A figure by round; of rounds with no good answer nought."""
        return [float(row[name]) if row["good"] else 0.0 for row in self.of(case, server)]

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


# --- goals --------------------------------------------------------------------------------------------------


def goals(of: Summary) -> list[Goal]:
    """The table of goals of the project, in its order."""
    found = [
        _at_most(of, "invoke, CPU per request, of LiteLLM", 0.25, "A", "litellm"),
        _at_most(of, "invoke, CPU per request, of Agno", 0.6, "A", "agno"),
        _at_most(of, "invoke, CPU per request, of FastAPI", 1.3, "A", "fastapi"),
        _at_most(of, "cache hit, CPU per request, of FastAPI", 1.0, "B", "fastapi"),
        _at_most(of, "cache hit, CPU per request, of LiteLLM", 0.06, "B", "litellm"),
        _at_most(of, "200 streams, CPU per stream, of FastAPI", 0.4, "D200", "fastapi"),
        _at_most(of, "200 streams, CPU per stream, of LiteLLM", 0.2, "D200", "litellm"),
        _ideal(
            of, "1,000 calls of 2 s at once, p99 of ideal", 1.15, "C1000", ideal_seconds(TWO_SECONDS, False)
        ),
        _ideal(of, "500 streams, p99 total of ideal", 1.10, "D500", ideal_seconds(STREAM, True)),
        *_most(of),
        *_first_token(of),
        *_memory(of),
        _start(of),
        _gone(of),
    ]
    return found + [
        _growth(of, case, what) for case, what in (("HA", "invoke"), ("HB", "hit"), ("HD100", "stream"))
    ]


def _at_most(of: Summary, what: str, most: float, case: str, other: str) -> Goal:
    found = of.ratio(case, "cpu_ms", "slipway", other)
    return Goal(what, f"at most {most}", str(found or "–"), found.median <= most if found else None)


def _ideal(of: Summary, what: str, most: float, case: str, ideal: float) -> Goal:
    p99, errors = of.median(case, "slipway", "p99"), of.errors(case, "slipway")
    if p99 is None:
        return Goal(what, f"at most {most}, no error", "–", None)
    times = p99 / 1000 / ideal
    told = f"{times:.2f}, {errors or 'no'} error{'s' if errors > 1 else ''}"
    return Goal(what, f"at most {most}, no error", told, times <= most and not errors)


def _most(of: Summary) -> list[Goal]:
    ours, theirs = of.single("M", "slipway", "held"), of.single("M", "fastapi", "held")
    alone = Goal("most streams held", "at least 1,000", _number(ours), None if ours is None else ours >= 1000)
    if ours is None or theirs is None:
        return [alone, Goal("most streams held, of FastAPI", "at least 3 times", "–", None)]
    times = ours / theirs if theirs else float("inf")
    return [
        alone,
        Goal("most streams held, of FastAPI", "at least 3 times", f"{times:.1f} times", times >= 3),
    ]


def _first_token(of: Summary) -> list[Goal]:
    """Over the model's own: the upstream sends the first token after so many milliseconds."""
    found = []
    for name, most in (("first_p50", 5), ("first_p99", 30)):
        value = of.median("D200", "slipway", name)
        added = None if value is None else value - STREAM.first
        told = "–" if added is None else f"{added:.1f} ms"
        what = f"200 streams, added to the first token, {name[-3:]}"
        found.append(Goal(what, f"at most {most} ms", told, None if added is None else added <= most))
    return found


def _memory(of: Summary) -> list[Goal]:
    ours, theirs = of.single("E", "slipway", "idle_mib"), of.single("E", "litellm", "idle_mib")
    share = ours / theirs if ours and theirs else None
    each = of.single("E", "slipway", "open_stream_kib")
    return [
        Goal(
            "idle memory, of LiteLLM", "at most 0.2", _number(share), None if share is None else share <= 0.2
        ),
        Goal(
            "memory per open stream", "at most 120 KiB", _number(each), None if each is None else each <= 120
        ),
    ]


def _start(of: Summary) -> Goal:
    ours, theirs = of.single("E", "slipway", "start_s"), of.single("E", "litellm", "start_s")
    share = statistics.median(ours) / statistics.median(theirs) if ours and theirs else None
    return Goal("start, of LiteLLM", "at most 0.1", _number(share), None if share is None else share <= 0.1)


def _gone(of: Summary) -> Goal:
    """The next delta comes within 250 ms."""
    waits = of.single("F", "slipway", "seconds")
    met = None if not waits else max(waits) <= 1.25
    told = f"{max(waits):.2f} s at most, a delta every 0.25 s" if waits else "–"
    return Goal("client gone, to model call stopped", "within 1 s of the next delta", told, met)


def _growth(of: Summary, case: str, what: str) -> Goal:
    servers = [name for name in of.servers(case) if name.startswith("runs ")]
    found = of.ratio(case, "cpu_ms", servers[1], servers[0]) if len(servers) == 2 else None
    few, many = (f"{int(name.split()[1]):,}" for name in servers) if len(servers) == 2 else ("few", "many")
    title = f"{what}, CPU at {many} kept runs of that at {few}"
    return Goal(title, "at most 1.1", str(found or "–"), found.median <= 1.1 if found else None)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"
