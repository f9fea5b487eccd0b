"""What a day of questions costs with each saver switched on in turn: `make bench-cost`.

The same requests are replayed through a whole Slipway in this process (its database, Redis and ledger), over the
offline model, at the real tariffs of `service/usage/prices.yaml`. What is spent is read from the ledger, which is
checked first. Nothing is written but to stdout, and into a temporary folder.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from service.types import RunRequest, usd
from service.usage.ledger import check
from service.wiring import Services
from tests.conftest import model_server, redis_in
from tests.runs.inside import ADA, services

AT_ONCE = 8  # requests at the same moment
QUESTIONS = 2_000  # different ones; how often each is asked follows Zipf's law
TURNS, WAITS, BURSTS, HARD = (
    0.2,
    0.15,
    0.03,
    0.1,
)  # shares: of sessions, of what can wait, of moments, of hard ones
TOPICS = (
    "billing",
    "invoices",
    "sync",
    "offline mode",
    "proxies",
    "two-factor",
    "refunds",
    "storage",
    "sharing",
)
ASKS = ("How does {} work for team {}?", "What does {} cost for team {}?", "Can I change {} of team {}?")
DRESS = (str, str, str.upper, "Hi, {}".format, "{}  ".format, "please {}".format, "{}!".format)
AGENT = """description: Answers questions about Harbor.
pattern: single
tier: {default: medium}
max_tokens: 400
limits: {seconds: 120}
cache: {ttl_seconds: 3600, shared: true, near: %s}
"""
PROMPT = (
    "You answer questions about Harbor, the file sync for teams. Be brief, be exact, name the document. " * 80
)


class Ask(NamedTuple):
    """One request: to the agent, in a session (by number) or not, and whether its answer can wait."""

    text: str
    session: int | None = None
    waits: bool = False


@dataclass(frozen=True)
class Savers:
    """What is on."""

    name: str
    prompt_cache: bool = False
    routing: bool = False
    answer_cache: bool = False
    near: bool = False
    single_flight: bool = False
    batch: bool = False


ORDER = ("prompt_cache", "routing", "answer_cache", "near", "single_flight", "batch")


def in_turn() -> Iterator[Savers]:
    """Everything off, then one more on with each."""
    on: dict[str, bool] = {}
    yield Savers("everything off")
    for more in ORDER:
        on[more] = True
        yield Savers(f"+ {more.replace('_', ' ')}", **on)


def moments(requests: int, seed: int = 4) -> list[list[Ask]]:
    """The day: lists of what is asked at the same moment. The same for the same figures."""
    chance = random.Random(seed)
    questions = [_question(chance, number) for number in range(QUESTIONS)]
    weights = [1 / rank for rank in range(1, QUESTIONS + 1)]
    day = []
    for number in range(requests // AT_ONCE):
        if chance.random() < BURSTS:  # something has happened, and everybody asks the same
            day.append([Ask(f"What about incident {number} of today?")] * AT_ONCE)
            continue
        chosen = chance.choices(questions, weights, k=AT_ONCE)
        day.append([_ask(chance, text, place, number) for place, text in enumerate(chosen)])
    return day


def _ask(chance: random.Random, text: str, place: int, moment: int) -> Ask:
    kind = chance.random()
    if kind < TURNS:  # eight turns or so of a conversation, one after the other
        return Ask(text, session=place + AT_ONCE * (moment // 40))
    if kind < TURNS + WAITS:
        ticket = f"{text} Ticket {moment}-{place} of today."  # no two are the same
        return Ask(f"Sum this up for the file. {ticket}", waits=True)
    return Ask(chance.choice(DRESS)(text))


def _question(chance: random.Random, number: int) -> str:
    text = chance.choice(ASKS).format(chance.choice(TOPICS), number)
    if chance.random() < HARD:
        text += (
            " Here is my setup:\n```\n" + "sync: {mode: two-way, every: 5}\n" * 20 + "```\nWhy is it slow?"
        )
    elif chance.random() < 0.4:
        text += (
            " We are forty people in three offices, we moved over last spring and I could not find it." * 3
        )
    return text


def spent(
    savers: Savers, day: Sequence[Sequence[Ask]], redis_url: str, model_url: str, home: Path
) -> tuple[int, int]:
    """Nano-dollars, and upstream calls, of the whole day."""
    agent = AGENT % str(savers.near).lower()
    with ExitStack() as stack:
        if not savers.prompt_cache:
            stack.enter_context(mock.patch("service.runs.steps.marked", lambda request, stable: request))
        if not savers.single_flight:
            stack.enter_context(mock.patch("service.runs.flight.Turn.leader", None))
        batches = {"batch_max_wait_seconds": 0, "batch_max_size": 10_000}
        wired = stack.enter_context(
            services(home, redis_url, model_url, {"probe": agent}, PROMPT, threads=64, **batches)
        )
        wired.speed.client.flushall()
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        _replay(wired, savers, day, pool)
        books = check(wired.db, wired.prices)
        assert books.faults == [] and books.held == 0, books
        return books.spent, books.entries // 2


def _replay(wired: Services, savers: Savers, day: Sequence[Sequence[Ask]], pool: ThreadPoolExecutor) -> None:
    sessions: dict[int, str] = {}
    waiting: list[str] = []
    for done, moment in enumerate(day):
        for ask in moment:
            if ask.session is not None and ask.session not in sessions:
                sessions[ask.session] = _session(wired)
        asked = [_request(ask, savers, sessions) for ask in moment]
        waiting += [_queued(wired, one) for one in asked if one.priority == "batch"]
        for run in pool.map(
            lambda one: wired.runs.invoke(ADA, one, None, "bench").run,
            [one for one in asked if one.priority == "normal"],
        ):
            assert run.error is None, run.error
        _progress(savers.name, done + 1, len(day))
    _finish(wired, waiting)


def _session(wired: Services) -> str:
    row = wired.sessions.new(ADA, "probe", "", None)
    wired.db.transact(lambda tx: wired.sessions.create(tx, row))
    return str(row["id"])


def _request(ask: Ask, savers: Savers, sessions: dict[int, str]) -> RunRequest:
    return RunRequest(
        "probe",
        ({"role": "user", "content": ask.text},),
        session_id=None if ask.session is None else sessions[ask.session],
        tier="auto" if savers.routing else "medium",
        cache="default" if savers.answer_cache else "bypass",
        priority="batch" if ask.waits and savers.batch else "normal",
    )


def _queued(wired: Services, request: RunRequest) -> str:
    run_id = wired.runs.queue(ADA, request, None, "bench").run.id
    wired.runs.take_up(run_id)
    return run_id


def _finish(wired: Services, waiting: list[str]) -> None:
    """Turn the desk until every batch is answered, and let the runs end."""
    left = set(waiting)
    end = time.monotonic() + 300
    while left:
        assert time.monotonic() < end, f"{len(left)} runs were not answered"
        wired.batches.tick()
        for run_id in sorted(left):
            wired.runs.take_up(run_id)
            if wired.runs.get(run_id).status.ended:
                left.discard(run_id)
        time.sleep(1)


def _progress(name: str, done: int, of: int) -> None:
    if sys.stderr.isatty() or done == of:
        print(
            f"\r{name:<18} {done * AT_ONCE:>6} of {of * AT_ONCE}",
            end="\n" if done == of else "",
            file=sys.stderr,
        )


@contextmanager
def parts() -> Iterator[tuple[str, str, Path]]:
    """Redis, the offline model, a folder."""
    with (
        tempfile.TemporaryDirectory(prefix="slw") as folder,
        redis_in(Path(folder) / "r") as redis,
        model_server() as model,
    ):
        yield redis.url, model.url, Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a day of questions costs, with each saver on in turn.")
    parser.add_argument("--requests", type=int, default=10_000)
    day = moments(parser.parse_args().requests)
    first = 0
    print(f"{sum(map(len, day))} requests, real tariffs, offline model\n")
    print("| | spent, USD | of naive | model calls |\n| --- | --- | --- | --- |")
    with parts() as (redis_url, model_url, home):
        for number, savers in enumerate(in_turn()):
            nano, calls = spent(savers, day, redis_url, model_url, home / str(number))
            first = first or nano
            print(f"| {savers.name} | {usd(nano)} | {nano / first:.1%} | {calls} |", flush=True)


if __name__ == "__main__":
    main()
