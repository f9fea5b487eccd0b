"""What is measured on every server: single requests, the cache, many calls and many streams at once."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.fleet import title
from benchmarks.measure import BARE, Ask, Figures
from benchmarks.runner import Run
from benchmarks.shots import AT_ONCE, STREAM, TWO_SECONDS, ideal_seconds

CALLS = (500, 1_000, 2_000)
STREAMS = (200, 500, 1_000)
LADDER = (50, 100, 150, 200, 250, 300, 400, 500, 750, 1_000, 1_250, 1_500)
HELD = 1.5  # streams count as held while p99 of the total is within so many ideals, and none fails
TIMES = 2  # that a rung has to be held: one round alone may have been lucky
GATEWAYS = ("slipway", "litellm")
EACH = 2  # calls or streams of every client


def invoke(run: Run, requests: int = 800, rounds: int = 4) -> None:
    run.begin("A", "invoke, a model that answers at once, 16 clients")
    run.interleave("A", Ask("invoke", AT_ONCE, 16, run.count(requests)), rounds)


def hit(run: Run, requests: int = 1_600, rounds: int = 4) -> None:
    run.begin("B", "cache hit, 16 clients")
    run.interleave("B", Ask("hit", AT_ONCE, 16, run.count(requests)), rounds)


def calls(run: Run, rounds: int = 2) -> None:
    run.begin("C", "calls of 2 seconds, many at once")
    names = run.names
    for level in CALLS:
        clients = run.count(level)
        ask = Ask("invoke", TWO_SECONDS, clients, EACH * clients, spread=2.0, limit=60)
        case = f"C{level}"
        run.interleave(case, ask, rounds, names=names)
        names = _still(run, names, case, ask)


def streams(run: Run, levels: tuple[int, ...] = STREAMS, rounds: int = 2) -> None:
    run.begin("D", "streams of 100 deltas, 20 ms apart, the first after 300 ms")
    names = run.names
    for level in levels:
        ask = stream_ask(run.count(level))
        case = f"D{level}"
        run.interleave(case, ask, rounds, names=names)
        names = _still(run, names, case, ask)


def stream_ask(clients: int) -> Ask:
    return Ask("stream", STREAM, clients, EACH * clients, spread=ideal_seconds(STREAM, True), limit=60)


def relayed(run: Run, level: int = 200, rounds: int = 2) -> None:
    """Streams of a model under a key, beside the peer that is a gateway."""
    run.begin("R", "streams of a model itself, relayed")
    ask = replace(stream_ask(run.count(level)), kind="relay")
    run.interleave(f"R{level}", ask, rounds, names=[name for name in run.names if name in GATEWAYS])


def most_streams(run: Run) -> None:
    """The highest rung of a ladder that a server holds, found by halving."""
    run.begin("M", "most streams held: p99 within 1.5 of ideal and none fails, twice")
    for name in (one for one in run.names if one != BARE):
        low, high = -1, len(LADDER)
        while high - low > 1:
            middle = (low + high) // 2
            holds = _holds(run, name, LADDER[middle])
            if holds is None:
                break
            low, high = (middle, high) if holds else (low, middle)
        else:
            run.note("M", name, "held", LADDER[low] if low >= 0 else 0)
            print(
                f"  {title(name)} holds {LADDER[low] if low >= 0 else f'fewer than {LADDER[0]}'}", flush=True
            )


def _holds(run: Run, name: str, level: int) -> bool | None:
    """Whether so many streams are held every time; None: that cannot be measured."""
    ask = stream_ask(run.count(level))
    for number in range(TIMES):
        found = run.one(f"M{level}", name, number, ask)
        if found is None:
            return None
        if not held(found):
            return False
    return True


def held(found: Figures) -> bool:
    return found.good > 0 and not found.errors and found.p99 <= HELD * ideal_seconds(STREAM, True) * 1000


def _still(run: Run, names: list[str], case: str, ask: Ask) -> list[str]:
    """Who is asked at the next level."""
    out = [name for name in names if run.hopeless(name, case, ask)]
    for name in out:
        run.note(case, name, "stopped", "far from the ideal here, so not asked at higher levels")
    return [name for name in names if name not in out]


def capacity(run: Run) -> None:
    """The load generator straight on the upstream: neither may be what a service is measured against."""
    run.begin("0", "the upstream and the load generator alone")
    server = run.fleet.direct()
    run.measure("0A", server, 0, Ask("invoke", AT_ONCE, 16, run.count(8_000)))
    clients = run.count(1_500)
    run.measure(
        "0C", server, 0, Ask("invoke", TWO_SECONDS, run.count(2_000), 2 * run.count(2_000), spread=2.0)
    )
    run.measure("0D", server, 0, stream_ask(clients))
