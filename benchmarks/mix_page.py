"""docs/performance/load.md: what Locust's mix found, as tables and plots."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.plots import bars, lines
from benchmarks.tables import milliseconds, table

Found = Mapping[str, Any]
PARTS = ("replicas", "task worker", "nginx", "Redis", "PostgreSQL")
TITLES = {
    "sign_in": "sign-in",
    "invoke": "invoke, a new question",
    "again": "invoke, asked before",
    "stream": "stream of 100 deltas",
    "task": "task, with its polls",
    "approval": "approval: ask, decide, polls",
    "usage": "usage: three reads",
}
FIRST = {
    "sign_in": "sign in",
    "usage": "usage: /v1/usage",
}  # the line that counts a kind, where its name is not it


def page(found: Found) -> str:
    """Return the page."""
    machine, idle = found["machine"], found["idle"]
    mix = found["phases"][-1]
    loads = ", ".join(f"{one['tag'] or 'mix'} {one['load1']:.1f}" for one in found["phases"])
    costs = cost_of_kinds(found)
    parts = [
        "# Load in the mix of a working day",
        "Written by `make bench-load ARGS=--write`. What follows from it: [capacity](../capacity.md).",
        f"{machine['date']}, commit {machine['commit']}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB, shared with the load generator, the model and the proxy. Load average of the "
        f"machine before each phase: {loads}. Times of answers grow with other work on the machine, CPU times little.",
        "## Cost of each kind",
        "CPU milliseconds for one of each kind, alone, without what the processes use while nobody asks; of a "
        "question asked before, without its first time.",
        table(
            ("kind", "done", *PARTS, "all"),
            [
                (
                    TITLES[kind],
                    f"{cost['done']:,.0f}",
                    *(f"{cost[part]:.2f}" for part in PARTS),
                    f"{cost['all']:.1f}",
                )
                for kind, cost in costs.items()
            ],
        )
        if costs
        else "Not measured.",
        "![CPU of each kind](load-cpu.svg)",
        "## The mix",
        _told(mix, costs),
        table(
            ("", "done", "failures", "p50 ms", "p95 ms", "p99 ms"),
            [
                (
                    one["name"],
                    f"{one['count']:,}",
                    f"{one['failures']:,}",
                    *(milliseconds(one[p]) for p in QUANTILES),
                )
                for one in sorted(mix["lines"], key=lambda line: line["name"])
            ],
        ),
        "![CPU of each part](load-mix.svg)",
        "## Memory",
        "MiB, proportional set size. A replica is an arbiter and two processes; a task worker a parent and two.",
        table(
            ("", "while nobody asks", "after the mix"),
            [
                (part, f"{mib:,.0f}", f"{mix['memory_mib'][part]:,.0f}")
                for part, mib in idle["memory_mib"].items()
            ],
        ),
        f"While nobody asks all parts use {1000 * sum(idle['cpu'][part] for part in PARTS):.0f} ms of CPU a second.",
    ]
    return "\n\n".join(parts) + "\n"


QUANTILES = ("p50", "p95", "p99")


def _told(mix: Found, costs: Mapping[str, Mapping[str, float]]) -> str:
    requests = sum(one["count"] for one in mix["lines"] if one["kind"] != "TIME")
    used = sum(mix["cpu"].values())
    told = (
        f"{mix['people']} people for {mix['seconds']:.0f} s: {requests:,} requests, {requests / mix['seconds']:.1f} a "
        f"second, {used:.1f} s of CPU, that is {1000 * used / max(requests, 1):.1f} ms a request and "
        f"{used / mix['seconds']:.2f} cores."
    )
    things = sum(_count(mix, kind) for kind in TITLES) + _again_first(mix)
    parts = ", ".join(f"{part} {1000 * mix['cpu'][part] / max(things, 1):.1f}" for part in PARTS)
    told += (
        f" CPU milliseconds for each of the {things:,} things that people did, whatever its kind: {parts}."
    )
    if costs:
        counts = {kind: _count(mix, kind) for kind in costs}
        counts["invoke"] = counts.get("invoke", 0) + _again_first(mix)
        reckoned = sum(cost["all"] * counts[kind] for kind, cost in costs.items()) / 1000
        told += f" Reckoned from the kinds alone: {reckoned:.1f} s."
    return told


def cost_of_kinds(found: Found) -> dict[str, dict[str, float]]:
    """Return CPU milliseconds of each part for one of each kind that was measured alone."""
    alone = {one["tag"]: one for one in found["phases"] if one["tag"]}
    costs: dict[str, dict[str, float]] = {}
    for kind, one in alone.items():
        done = _count(one, kind)
        if not done:
            continue
        misses = _again_first(one)
        cost = {"done": float(done)}
        for part in PARTS:
            spent = one["cpu"][part] - found["idle"]["cpu"][part] * one["seconds"]
            spent -= misses * costs.get("invoke", {}).get(part, 0.0) / 1000
            cost[part] = max(0.0, 1000 * spent / done)
        costs[kind] = cost | {"all": sum(cost[part] for part in PARTS)}
    return costs


def _count(one: Found, kind: str) -> int:
    name = FIRST.get(kind, kind)
    return sum(line["count"] - line["failures"] for line in one["lines"] if line["name"] == name)


def _again_first(one: Found) -> int:
    return sum(line["count"] for line in one["lines"] if line["name"] == "again: first time")


def cores(samples: Sequence[Mapping[str, float]]) -> dict[str, list[tuple[float, float]]]:
    """Return cores in use by each part over the seconds of the mix."""
    pairs = list(itertools.pairwise(samples))
    return {
        part: [
            (now["at"] - samples[0]["at"], (now[part] - then[part]) / (now["at"] - then["at"]))
            for then, now in pairs
        ]
        for part in PARTS
    }


def write(found: Found, folder: Path) -> None:
    """Write page and plots."""
    (folder / "load.md").write_text(page(found))
    costs = {TITLES[kind]: cost["all"] for kind, cost in cost_of_kinds(found).items()}
    (folder / "load-cpu.svg").write_text(bars("CPU of one of each kind, all parts", "ms", costs))
    plotted = cores(found["phases"][-1]["samples"])
    most = max((value for points in plotted.values() for _, value in points), default=1) * 1.1
    (folder / "load-mix.svg").write_text(lines("Cores in use over the seconds of the mix", "", plotted, most))
