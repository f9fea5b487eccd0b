"""Writes docs/performance.md and its plots from the figures of a run: `python -m benchmarks.report RESULT.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.fleet import TITLES
from benchmarks.processes import ROOT
from benchmarks.shots import STREAM, TWO_SECONDS, ideal_seconds
from benchmarks.summary import Summary, goals
from benchmarks.words import HOW, REPEAT

DOCS = ROOT / "docs"
NOTES = ROOT / "benchmarks" / "notes.md"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def title(server: str) -> str:
    return TITLES.get(server, server)


def page(of: Summary) -> str:
    """The whole page in Markdown."""
    notes = NOTES.read_text() if NOTES.exists() else ""
    parts = [
        "# Performance\n\n*Written by `make bench`; by hand is only what comes from `benchmarks/notes.md`.*",
        "## Goals\n\n" + _goals(of),
        "## On what\n\n" + _machine(of.kept),
        "## What is measured\n\n" + HOW,
        "## One request\n\n" + _single(of),
        "## Calls of two seconds, many at once\n\n" + _levels(of, "C", ideal_seconds(TWO_SECONDS, False)),
        "## Streams of 100 deltas, 20 ms apart\n\n"
        + _levels(of, "D", ideal_seconds(STREAM, True))
        + _held(of),
        "## Start and memory\n\n" + _memory(of),
        "## When a client or a worker goes\n\n" + _gone(of),
        "## Growth\n\n" + _growth(of),
        "## The instrument\n\n" + _instrument(of),
        _faults(of),
        notes.strip(),
        "## How to repeat\n\n" + REPEAT,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _goals(of: Summary) -> str:
    words = {True: "met", False: "**missed**", None: "not measured"}
    return table(("", "goal", "found", ""), ((g.what, g.goal, g.found, words[g.met]) for g in goals(of)))


def _machine(kept: dict[str, Any]) -> str:
    told = kept["machine"]
    loads = ", ".join(f"{case} {values[0]:.1f}" for case, values in kept["loads"].items())
    versions = (
        (name, ", ".join(f"{part} {version}" for part, version in parts.items()) or "not installed")
        for name, parts in told["versions"].items()
    )
    return "\n\n".join(
        [
            f"{told['date']}, commit {told['commit']}: {told['processor']}, {told['cores']} cores,"
            f" {told['memory_gib']} GiB, {told['system']}, Python {told['python']}."
            f" The run took {kept['minutes']:.0f} minutes."
            + "".join(
                f" Part {case} was measured again: {when}." for case, when in kept.get("renewed", {}).items()
            ),
            f"Load average of the machine as each part began (a part raises that of the next; on {told['cores']}"
            f" cores more than about {told['cores'] + 1} before the first means that other work was under way):"
            f" {loads}.",
            table(("", "versions"), versions),
        ]
    )


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


SINGLE = ("cpu_ms", "redis_ms", "database_ms", "p50", "p99")


def _single(of: Summary) -> str:
    parts = []
    for case, what in (("A", "Invoke, a model that answers at once"), ("B", "Cache hit")):
        rows = []
        for server in of.servers(case):
            median = [of.median(case, server, name) for name in SINGLE]
            compared = of.ratio(case, "cpu_ms", server, "fastapi")
            told = str(compared) if compared and server != "fastapi" else "–"
            rows.append((title(server), *map(_ms, median), told, str(of.errors(case, server) or "none")))
        head = ("", "CPU ms", "Redis ms", "PostgreSQL ms", "p50 ms", "p99 ms", "CPU of FastAPI", "errors")
        parts.append(f"**{what}**, 16 clients, per request:\n\n{table(head, rows)}")
    return "\n\n".join([*parts, "![CPU per request](performance/cpu.svg)"])


def _levels(of: Summary, letter: str, ideal: float) -> str:
    rows = []
    for case in _cases(of, letter):
        for server in of.servers(case):
            p50, p99, first50, first99, cpu, redis = (
                of.median(case, server, name)
                for name in ("p50", "p99", "first_p50", "first_p99", "cpu_ms", "redis_ms")
            )
            own = [_added(first50), _added(first99)] if letter == "D" else []
            times = f"{p99 / 1000 / ideal:.2f}" if p99 else "–"
            row = [f"{int(case[1:]):,}", title(server), _ms(p50), _ms(p99), times, *own, _ms(cpu), _ms(redis)]
            rows.append([*row, str(of.errors(case, server) or "none")])
    own = ["first token + p50", "+ p99"] if letter == "D" else []
    head = ["at once", "", "p50 ms", "p99 ms", "p99 of ideal", *own, "CPU ms", "Redis ms", "errors"]
    told = f"Ideal: {ideal:.2f} s. A service that was far from it at one level was not asked at the next."
    return f"{told}\n\n{table(head, rows)}\n\n![p99 of ideal](performance/{letter.lower()}.svg)"


def _cases(of: Summary, letter: str) -> list[str]:
    found = {row["case"] for row in of.rows if row["case"][0] == letter and row["case"][1:].isdigit()}
    return sorted(found, key=lambda case: int(case[1:]))


def _added(first: float | None) -> str:
    return "–" if first is None else f"{first - STREAM.first:,.0f} ms"


def _found_table(
    of: Summary, case: str, head: Sequence[str], row: Callable[[dict[str, Any]], Sequence[str]]
) -> str:
    found = {name: what for name, what in of.found.get(case, {}).items() if "fault" not in what}
    return table(("", *head), ((title(name), *row(what)) for name, what in found.items()))


def _held(of: Summary) -> str:
    if "M" not in of.found:
        return ""
    rounds = 1 + max((row["round"] for row in of.rows if row["case"].startswith("M")), default=0)
    what = f"p99 of the total within 1.5 of ideal and none fails, in {rounds} of {rounds} rounds"
    told = f"\n\nMost streams held ({what}), of a ladder from 50 to 1,500:\n\n"
    return told + _found_table(of, "M", ("streams",), lambda what: (f"{what.get('held', 0):,}",))


def _memory(of: Summary) -> str:
    head = ("start to first healthy answer, s", "idle MiB", "after 400 calls MiB", "KiB per open stream")
    told = "Memory is the proportional set size of all processes. A start is that of an installed and migrated service."
    return f"{told}\n\n" + _found_table(
        of,
        "E",
        head,
        lambda what: (
            ", ".join(f"{value:.1f}" for value in what["start_s"]),
            *(_ms(what.get(name)) for name in ("idle_mib", "loaded_mib", "open_stream_kib")),
        ),
    )


def _gone(of: Summary) -> str:
    gone = _found_table(
        of,
        "F",
        ("median s", "longest s"),
        lambda what: (
            f"{sorted(what['seconds'])[len(what['seconds']) // 2]:.2f}",
            f"{max(what['seconds']):.2f}",
        ),
    )
    killed = _found_table(
        of,
        "G",
        ("streams cut", "lost", "all answered after s", "how"),
        lambda what: (
            str(what["cut"]),
            str(what["lost"]),
            "–" if what["seconds"] is None else f"{what['seconds']:.1f}",
            "the run goes on elsewhere" if what["resumed"] else "asked again from the start",
        ),
    )
    return (
        "A client closes its connection during a stream with a delta every 250 ms; how long until the upstream's"
        f" connection is closed (Slipway with `on_disconnect: cancel`):\n\n{gone}\n\n"
        "`kill -9` of one of two workers under 24 streams of 4 seconds; how long until every client has all of its"
        f" answer. Slipway waits {10} s for a lost worker's lease to end, then another takes the run up:\n\n{killed}"
    )


def _growth(of: Summary) -> str:
    rows = []
    for case, what in (("HA", "invoke"), ("HB", "hit"), ("HD100", "100 streams")):
        for server in of.servers(case):
            label, count = server.split()
            first = next(name for name in of.servers(case) if name.startswith(label))
            compared = of.ratio(case, "cpu_ms", server, first)
            told = "–" if server == first else str(compared)
            times = [of.median(case, server, name) for name in ("cpu_ms", "p50", "p99")]
            errors = str(of.errors(case, server) or "none")
            rows.append((what, f"{int(count):,} {label}", *map(_ms, times), told, errors))
    return table(("", "with", "CPU ms", "p50 ms", "p99 ms", "CPU of the first", "errors"), rows)


def _instrument(of: Summary) -> str:
    """What the upstream and the load generator can do, and how near to their ends they were."""
    rows = []
    for case in ("0A", "0C", "0D"):
        for row in of.of(case, "upstream"):
            rate = f"{row['good'] / row['seconds']:,.0f}"
            own = f"{row['upstream_share']:.2f}", f"{row['load_share']:.2f}"
            rows.append(
                (case, f"{row['clients']:,}", rate, _ms(row["p99"]), *own, str(row["errors"] or "none"))
            )
    head = ("", "at once", "answers a second", "p99 ms", "upstream, cores", "load generator, cores", "errors")
    busiest = [row for row in of.rows if row["server"] not in ("upstream", "bare")]
    most = [max((row[name] for row in busiest), default=0.0) for name in ("upstream_share", "load_share")]
    told = f"Under a service the upstream used at most {most[0]:.2f} of a core, the load generator {most[1]:.2f}."
    return f"The load generator straight on the upstream:\n\n{table(head, rows)}\n\n{told}"


def _faults(of: Summary) -> str:
    told = [
        f"- {case}, {title(name)}: {what[kind]}"
        for case, servers in of.found.items()
        for name, what in servers.items()
        for kind in ("fault", "stopped")
        if kind in what
    ]
    return "## What could not be measured\n\n" + "\n".join(told) if told else ""


def draw(of: Summary, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    order = ("slipway", "nginx", "bare", "fastapi", "litellm", "agno")
    cpu = {title(name): of.median("A", name, "cpu_ms") or 0.0 for name in order}
    (folder / "cpu.svg").write_text(plots.bars("CPU per invoke, all processes", "ms", cpu))
    for letter, ideal, what in (("C", 2.0, "calls of 2 s"), ("D", ideal_seconds(STREAM, True), "streams")):
        lines = {}
        for name in order:
            points = [(float(case[1:]), of.median(case, name, "p99")) for case in _cases(of, letter)]
            if known := [(x, y / 1000 / ideal) for x, y in points if y]:
                lines[title(name)] = known
        text = plots.lines(f"p99 of ideal, by {what} at once (2 workers)", "×", lines, 4.0)
        (folder / f"{letter.lower()}.svg").write_text(text)


def write(kept: dict[str, Any], docs: Path = DOCS) -> None:
    of = Summary(kept)
    draw(of, docs / "performance")
    (docs / "performance.md").write_text(page(of))


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_text()))
