"""Goals of the project, met or missed: of production's shape, and of loopback with SQLite."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from benchmarks.shots import STREAM, TWO_SECONDS, ideal_seconds
from benchmarks.summary import Ratio, Summary, ratio


@dataclass(frozen=True)
class Goal:
    """A goal, what was found, and whether that meets it (None: it was not measured)."""

    what: str
    goal: str
    found: str
    met: bool | None


def production(of: Summary) -> list[Goal]:
    """Goals at 1 ms through nginx, in the order of the page."""
    hit, calls, invoke, clients = "PB64@1", "PC1000@1", "invoke, one user", (16, 64)
    return [
        _least(of, "cache hit, requests a second, of FastAPI", 0.9, hit, "fastapi"),
        _at_most(of, "cache hit, CPU, of FastAPI", 1.3, hit, "fastapi"),
        *(
            _least(of, f"{invoke}, {n} clients: rate, of FastAPI with rows", 0.7, f"PA{n}@1", "fastapi-rows")
            for n in clients
        ),
        *(
            _at_most(of, f"{invoke}, {n} clients: CPU, of FastAPI with rows", 1.8, f"PA{n}@1", "fastapi-rows")
            for n in clients
        ),
        _distance(of),
        _one_of_eight(of),
        _at_most(of, "200 streams, CPU, of FastAPI", 0.5, "PD200@1", "fastapi"),
        _first_token(of),
        _ideal(of, "500 streams, p99 of ideal", 1.15, "PD500@1", ideal_seconds(STREAM, True)),
        _ideal(of, "1,000 calls of 2 s, p99 of ideal", 1.15, calls, ideal_seconds(TWO_SECONDS, False)),
        _at_most(of, "invoke, CPU, of LiteLLM", 0.30, "PG16@1", "litellm"),
        _at_most(of, "invoke, CPU, of Agno on PostgreSQL", 0.6, "PG16@1", "agno"),
        *_growth(of),
        *_trips(of),
        _number(
            "idle memory of the whole of `make run`",
            300,
            of.single("PM", "slipway", "idle_mib"),
            "MiB",
            ".0f",
        ),
    ]


def loopback(of: Summary) -> list[Goal]:
    ours, theirs = of.single("E", "slipway", "idle_mib"), of.single("E", "litellm", "idle_mib")
    return [
        _at_most(of, "invoke, CPU per request, of FastAPI", 1.4, "A", "fastapi"),
        _at_most(of, "invoke, CPU per request, of LiteLLM", 0.25, "A", "litellm"),
        _at_most(of, "cache hit, CPU per request, of FastAPI", 1.5, "B", "fastapi"),
        _at_most(of, "cache hit, CPU per request, of LiteLLM", 0.09, "B", "litellm"),
        _at_most(of, "200 streams, CPU per stream, of FastAPI", 0.45, "D200", "fastapi"),
        _at_most(of, "200 streams, CPU per stream, of LiteLLM", 0.25, "D200", "litellm"),
        _at_most(of, "200 relayed streams of a model, CPU per stream, of LiteLLM", 0.2, "R200", "litellm"),
        *_most(of),
        _number("idle memory, of LiteLLM", 0.2, ours / theirs if ours and theirs else None),
        _number("memory per open stream", 120, of.single("E", "slipway", "open_stream_kib"), "KiB", ".0f"),
        _start(of),
        _gone(of),
    ]


def _judged(what: str, found: Ratio | None, goal: float, at_least: bool) -> Goal:
    words = f"at {'least' if at_least else 'most'} {goal}"
    if found is None:
        return Goal(what, words, "–", None)
    return Goal(what, words, str(found), found.median >= goal if at_least else found.median <= goal)


def _at_most(of: Summary, what: str, most: float, case: str, other: str) -> Goal:
    return _judged(what, of.ratio(case, "cpu_ms", "slipway", other), most, False)


def _least(of: Summary, what: str, least: float, case: str, other: str) -> Goal:
    return _judged(what, of.ratio(case, "rate", "slipway", other), least, True)


def _number(what: str, most: float, value: float | None, unit: str = "", form: str = ".2f") -> Goal:
    goal = f"at most {most:g} {unit}".strip()
    if value is None:
        return Goal(what, goal, "–", None)
    return Goal(what, goal, f"{value:{form}} {unit}".strip(), value <= most)


def _distance(of: Summary) -> Goal:
    """What one client's invoke takes longer because Redis and PostgreSQL are 1 ms away."""
    near, far = (of.median(f"PA1@{delay}", "slipway", "p50") for delay in (0, 1))
    more = far - near if near is not None and far is not None else None
    return _number("invoke, one client: p50 at 1 ms, less that at 0 ms", 6, more, "ms", ".1f")


def _one_of_eight(of: Summary) -> Goal:
    rates = [of.values(case, "slipway", "rate") for case in ("PF64@1", "PE64@1")]
    return _judged("invoke, 64 clients: rate of one user, of eight users", ratio(*rates), 0.8, True)


def _first_token(of: Summary) -> Goal:
    """Over the model's own: the upstream sends the first token after so many milliseconds."""
    value = of.median("PD200@1", "slipway", "first_p50")
    added = value - STREAM.first if value is not None else None
    return _number("200 streams, added to the first token, p50", 10, added, "ms", ".1f")


def _ideal(of: Summary, what: str, most: float, case: str, ideal: float) -> Goal:
    p99, errors = of.median(case, "slipway", "p99"), of.errors(case, "slipway")
    goal = f"at most {most}, no error"
    if p99 is None:
        return Goal(what, goal, f"{errors} errors" if errors else "–", False if errors else None)
    times = p99 / 1000 / ideal
    told = f"{times:.2f}, {errors or 'no'} error{'s' if errors > 1 else ''}"
    return Goal(what, goal, told, times <= most and not errors)


def _trips(of: Summary) -> list[Goal]:
    def way(kind: str, *parts: str) -> float | None:
        found = of.single("PT", "slipway", kind)
        return sum(found["way"][part] for part in parts) if found else None

    idle = of.single("PT", "slipway", "idle")
    return [
        _number("trips of an invoke to PostgreSQL", 4, way("invoke", "postgres"), form=".0f"),
        _number("trips of an invoke to Redis", 2, way("invoke", "redis"), form=".0f"),
        _number("trips of a cache hit", 1, way("hit", "redis", "postgres"), form=".0f"),
        _number("trips before a stream's first text", 4, way("stream", "redis", "postgres"), form=".0f"),
        _number("trips of an idle process, a second", 2, sum(idle.values()) if idle else None, form=".1f"),
    ]


def _growth(of: Summary) -> list[Goal]:
    """CPU of service, Redis and PostgreSQL together."""
    return [
        _growth_of(of, case, what) for case, what in (("HA", "invoke"), ("HB", "hit"), ("HD100", "stream"))
    ]


def _growth_of(of: Summary, case: str, what: str) -> Goal:
    servers = [name for name in of.servers(case) if name.startswith("runs ")]
    found = of.ratio(case, "all_ms", servers[1], servers[0]) if len(servers) == 2 else None
    few, many = (f"{int(name.split()[1]):,}" for name in servers) if len(servers) == 2 else ("few", "many")
    return _judged(f"{what}, CPU at {many} kept runs of that at {few}", found, 1.1, False)


def _most(of: Summary) -> list[Goal]:
    ours, theirs = of.single("M", "slipway", "held"), of.single("M", "fastapi", "held")
    told = "–" if ours is None else f"{ours:,}"
    alone = Goal("most streams held", "at least 1,000", told, None if ours is None else ours >= 1000)
    if ours is None or theirs is None:
        return [alone, Goal("most streams held, of FastAPI", "at least 3 times", "–", None)]
    times = ours / theirs if theirs else float("inf")
    return [
        alone,
        Goal("most streams held, of FastAPI", "at least 3 times", f"{times:.1f} times", times >= 3),
    ]


def _start(of: Summary) -> Goal:
    ours, theirs = of.single("E", "slipway", "start_s"), of.single("E", "litellm", "start_s")
    share = statistics.median(ours) / statistics.median(theirs) if ours and theirs else None
    return _number("start, of LiteLLM", 0.2, share)


def _gone(of: Summary) -> Goal:
    """The next delta comes within 250 ms."""
    waits = of.single("F", "slipway", "seconds")
    met = None if not waits else max(waits) <= 1.25
    told = f"{max(waits):.2f} s at most, a delta every 0.25 s" if waits else "–"
    return Goal("client gone, to model call stopped", "within 1 s of the next delta", told, met)
