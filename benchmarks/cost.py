"""What a day of questions costs with each saver switched on in turn: `make bench-cost`.

The same requests are replayed through a whole Slipway in this process (its database, Redis and ledger) with the bundled
agents, their prompts, tools and documents, over the offline model, at the real tariffs of `service/usage/prices.yaml`.
What is spent is read from the ledger, which is checked first. The day's hours pass in minutes: after each moment the
clocks of the provider's prompt cache and of the answer cache are put forward by its share of them, so that both forget
as they would. Nothing is written but to stdout, and into a temporary folder.
"""

from __future__ import annotations

import argparse
import shutil
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

import httpx2

from benchmarks.day import AGENTS, AT_ONCE, HOURS, PEOPLE, Ask, Day
from service.store import usage, users
from service.store.database import Row
from service.store.usage import UsageQuery
from service.types import Caller, RunRequest, now_ms, usd
from service.usage.ledger import check
from service.wiring import Services
from tests.conftest import model_server, redis_in
from tests.runs.inside import services

PERSONS = [Caller(f"usr_{number}", f"person{number}", "user") for number in range(PEOPLE)]


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


class Clock:
    """The present moment, put forward: what the answer cache goes by, and the offline model's prompt cache."""

    def __init__(self, model_url: str) -> None:
        self._model_url = model_url
        self._ahead = 0.0

    def __call__(self) -> int:
        return now_ms() + int(self._ahead * 1000)

    def forward(self, seconds: float) -> None:
        self._ahead += seconds
        httpx2.post(f"{self._model_url}/clock", json={"forward": seconds}, timeout=10).raise_for_status()


class Spent(NamedTuple):
    """What a day came to: nano-dollars, requests that cost nothing, and the ledger's sums by agent and model."""

    nano: int
    free: int
    lines: list[Row]

    @property
    def calls(self) -> int:
        return sum(line["calls"] for line in self.lines)


def spent(savers: Savers, day: Sequence[Sequence[Ask]], redis_url: str, model_url: str, home: Path) -> Spent:
    """The whole day with these savers."""
    _agents(home / "agents", near=savers.near)
    clock = Clock(model_url)
    with ExitStack() as stack:
        stack.enter_context(mock.patch("service.cache.answers.now_ms", clock))
        if not savers.prompt_cache:
            stack.enter_context(mock.patch("service.runs.steps.marked", lambda request, stable: request))
        if not savers.single_flight:
            stack.enter_context(mock.patch("service.cache.single_flight.Turn.leader", None))
        limits = {"batch_max_wait_seconds": 0, "batch_max_size": 10_000, "budget_user_day_usd": ""}
        wired = stack.enter_context(services(home, redis_url, model_url, threads=64, **limits))
        wired.infra.redis_store.client.flushall()
        for person in PERSONS:
            row = {"id": person.user_id, "username": person.username, "role": person.role}
            wired.infra.db.transact(
                lambda tx, row=row: users.insert(tx, {**row, "password_hash": "", "created_at": now_ms()})
            )
        clock.forward(86_400)  # what the last row has left in the prompt cache is gone
        free = _replay(wired, savers, day, clock)
        books = check(wired.infra.db, wired.usage.prices)
        assert books.faults == [] and books.held == 0, books
        by = ("agent", "model")
        lines = wired.infra.db.query(lambda tx: usage.lines(tx, UsageQuery(since=0, until=2**62, by=by)))
        return Spent(books.spent, free, lines)


def _agents(folder: Path, *, near: bool) -> None:
    """The bundled ones as they are; without near answers where those are off."""
    shutil.copytree(AGENTS, folder)
    for spec in folder.glob("*/agent.yaml"):
        if not near:
            spec.write_text(spec.read_text().replace("ttl_seconds: 3600", "ttl_seconds: 3600\n  near: no"))


def _replay(wired: Services, savers: Savers, day: Sequence[Sequence[Ask]], clock: Clock) -> int:
    """Ask everything; how many requests cost nothing."""
    sessions: dict[int, str] = {}
    waiting: list[str] = []
    free = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done, moment in enumerate(day):
            for ask in moment:
                if ask.session is not None and ask.session not in sessions:
                    sessions[ask.session] = _session(wired, ask)
            for run_id, cost in pool.map(lambda ask: _asked(wired, savers, sessions, ask), moment):
                waiting += [run_id] if cost is None else []
                free += cost == 0
            clock.forward(HOURS * 3600 / len(day))
            _progress(savers.name, done + 1, len(day))
        _finish(wired, waiting)
    return free


def _session(wired: Services, ask: Ask) -> str:
    row = wired.sessions.new(PERSONS[ask.person], ask.agent, "", None)
    wired.infra.db.transact(lambda tx: wired.sessions.create(tx, row))
    return str(row["id"])


def _asked(wired: Services, savers: Savers, sessions: dict[int, str], ask: Ask) -> tuple[str, int | None]:
    """The run, and what it cost in nano-dollars; None: it waits for a batch."""
    request = RunRequest(
        ask.agent,
        ({"role": "user", "content": ask.text},),
        session_id=None if ask.session is None else sessions[ask.session],
        tier=ask.tier if savers.routing or ask.tier != "auto" else "medium",
        cache="default" if savers.answer_cache else "bypass",
        priority="batch" if ask.waits and savers.batch else "normal",
    )
    if request.priority == "batch":
        run_id = wired.runs.start.queue(PERSONS[ask.person], request, None, "bench").run.id
        wired.runs.execution.take_up(run_id)
        return run_id, None
    run = wired.runs.start.invoke(PERSONS[ask.person], request, None, "bench").run
    assert run.error is None, run.error
    return run.id, run.cost_nano


def _finish(wired: Services, waiting: list[str]) -> None:
    """Turn the desk until every batch is answered, and let the runs end."""
    left = set(waiting)
    end = time.monotonic() + 300
    while left:
        assert time.monotonic() < end, f"{len(left)} runs were not answered"
        wired.runs.batches.tick()
        for run_id in sorted(left):
            wired.runs.execution.take_up(run_id)
            if wired.runs.queries.get(run_id).status.ended:
                left.discard(run_id)
        time.sleep(1)


def _progress(name: str, done: int, of: int) -> None:
    """On a terminal at every moment, else at every tenth of the day."""
    line = f"{name:<18} {done * AT_ONCE:>6} of {of * AT_ONCE}"
    if sys.stderr.isatty():
        print(f"\r{line}", end="\n" if done == of else "", file=sys.stderr, flush=True)
    elif done % -(-of // 10) == 0 or done == of:
        print(line, file=sys.stderr, flush=True)


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
    day = list(Day(parser.parse_args().requests).moments())
    asks = [ask for moment in day for ask in moment]
    turns = sum(ask.session is not None for ask in asks)
    words = sorted(len(ask.text.split()) for ask in asks)
    print(
        f"{len(asks)} requests in {HOURS} hours, {len({ask.text for ask in asks})} different texts of "
        f"{words[len(words) // 2]} words in the middle and {sum(words) / len(words):.0f} on average, "
        f"{turns / len(asks):.0%} turns of conversations, {sum(ask.waits for ask in asks) / len(asks):.0%} can wait\n"
    )
    print("| | spent, USD | of naive | model calls | answered free |\n| --- | --- | --- | --- | --- |")
    first = 0
    with parts() as (redis_url, model_url, home):
        for number, savers in enumerate(in_turn()):
            day_spent = spent(savers, day, redis_url, model_url, home / str(number))
            first = first or day_spent.nano
            share = f"{day_spent.nano / first:.1%} | {day_spent.calls} | {day_spent.free / len(asks):.1%}"
            print(f"| {savers.name} | {usd(day_spent.nano)} | {share} |", flush=True)
    print(
        "\nWhat the last row is spent on:\n\n| agent | model | calls | USD | of it |\n| --- | --- | --- | --- | --- |"
    )
    for line in day_spent.lines:
        share = f"{line['amount_nano'] / day_spent.nano:.1%}"
        print(
            f"| {line['agent']} | {line['model']} | {line['calls']} | {usd(line['amount_nano'])} | {share} |"
        )


if __name__ == "__main__":
    main()
