"""LangGraph example through Slipway: as its users see it, under a cap, and with both processes killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.types import usd
from tests.conftest import RedisServer, wait_until
from tests.examples import slipway_house
from tests.examples.slipway_house import Desk

pytestmark = [pytest.mark.examples, pytest.mark.timeout(600)]
DONE = "Done: Refunded 39 EUR for order 1001."


@pytest.fixture
def desk(
    python_of: Callable[[str], Path], tmp_path: Path, redis_server: RedisServer, url: str
) -> Iterator[Desk]:
    python = python_of("langgraph")
    with slipway_house.desk("langgraph", python, tmp_path, redis_server, url) as made:
        yield made


def waiting(desk: Desk, **body: str) -> str:
    """Ask for a refund; return the run's id once it waits for a person."""
    run = desk.invoke(**body)
    assert run["status"] == "waiting_approval", run
    return str(run["run_id"])


def test_person_decides_and_every_call_is_in_the_ledger(desk: Desk) -> None:
    for decision, body, output in [
        ("approve", {}, DONE),
        ("approve", {"arguments": {"number": "1001", "eur": 20}}, "Done: Refunded 20 EUR for order 1001."),
        ("deny", {}, "Done: A person denied this call."),
    ]:
        before = len(desk.api.requests)
        run_id = waiting(desk)
        desk.decide(run_id, decision, **body)
        run = desk.ended(run_id)
        assert (run["status"], run["output"]) == ("succeeded", output)
        paid = desk.paid(run_id)
        assert len(paid) == len(desk.api.requests) - before == 3
        assert run["usage"]["cost_usd"] == usd(sum(paid))
    assert desk.api.faults == []
    desk.assert_books_balance()


def test_stream_tells_text_and_tools_and_ends_once(desk: Desk) -> None:
    first = desk.stream()
    assert first[-1][0] == "approval.required"
    assert (first[-1][1]["name"], first[-1][1]["arguments"]) == ("refund", {"number": "1001", "eur": 39})
    run_id = first[0][1]["run_id"]
    desk.decide(run_id, "approve")
    desk.ended(run_id)
    events = desk.events(run_id)
    names = Counter(name for name, _ in events)
    assert (names["tool.called"], names["tool.finished"]) == (2, 2)
    assert "".join(data["text"] for name, data in events if name == "text.delta") == DONE
    assert names["usage"] == 3 and names["run.completed"] == 1 and events[-1][0] == "run.completed"


def test_second_turn_knows_the_first(desk: Desk) -> None:
    session = desk.session()
    run_id = waiting(desk, session_id=session)
    desk.decide(run_id, "approve")
    desk.ended(run_id)
    waiting(desk, session_id=session, input="And order 1001 once more?")
    said = [one["role"] for one in desk.api.requests[-2].messages]
    assert said == ["user", "assistant", "user"]


def test_cap_stops_the_graph_in_the_middle(desk: Desk) -> None:
    # The first call needs no more than 560,000 nano-dollars and costs 27,900; the second needs more than 572,100.
    session = desk.session()
    cap = {"amount_usd": "0.000580", "period": "total"}
    assert desk.client.put(f"/v1/admin/budgets/session:{session}", json=cap).status_code == 200
    run = desk.invoke(session_id=session)
    assert (run["status"], run["error"]["code"]) == ("failed", "budget_exceeded")
    paid = desk.paid(run["run_id"])
    assert len(paid) == 1 and 0 < sum(paid) <= 580_000
    desk.assert_books_balance()


def test_killed_graph_goes_on_from_its_checkpoint(desk: Desk) -> None:
    with desk.brake.pulled(at=1):
        run_id = desk.begin()
        desk.brake.wait()
        desk.example.child.kill()
        desk.example.child.wait(30)
    desk.restart()
    desk.ended(run_id, "waiting_approval", "failed")
    desk.decide(run_id, "approve")
    assert_whole(desk, run_id)


def test_killed_worker_goes_on_from_the_checkpoint(desk: Desk) -> None:
    with desk.brake.pulled(at=1):
        run_id = desk.begin()
        desk.brake.wait()
        desk.kill_workers()
    desk.ended(run_id, "waiting_approval", "failed")
    desk.decide(run_id, "approve")
    assert_whole(desk, run_id)


def assert_whole(desk: Desk, run_id: str) -> None:
    """Check that the run has one answer, and that the call before the kill was made and paid once."""
    run = desk.ended(run_id)
    assert (run["status"], run["output"]) == ("succeeded", DONE)
    events = desk.events(run_id)
    called = [data["call_id"] for name, data in events if name == "tool.called"]
    assert len(called) == len(set(called)) == 2
    assert [name for name, _ in events].count("run.completed") == 1
    made = Counter(len(asked.results) for asked in desk.api.requests)
    assert (made[0], made[2]) == (1, 1) and made[1] <= 2
    assert len(desk.paid(run_id)) == sum(made.values())
    desk.assert_books_balance()


def test_cancel_stops_the_graph(desk: Desk) -> None:
    with desk.brake.pulled(at=1):
        run_id = desk.begin()
        desk.brake.wait()
        assert desk.client.post(f"/v1/runs/{run_id}/cancel").status_code == 202
        run = desk.ended(run_id)
    assert run["status"] == "cancelled"
    asked = len(desk.api.requests)
    wait_until(lambda: len(desk.paid(run_id)) == asked, "the settlement")
    desk.assert_books_balance()
