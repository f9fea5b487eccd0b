"""Tasks with `priority: batch`: put down, sent together, answered at half the price, whatever dies in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import ModelUnavailable
from service.llm.batch import as_json, of_json
from service.llm.client import ModelCall
from service.runs.batch import submitter
from service.store import batches, holds
from service.store.database import Row, Transaction
from service.store.schema import batches as batch_rows
from service.types import Run
from service.usage.ledger import check
from service.wiring import Services
from tests.conftest import Model, RedisServer, wait_until
from tests.runs.inside import ADA, SINGLE, ask, request, services


@pytest.fixture
def wired(tmp_path: Path, redis_server: RedisServer, model: Model) -> Iterator[Services]:
    model.reset()
    agents = {"probe": SINGLE, "sums": "description: Sums.\npattern: react\ntools: [calculator]\n"}
    with services(tmp_path, redis_server.url, model.url, agents, batch_max_wait_seconds=0) as made:
        yield made


def queue(wired: Services, text: str = "What time is it?", agent: str = "probe") -> Run:
    """A batch task, as a worker leaves it that took it up."""
    asked = request(text, agent=agent, priority="batch", tier="medium")
    run = wired.runs.start.queue(ADA, asked, None, "req").run
    assert wired.runs.execution.take_up(run.id)
    return wired.runs.queries.get(run.id)


def item(wired: Services, run: Run, step: int = 1) -> Row | None:
    return wired.infra.db.query(lambda tx: batches.get(tx, run.id, step))


def until_answered(wired: Services, run: Run, step: int = 1) -> str:
    """Turn the desk until the step is answered; how."""

    def answered() -> str | None:
        look_now(wired)
        row = item(wired, run, step)
        return row["state"] if row is not None and row["state"] in ("done", "failed") else None

    state: str = wait_until(answered, "the answer")
    return state


def look_now(wired: Services) -> None:
    """A turn of the desk in which every batch is due."""
    wired.infra.db.transact(lambda tx: tx.execute(sa.update(batch_rows).values(next_at=0)))
    wired.runs.batches.tick()


def finish(wired: Services, run: Run) -> Run:
    assert wired.runs.execution.take_up(run.id)
    return wired.runs.queries.get(run.id)


def is_sound(wired: Services) -> None:
    assert check(wired.infra.db, wired.usage.prices).faults == []
    assert wired.infra.db.query(holds.every) == []


def test_a_batch_costs_half(wired: Services, model: Model) -> None:
    plain = ask(wired, tier="medium")
    run = queue(wired)
    assert (run.status, run.cost_nano) == ("queued", 0)
    assert until_answered(wired, run) == "done"
    ended = finish(wired, run)
    assert (ended.status, ended.usage) == ("succeeded", plain.usage), ended.error
    assert ended.result is not None and ended.result["output"] == (plain.result or {})["output"]
    # By hand: 2 dollars a million in and 10 out, and half of it.
    usage = ended.usage
    assert plain.cost_nano == usage.input_tokens * 2_000 + usage.output_tokens * 10_000
    assert ended.cost_nano == usage.input_tokens * 1_000 + usage.output_tokens * 5_000
    assert (model.stats()["calls"], model.stats()["batch_calls"]) == (1, 1)
    is_sound(wired)


def test_an_answer_that_cannot_be_taken_ends_its_run_and_is_paid_at_worst(
    wired: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.llm.claude.MAX_TEXT", 3)
    run = queue(wired)
    [hold] = wired.infra.db.query(holds.every)
    assert until_answered(wired, run) == "done"
    ended = finish(wired, run)
    assert (ended.status, (ended.error or {})["code"]) == ("failed", "model_error")
    assert (ended.cost_nano, (ended.result or {})["usage"]["usage_source"]) == (hold.amount_nano, "worst")
    is_sound(wired)


def test_steps_that_wait_go_out_together_and_answers_find_their_runs(wired: Services, model: Model) -> None:
    before = _batches_of(wired)  # other tests use the provider too
    runs = [queue(wired, f"What is my number? It is {number}.") for number in range(5)]
    for run in runs:
        until_answered(wired, run)
    for number, run in enumerate(runs):
        assert str(number) in (finish(wired, run).result or {})["output"]
    assert len(_batches_of(wired) - before) == 1 and model.stats()["calls"] == 0
    is_sound(wired)


def test_every_step_of_a_run_may_wait(wired: Services, model: Model) -> None:
    run = queue(wired, "What is 17% of 2,340?", "sums")
    until_answered(wired, run, 1)
    assert finish(wired, run).status == "queued"  # the tool was called, and the next step waits
    until_answered(wired, run, 3)
    ended = finish(wired, run)
    assert ended.status == "succeeded" and "397.8" in (ended.result or {})["output"]
    assert (model.stats()["calls"], model.stats()["batch_calls"]) == (0, 2)
    is_sound(wired)


def test_a_few_wait_for_others_until_their_time_is_over(
    tmp_path: Path, redis_server: RedisServer, model: Model
) -> None:
    with services(
        tmp_path, redis_server.url, model.url, batch_max_wait_seconds=3600, batch_max_size=2
    ) as wired:
        first = queue(wired)
        wired.runs.batches.tick()
        assert (item(wired, first) or {})["state"] == "waiting"
        queue(wired)
        wired.runs.batches.tick()
        assert (item(wired, first) or {})["state"] == "sent"


def test_item_failed_in_a_batch_is_called_singly(wired: Services, model: Model) -> None:
    run = queue(wired, "Hello [offline fault=500 times=1]")
    assert until_answered(wired, run) == "failed"
    ended = finish(wired, run)
    assert ended.status == "succeeded", ended.error
    usage = ended.usage
    assert ended.cost_nano == usage.input_tokens * 2_000 + usage.output_tokens * 10_000  # at the normal price
    assert item(wired, run) is None
    is_sound(wired)


def test_a_batch_whose_sender_died_after_sending_is_found_and_not_sent_twice(
    wired: Services, model: Model
) -> None:
    run = queue(wired)
    rows = wired.infra.db.transact(lambda tx: batches.collect(tx, "bat_lost", 10, 0))
    requests = {row["id"]: of_json(row["request"]) for row in rows}
    wired.runs.batches._client.submit(requests, ModelCall(time.monotonic() + 10))  # killed here
    assert until_answered(wired, run) == "done"
    assert finish(wired, run).status == "succeeded"
    assert model.stats()["batch_calls"] == 1
    is_sound(wired)


def test_a_batch_whose_sender_died_before_sending_is_sent(wired: Services, model: Model) -> None:
    run = queue(wired)
    wired.infra.db.transact(lambda tx: batches.collect(tx, "bat_lost", 10, 0))  # killed here
    assert until_answered(wired, run) == "done"
    assert finish(wired, run).status == "succeeded"
    assert model.stats()["batch_calls"] == 1


def test_run_claimed_before_its_batch_is_answered_is_parked_again(wired: Services) -> None:
    run = queue(wired)
    assert finish(wired, run).status == "queued"
    assert wired.infra.db.query(holds.every)[0].price_id.endswith("/batch")
    assert len(wired.infra.db.query(holds.every)) == 1  # held once


def test_hold_of_a_step_in_a_batch_is_not_swept(wired: Services) -> None:
    run = queue(wired)
    assert wired.infra.db.query(lambda tx: holds.orphaned(tx, 2**60, 10)) == []
    assert wired.infra.db.query(lambda tx: holds.of_run(tx, run.id)) == []


def test_cancelled_batch_run_costs_nothing_unless_sent(wired: Services, model: Model) -> None:
    early = queue(wired)
    wired.runs.cancellation.cancel(early)
    wired.runs.batches.tick()
    assert item(wired, early) is None and model.stats()["batch_calls"] == 0
    late = queue(wired)
    wired.runs.batches.tick()
    wired.runs.cancellation.cancel(late)
    wait_until(lambda: _gone(wired, late), "the end of it")
    books = check(wired.infra.db, wired.usage.prices)
    assert books.faults == [] and books.spent > 0 and books.held == 0


def stop(wired: Services, agent: str) -> None:
    wired.infra.db.transact(lambda tx: wired.runs.stops.stop(tx, agent, "It promises refunds."))


def test_step_of_a_stopped_agent_is_not_sent_and_goes_on_after_its_release(
    wired: Services, model: Model
) -> None:
    run, other = queue(wired), queue(wired, agent="sums")
    stop(wired, "probe")
    assert until_answered(wired, other) == "done"
    assert (item(wired, run) or {})["state"] == "waiting" and model.stats()["batch_calls"] == 1
    wired.runs.stops.release("probe")
    assert until_answered(wired, run) == "done"
    assert {finish(wired, one).status for one in (run, other)} == {"succeeded"}
    is_sound(wired)


def test_step_whose_agent_was_stopped_while_its_batch_hung_is_not_sent(
    wired: Services, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, collect = queue(wired), batches.collect

    def then_stop(tx: Transaction, *args: Any) -> Any:
        tx.after_commit(lambda: stop(wired, "probe"))
        return collect(tx, *args)

    monkeypatch.setattr(batches, "collect", then_stop)
    monkeypatch.setattr(submitter, "LATE", -1.0)
    wired.runs.batches.tick()
    assert (item(wired, run) or {})["state"] == "waiting" and model.stats()["batch_calls"] == 0


def _gone(wired: Services, run: Run) -> bool:
    look_now(wired)
    return item(wired, run) is None


def test_a_provider_that_is_away_delays_and_loses_nothing(tmp_path: Path, redis_server: RedisServer) -> None:
    with services(tmp_path, redis_server.url, "http://127.0.0.1:9", batch_max_wait_seconds=0) as wired:
        run = queue(wired)
        with pytest.raises(ModelUnavailable):
            wired.runs.batches.tick()
        assert (item(wired, run) or {})["state"] == "waiting"


def _batches_of(wired: Services) -> set[str]:
    """Return the ids of all batches of five at the provider."""
    client = wired.runs.batches._client
    return {state.id for state in client.batches_since(0, ModelCall(time.monotonic() + 5)) if state.size == 5}


def test_a_row_keeps_a_request_whole(wired: Services) -> None:
    run = queue(wired)
    kept = of_json((item(wired, run) or {})["request"])
    assert kept.model == "claude-sonnet-5-5" and kept.messages[0]["content"] == "What time is it?"
    assert of_json(as_json(kept)) == kept


def test_a_batch_put_together_twice_has_the_same_steps(wired: Services) -> None:
    """A commit whose answer was lost: the second try must not take what came to wait meanwhile."""
    first = queue(wired)
    [taken] = wired.infra.db.transact(lambda tx: batches.collect(tx, "bat_1", 10, 0))
    queue(wired)
    [again] = wired.infra.db.transact(lambda tx: batches.collect(tx, "bat_1", 10, 0))
    assert taken["id"] == again["id"] == batches.item_id(first.id, 1)


def test_a_step_that_may_not_be_held_for_is_not_put_down(wired: Services) -> None:
    """Else a batch would take it along, and nobody would have paid."""
    wired.usage.budgets.put(f"user:{ADA.user_id}", "day", 1)
    run = queue(wired)
    assert run.error is not None and run.error["code"] == "budget_exceeded"
    assert item(wired, run) is None
    is_sound(wired)
