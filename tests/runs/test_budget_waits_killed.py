"""Runs that meet a cap, with their worker killed after any number of writes: before, while and after they wait.

`CAP_TRIALS` sets the number of trials on each database.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from service.types import Event, Run, RunStatus
from service.usage.ledger import check
from service.wiring import Services
from tests.conftest import RedisServer, wait_until
from tests.jobs.house import Receiver
from tests.llm.wire_server import Exchange, end, start, text_events
from tests.llm.wire_server import stream as streamed
from tests.runs import inside, scripted
from tests.runs.scripted import call
from tests.runs.test_tree_killed import Killed, Worker
from tests.usage.house import TABLE

TRIALS = int(os.environ.get("CAP_TRIALS", "10"))
STEPS = 4  # model calls of a run
WRITES = 14  # of a run without a kill, about
CALL = 600_000  # nano-dollars that are held for a call, about
USER = "user:usr_ada"
SPEC = scripted.REACT.replace("steps: 3", f"steps: {STEPS}")


class Model:
    """Handler that asks for a tool until the last step of a run. `asked` counts the calls by question and step."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, int]] = Counter()

    def __call__(self, exchange: Exchange) -> None:
        body = exchange.json
        question, step = _text(body["messages"][0]), len(body["messages"]) // 2 + 1
        self.asked[question, step] += 1
        if step == STEPS:
            streamed([start(), *text_events("Done."), *end(output_tokens=900)])(exchange)
            return
        use = call("echo", {"text": f"{step}"}, f"toolu_{step}")
        events = [
            {"type": "content_block_start", "index": 1, "content_block": use},
            {"type": "content_block_stop", "index": 1},
        ]
        streamed([start(), *text_events("Now. "), *events, *end("tool_use", 900)])(exchange)


def _text(turn: dict[str, Any]) -> str:
    content = turn["content"]
    return content if isinstance(content, str) else str(content[0]["text"])


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with closing(Receiver()) as somebody:
        yield somebody


@pytest.fixture
def wired(tmp_path: Path, redis_server: RedisServer, model: Model, url: str) -> Iterator[Services]:
    upstream = scripted.Upstream(model)
    options = {"database_url": url, "webhook_allow_private": True}
    with scripted.services(tmp_path, redis_server.url, upstream, SPEC, **options) as services:
        yield services
    upstream.stop()


@pytest.mark.timeout(120 + 5 * TRIALS)
def test_killed_runs_go_on_once_the_cap_is_raised(wired: Services, model: Model, receiver: Receiver) -> None:
    chance = random.Random(os.environ.get("CAP_SEED", "44"))
    waited = 0
    for number in range(TRIALS):
        waited += Trial(wired, model, receiver, chance, f"Trial {number}.").waits()
        model.asked.clear()
        receiver.deliveries.clear()
        if number % 50 == 0 or number == TRIALS - 1:  # it reads the whole ledger
            assert check(wired.infra.db, TABLE).faults == []
    assert waited > TRIALS / 3


class Runner(Worker):
    """Worker whose webhooks another process sends."""

    def transact(self, *args: Any, **options: Any) -> Any:
        if threading.current_thread().name == "webhooks":
            return self._transact(*args, **options)
        return super().transact(*args, **options)


class Trial:
    """One run under a cap that has room for a random part of it, taken up by workers that are killed."""

    def __init__(
        self, wired: Services, model: Model, receiver: Receiver, chance: random.Random, text: str
    ) -> None:
        self.wired, self.model, self.receiver, self.chance = wired, model, receiver, chance
        room = int(chance.uniform(0.2, STEPS + 0.5) * CALL)
        self.cap(wired.usage.budgets.of([USER])[0].spent + room)
        asked = inside.request(text, cache="bypass", on_cap="pause", callback_url=receiver.url)
        self.id = wired.runs.start.queue(inside.ADA, asked, None, "req").run.id

    def waits(self) -> bool:
        """Return whether the run waited; check that it ends whole either way."""
        self.taken_up_by_three()
        run = self.sound()
        waited = run.status is RunStatus.WAITING_BUDGET
        if waited:
            self.told_once(RunStatus.WAITING_BUDGET)
            self.killed(self.wired.runs.waits.look, self.chance.randint(0, 1))
            assert self.sound().status is RunStatus.WAITING_BUDGET, "it was woken without room"
            before = +self.model.asked
            self.cap(10**12)
            self.woken_by_three()
            self.taken_up_by_three()
            kept = [place for place in before if place[1] < max(step for _, step in before)]
            assert all(self.model.asked[place] == before[place] for place in kept), (
                "a kept step was paid again"
            )
        run = self.sound()
        assert run.status is RunStatus.SUCCEEDED, (run.status, run.error)
        self.whole(run, waited)
        self.told_once(RunStatus.SUCCEEDED)
        return waited

    def cap(self, nano: int) -> None:
        self.wired.usage.budgets.put(USER, "day", nano)

    def killed(self, work: Any, writes: int) -> None:
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            Runner(self.wired, patch, writes)
            work()

    def taken_up_by_three(self) -> None:
        for writes in (self.chance.randint(1, WRITES), self.chance.randint(1, WRITES), 10_000):
            self.killed(lambda: self.wired.runs.execution.take_up(self.id), writes)

    def woken_by_three(self) -> None:
        for writes in (0, self.chance.randint(0, 1), 10_000):
            self.killed(self.wired.runs.waits.look, writes)

    def sound(self) -> Run:
        """Return the run; nothing is held for it. The ledger shows at the end whether a cap was ever passed."""
        assert scripted.holds(self.wired) == 0
        return self.wired.runs.queries.get(self.id)

    def whole(self, run: Run, waited: bool) -> None:
        """Check that each event was told once, and that the run paid for its calls."""
        events = self.wired.runs.queries.so_far(run.id)
        numbers = [event.seq for event in events]
        assert numbers == sorted(set(numbers))
        counted = Counter(event.name for event in events)
        assert counted[Event.BUDGET_REQUIRED] == waited and counted[Event.RUN_STARTED] == 1
        assert sum(event.name.is_last for event in events) == 1 and counted[Event.USAGE] == STEPS
        assert run.result is not None and run.result["output"] == "Done."

    def told_once(self, status: RunStatus) -> None:
        """Check that the webhook told this once."""

        def told() -> int:
            return sum(f'"status":"{status}"'.encode() in one.body for one in self.receiver.of(self.id))

        self.wired.webhooks.send_due()
        wait_until(told, f"the delivery of {status}")
        assert told() == 1
