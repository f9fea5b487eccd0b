"""Writes docs/performance.md and its plots from the figures of a run: `python -m benchmarks.report RESULT.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import goals, plots, production_page
from benchmarks.fleet import title
from benchmarks.goals import Goal
from benchmarks.processes import ROOT
from benchmarks.shots import STREAM, TWO_SECONDS, ideal_seconds
from benchmarks.summary import Summary
from benchmarks.tables import added, milliseconds, table
from benchmarks.words import HOW, MISSED, REPEAT

DOCS = ROOT / "docs"


def page(of: Summary) -> str:
    """Return the whole page in Markdown: tables, and a paragraph each on method, missed goals and missing rows."""
    parts = [
        "# Performance\n\nWritten by `make bench`." + _scale(of.kept),
        "## Goals in production's shape\n\n" + _goals(goals.production(of)),
        "## Goals on loopback, with SQLite\n\n" + _goals(goals.loopback(of)),
        HOW,
        MISSED,
        _missing(of),
        "## Run\n\n" + _machine(of.kept),
        "## Production's shape (P)\n\n" + production_page.section(of),
        "## Invoke and cache hit on loopback (A, B)\n\n" + _single(of),
        "## Concurrent calls of 2 s (C)\n\n" + _levels(of, "C", ideal_seconds(TWO_SECONDS, False)),
        "## Streams of 100 deltas, 20 ms apart (D, M)\n\n"
        + _levels(of, "D", ideal_seconds(STREAM, True))
        + _held(of),
        "## Start and memory (E)\n\n" + _memory(of),
        "## Lost clients and workers (F, G)\n\n" + _gone(of),
        "## Growth, in production's shape (H)\n\n" + _growth(of),
        "## Load generator and upstream (0)\n\n" + _instrument(of),
        "## Repeat\n\n" + REPEAT,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _scale(kept: dict[str, Any]) -> str:
    if (scale := kept.get("scale", 1)) == 1:
        return ""
    return f" **At scale {scale:g}: so much of the requests, streams and calls that are named.**"


def _goals(found: Iterable[Goal]) -> str:
    words = {True: "met", False: "**missed**", None: "not measured"}
    head = ("figure", "goal", "measured", "")
    return table(head, ((g.what, g.goal, g.found, words[g.met]) for g in found))


def _machine(kept: dict[str, Any]) -> str:
    machine = kept["machine"]
    rows = [
        ("date, commit", f"{machine['date']}, {machine['commit']}"),
        *((f"part {case} repeated", when) for case, when in kept.get("renewed", {}).items()),
        ("machine", f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB"),
        ("system", f"{machine['system']}, Python {machine['python']}"),
        ("duration", f"{kept['minutes']:.0f} minutes"),
        (
            "load average before each part",
            ", ".join(f"{case} {values[0]:.1f}" for case, values in kept["loads"].items()),
        ),
        *(
            (name, ", ".join(f"{part} {version}" for part, version in parts.items()) or "not installed")
            for name, parts in machine["versions"].items()
        ),
    ]
    return table(("", ""), rows)


SINGLE = ("cpu_ms", "redis_ms", "p50", "p99")


def _single(of: Summary) -> str:
    parts = []
    for case, what in (("A", "Invoke, model without latency"), ("B", "Cache hit")):
        rows = []
        for server in of.servers(case):
            median = [of.median(case, server, name) for name in SINGLE]
            compared = of.ratio(case, "cpu_ms", server, "fastapi")
            told = str(compared) if compared and server != "fastapi" else "–"
            rows.append(
                (title(server), *map(milliseconds, median), told, str(of.errors(case, server) or "none"))
            )
        head = ("", "CPU ms", "Redis ms", "p50 ms", "p99 ms", "CPU ÷ FastAPI", "errors")
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
            own = [added(first50), added(first99)] if letter == "D" else []
            times = f"{p99 / 1000 / ideal:.2f}" if p99 else "–"
            row = [
                f"{int(case[1:]):,}",
                title(server),
                milliseconds(p50),
                milliseconds(p99),
                times,
                *own,
                milliseconds(cpu),
                milliseconds(redis),
            ]
            rows.append([*row, str(of.errors(case, server) or "none")])
    own = ["first token added, p50", "p99"] if letter == "D" else []
    head = ["at once", "", "p50 ms", "p99 ms", "p99 ÷ ideal", *own, "CPU ms", "Redis ms", "errors"]
    return f"Ideal: {ideal:.2f} s.\n\n{table(head, rows)}\n\n![p99 ÷ ideal](performance/{letter.lower()}.svg)"


def _cases(of: Summary, letter: str) -> list[str]:
    found = {row["case"] for row in of.rows if row["case"][0] == letter and row["case"][1:].isdigit()}
    return sorted(found, key=lambda case: int(case[1:]))


def _found_table(
    of: Summary, case: str, head: Sequence[str], row: Callable[[dict[str, Any]], Sequence[str]]
) -> str:
    found = {name: what for name, what in of.found.get(case, {}).items() if "fault" not in what}
    return table(("", *head), ((title(name), *row(what)) for name, what in found.items()))


def _held(of: Summary) -> str:
    if "M" not in of.found:
        return ""
    rounds = 1 + max((row["round"] for row in of.rows if row["case"].startswith("M")), default=0)
    what = f"p99 within 1.5 × ideal and no error, in {rounds} of {rounds} rounds"
    caption = f"\n\nMost streams held ({what}), steps from 50 to 1,500:\n\n"
    return caption + _found_table(of, "M", ("streams",), lambda what: (f"{what.get('held', 0):,}",))


def _memory(of: Summary) -> str:
    head = ("start to first healthy answer, s", "idle MiB", "after 400 calls MiB", "KiB per open stream")
    caption = "Proportional set size of all processes; start of an installed, migrated service:"
    return f"{caption}\n\n" + _found_table(
        of,
        "E",
        head,
        lambda what: (
            ", ".join(f"{value:.1f}" for value in what["start_s"]),
            *(milliseconds(what.get(name)) for name in ("idle_mib", "loaded_mib", "open_stream_kib")),
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
        ("streams cut", "lost", "all answered after s", "recovery"),
        lambda what: (
            str(what["cut"]),
            str(what["lost"]),
            "–" if what["seconds"] is None else f"{what['seconds']:.1f}",
            "another worker resumes the run" if what["resumed"] else "the client starts again",
        ),
    )
    return (
        "Client closes a stream (a delta every 250 ms; Slipway with `on_disconnect: cancel`) → upstream connection"
        f" closed:\n\n{gone}\n\n"
        "`kill -9` of one of two workers under 24 streams of 4 s (`LEASE_SECONDS` 10) → every client has its whole"
        f" answer:\n\n{killed}"
    )


def _growth(of: Summary) -> str:
    rows = []
    for case, what in (("HA", "invoke"), ("HB", "hit"), ("HD100", "100 streams")):
        for server in of.servers(case):
            label, count = server.split()
            first = next(name for name in of.servers(case) if name.startswith(label))
            compared = of.ratio(case, "all_ms", server, first)
            told = "–" if server == first else str(compared)
            times = [of.median(case, server, name) for name in ("cpu_ms", "database_ms", "p50", "p99")]
            errors = str(of.errors(case, server) or "none")
            rows.append((what, f"{int(count):,} {label}", *map(milliseconds, times), told, errors))
    return table(
        ("", "with", "CPU ms", "PostgreSQL ms", "p50 ms", "p99 ms", "all CPU ÷ first row", "errors"), rows
    )


def _instrument(of: Summary) -> str:
    """Capacity of upstream and load generator, and the highest use of each under a service."""
    rows = []
    for case in ("0A", "0C", "0D"):
        for row in of.of(case, "upstream"):
            rate = f"{row['good'] / row['seconds']:,.0f}"
            own = f"{row['upstream_share']:.2f}", f"{row['load_share']:.2f}"
            rows.append(
                (
                    case,
                    f"{row['clients']:,}",
                    rate,
                    milliseconds(row["p99"]),
                    *own,
                    str(row["errors"] or "none"),
                )
            )
    head = ("", "at once", "answers per s", "p99 ms", "upstream, cores", "load generator, cores", "errors")
    busiest = [row for row in of.rows if row["server"] not in ("upstream", "bare")]
    most = [max((row[name] for row in busiest), default=0.0) for name in ("upstream_share", "load_share")]
    rows.append(("under a service, at most", "", "", "", f"{most[0]:.2f}", f"{most[1]:.2f}", ""))
    return f"Load generator straight on the upstream:\n\n{table(head, rows)}"


def _missing(of: Summary) -> str:
    """Name every row that a fault kept from the tables, and the levels that were not tried."""
    faults, stopped = [], []
    for case, servers in of.found.items():
        for name, what in servers.items():
            if "fault" in what:
                faults.append(f"{case}, {title(name)} ({what['fault'].partition(':')[0]})")
        if skipped := [title(name) for name, what in servers.items() if "stopped" in what]:
            stopped.append(f"{case} ({', '.join(skipped)})")
    parts = [f"**Missing rows:** {'; '.join(faults)}."] if faults else []
    if stopped:
        parts.append(f"Higher levels were skipped after a p99 far from the ideal at {', '.join(stopped)}.")
    return " ".join(parts)


def draw(of: Summary, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    order = ("slipway", "bare", "fastapi", "litellm", "agno")
    (folder / "production.svg").write_text(production_page.picture(of))
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
