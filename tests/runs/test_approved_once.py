"""One approval allows one call: also when the model repeats it, or a worker dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.runs.tool_execution import WaitsForApproval
from service.store import schema
from service.tools import ToolResult, ToolRunner
from service.tools.runner import Invocation
from service.types import RunStatus
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer
from tests.runs import scripted, turns, waiting
from tests.runs.scripted import bodies, call, stream_of
from tests.runs.test_kept_output import says_and_calls
from tests.runs.test_tool_execution import Desk

REFUND = call("refund", {"order": "7"}, "toolu_1")
Moment = Literal["before", "after", "never"]


@pytest.fixture
def wired_to_ask(tmp_path: Path, redis_server: RedisServer, upstream: WireServer) -> Iterator[Services]:
    with scripted.services(tmp_path, redis_server.url, upstream, waiting.ASKS) as services:
        yield services


def test_call_repeated_by_the_model_asks_again(wired_to_ask: Services, upstream: WireServer) -> None:
    """With the same id and arguments, in the same run."""
    upstream.script = [
        says_and_calls("I pay. ", REFUND),
        says_and_calls("I pay. ", REFUND),
        stream_of("Done."),
    ]
    run = waiting.begin(wired_to_ask)
    waiting.decide(wired_to_ask, waiting.asked(wired_to_ask, run)[0], "approve")
    assert waiting.go_on(wired_to_ask, run).status is RunStatus.WAITING_APPROVAL
    first, second = waiting.asked(wired_to_ask, run)
    assert first["call_id"] != second["call_id"] and len(waiting.made(wired_to_ask, run)) == 1
    waiting.decide(wired_to_ask, second, "deny")
    assert waiting.go_on(wired_to_ask, run).status is RunStatus.SUCCEEDED
    assert len(waiting.made(wired_to_ask, run)) == 1


def test_call_repeated_in_a_later_turn_asks_again(wired_to_ask: Services, upstream: WireServer) -> None:
    upstream.script = [
        says_and_calls("I pay. ", REFUND),
        stream_of("Done."),
        says_and_calls("I pay. ", REFUND),
    ]
    session_id = turns.begin(wired_to_ask)
    first = waiting.begin(wired_to_ask, session_id=session_id)
    waiting.decide(wired_to_ask, waiting.asked(wired_to_ask, first)[0], "approve")
    assert waiting.go_on(wired_to_ask, first).status is RunStatus.SUCCEEDED
    second = waiting.begin(wired_to_ask, session_id=session_id)
    assert second.status is RunStatus.WAITING_APPROVAL
    assert waiting.made(wired_to_ask, second) == []


@pytest.mark.parametrize("other", [("refund", {"order": "all of them"}), ("odd", {"kind": "nul"})])
def test_approval_of_a_step_that_is_made_anew_allows_no_other_call(
    wired_to_ask: Services, upstream: WireServer, other: tuple[str, dict[str, str]]
) -> None:
    """The agent's steps have other names since, and the model gives another call the id of the approved one."""
    upstream.script = [
        says_and_calls("I pay. ", REFUND),
        says_and_calls("I pay. ", call(*other, "toolu_1")),
        stream_of("Done."),
    ]
    run = waiting.begin(wired_to_ask)
    rename = sa.update(schema.steps).where(schema.steps.c.name == "think 1").values(name="thought 1")
    wired_to_ask.infra.db.transact(lambda tx: tx.execute(rename))
    waiting.decide(wired_to_ask, waiting.asked(wired_to_ask, run)[0], "approve")
    again = waiting.go_on(wired_to_ask, run)
    assert ("refund", {"order": "7"}) not in waiting.made(wired_to_ask, run)
    assert again.status is (RunStatus.WAITING_APPROVAL if other[0] == "refund" else RunStatus.SUCCEEDED)
    sent = [block.get("id") for each in bodies(upstream)[-1]["messages"][1:2] for block in each["content"]]
    assert "toolu_1" not in sent


class Died(BaseException):
    """Stands for the death of the worker."""


class Mortal(ToolRunner):
    """Runner in whose calls the worker dies: before the tool is called, or after its effect and before the report."""

    def __init__(self, moments: Iterator[Moment]) -> None:
        super().__init__()
        self._moments = moments

    def call_each(self, uses: Sequence[Invocation], *given_up_at: Callable[[], float]) -> list[ToolResult]:
        moment = next(self._moments, "never") if uses else "never"
        if moment == "before":
            raise Died
        results = super().call_each(uses, *given_up_at)
        if moment == "after":
            raise Died
        return results


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    moments=st.lists(st.sampled_from(["before", "after", "never"]), max_size=6),
    decisions=st.lists(st.sampled_from(["approve", "deny"]), min_size=1, max_size=8),
    name=st.sampled_from(["pay", "look"]),
)
def test_calls_are_never_more_than_approvals(
    wired: Services, moments: list[Moment], decisions: list[Literal["approve", "deny"]], name: str
) -> None:
    """Two calls with the same arguments, also of an idempotent tool; workers die and people decide, at every step."""
    desk = Desk(wired, approvals=(name,))
    desk.runner = Mortal(iter(moments))
    uses = [call(name, {"text": "1"}, f"toolu_{n}") for n in (1, 2)]
    said, results = iter([*decisions, *["deny"] * 8]), None
    for _ in range(20):
        try:
            results = desk.use(*uses)
            break
        except Died:
            desk.take_up()
        except WaitsForApproval:
            for row in [row for row in waiting.asked(wired, desk.run) if row["status"] == "pending"]:
                waiting.decide(wired, row, next(said))
            desk.take_up()
        assert len(desk.made) <= approved(wired, desk)
    assert results is not None, "the run goes on once all calls are decided"
    assert sum(result.ok for result in results) <= len(desk.made) <= approved(wired, desk)


def approved(wired: Services, desk: Desk) -> int:
    return sum(row["status"] == "approved" for row in waiting.asked(wired, desk.run))
