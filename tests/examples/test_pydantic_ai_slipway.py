"""Pydantic AI example through Slipway: approvals, the ledger, and a killed process that keeps nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import RedisServer
from tests.examples import slipway_house
from tests.examples.slipway_house import Desk

pytestmark = [pytest.mark.examples, pytest.mark.timeout(600)]


@pytest.fixture
def desk(
    python_of: Callable[[str], Path], tmp_path: Path, redis_server: RedisServer, url: str
) -> Iterator[Desk]:
    python = python_of("pydantic_ai")
    with slipway_house.desk("pydantic_ai", python, tmp_path, redis_server, url) as made:
        yield made


def test_person_changes_the_arguments(desk: Desk) -> None:
    run = desk.invoke()
    assert run["status"] == "waiting_approval", run
    desk.decide(run["run_id"], "approve", arguments={"number": "1001", "eur": 20})
    run = desk.ended(run["run_id"])
    assert (run["status"], run["output"]) == ("succeeded", "Done: Refunded 20 EUR for order 1001.")
    assert len(desk.paid(run["run_id"])) == len(desk.api.requests) == 3
    desk.assert_books_balance()


def test_killed_process_begins_again_and_kept_calls_cost_nothing(desk: Desk) -> None:
    with desk.brake.pulled(at=1):
        run_id = desk.begin()
        desk.brake.wait()
        desk.example.child.kill()
        desk.example.child.wait(30)
    desk.restart()
    run = desk.ended(run_id, "waiting_approval", "failed")
    assert run["status"] == "waiting_approval", run
    made = Counter(len(asked.results) for asked in desk.api.requests)
    assert made[0] == 1 and made[1] <= 2  # the first call is kept by the gateway
    assert len(desk.paid(run_id)) == sum(made.values())
    desk.assert_books_balance()
