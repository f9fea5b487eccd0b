"""Tables and picture of production's shape, for docs/performance.md."""

from __future__ import annotations

from benchmarks import plots
from benchmarks.fleet import title
from benchmarks.production_cases import INVOKES
from benchmarks.shots import STREAM, TWO_SECONDS, ideal_seconds
from benchmarks.summary import Summary
from benchmarks.tables import added, milliseconds, table

LEVELS = (
    ("PB64", "hit, 64 clients"),
    *((f"PA{n}", f"invoke, {n} client{'s' if n > 1 else ''} of one user") for n in INVOKES),
    *((f"PE{n}", f"invoke, {n} client{'s' if n > 1 else ''} of eight users") for n in INVOKES),
    ("PG16", "invoke, 16 clients of one user"),
)
LONG = (
    ("PD200", "200 streams", ideal_seconds(STREAM, True)),
    ("PD500", "500 streams", ideal_seconds(STREAM, True)),
    ("PC1000", "1,000 calls of 2 s", ideal_seconds(TWO_SECONDS, False)),
)


def section(of: Summary) -> str:
    parts = [
        f"**Hits and invokes**, Redis and PostgreSQL 1 ms away and, for the columns “at 0 ms”, not:\n\n{_rates(of)}",
        "![invokes a second](performance/production.svg)",
        f"**Streams and calls**, at 1 ms:\n\n{_long(of)}",
        _trips(of),
        _memory(of),
        _proxy(of),
    ]
    return "\n\n".join(part for part in parts if part)


def _rates(of: Summary) -> str:
    rows = []
    for case, what in LEVELS:
        for server in of.servers(f"{case}@1"):
            rates = [of.median(f"{case}@{delay}", server, "rate") for delay in (1, 0)]
            times = [of.median(f"{case}@{delay}", server, "p50") for delay in (1, 0)]
            cpu = [of.median(f"{case}@1", server, name) for name in ("cpu_ms", "redis_ms", "database_ms")]
            errors = sum(of.errors(f"{case}@{delay}", server) for delay in (1, 0))
            told = ["–" if rate is None else f"{rate:,.0f}" for rate in rates]
            told += [_of_slipway(of, f"{case}@1", server, "rate")]
            row = [what, title(server), *told, *map(milliseconds, [*times, *cpu])]
            rows.append([*row, _of_slipway(of, f"{case}@1", server, "cpu_ms"), str(errors or "none")])
    head = ["", "", "a second", "at 0 ms", "Slipway ÷ it", "p50 ms", "at 0 ms", "CPU ms", "Redis ms"]
    return table([*head, "PostgreSQL ms", "CPU of Slipway ÷ it", "errors"], rows)


def _of_slipway(of: Summary, case: str, server: str, name: str) -> str:
    """Slipway's figure as a share of this server's, in neighbouring rounds."""
    return "" if server == "slipway" else str(of.ratio(case, name, "slipway", server) or "–")


def _long(of: Summary) -> str:
    rows = []
    for case, what, ideal in LONG:
        for server in of.servers(f"{case}@1"):
            p50, p99, first50, first99, cpu = (
                of.median(f"{case}@1", server, name)
                for name in ("p50", "p99", "first_p50", "first_p99", "cpu_ms")
            )
            firsts = [added(first50), added(first99)] if case.startswith("PD") else ["–", "–"]
            times = "–" if p99 is None else f"{p99 / 1000 / ideal:.2f}"
            own = [milliseconds(cpu), _of_slipway(of, f"{case}@1", server, "cpu_ms")]
            errors = str(of.errors(f"{case}@1", server) or "none")
            rows.append([what, title(server), milliseconds(p50), times, *firsts, *own, errors])
    head = [
        "",
        "",
        "p50 ms",
        "p99 ÷ ideal",
        "first token added, p50",
        "p99",
        "CPU ms",
        "CPU of Slipway ÷ it",
    ]
    return table([*head, "errors"], rows)


def _trips(of: Summary) -> str:
    found = of.found.get("PT", {}).get("slipway")
    if not found or "idle" not in found:
        return ""
    names = {"hit": "hit", "invoke": "invoke", "stream": "stream: first text, and all of it"}
    rows = []
    for kind, what in names.items():
        way, whole = found[kind]["way"], found[kind]["all"]
        numbers = [
            f"{trips[part]:{form}}" for trips, form in ((way, ".0f"), (whole, ".1f")) for part in trips
        ]
        rows.append([what, *numbers])
    rows.append(["idle process, a second", "", "", *(f"{value:.1f}" for value in found["idle"].values())])
    head = (
        "",
        "Redis, until the answer",
        "PostgreSQL, until the answer",
        "Redis, in all",
        "PostgreSQL, in all",
    )
    return f"**Trips** of Slipway on the wire, one process, one request at a time:\n\n{table(head, rows)}"


def _memory(of: Summary) -> str:
    found = of.single("PM", "slipway", "by_program")
    if not found:
        return ""
    rows = [(name, f"{mib:.0f}") for name, mib in found.items()]
    total = of.single("PM", "slipway", "idle_mib")
    return "**Idle memory of `make run`**, MiB (proportional set size):\n\n" + table(
        ("", "MiB"), [*rows, ("in all", f"{total:.0f}")]
    )


def _proxy(of: Summary) -> str:
    """Compare the most trips a second under a service with what the proxy carries alone."""
    busiest = max((sum(row.get("trips", {}).values()) / row["seconds"] for row in of.rows), default=0.0)
    alone, cores = of.single("PP", "proxy", "trips"), of.single("PP", "proxy", "cores")
    if not alone or not cores or not busiest:
        return ""
    return (
        f"The proxy alone carries {alone:,.0f} trips a second ({alone / cores:,.0f} a second of its CPU time); under a"
        f" service at most {busiest:,.0f} were made."
    )


def picture(of: Summary) -> str:
    servers = of.servers("PA64@1")
    rates = {title(server): of.median("PA64@1", server, "rate") or 0.0 for server in servers}
    rates |= {"Slipway, eight users": of.median("PE64@1", "slipway", "rate") or 0.0}
    return plots.bars("Invokes a second, 64 clients of one user, at 1 ms", "a second", rates)
