"""LangGraph example before the real gateway: a cap in mid-graph, and kept calls after `kill -9`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.types import Run
from tests.conftest import RedisServer, wait_until
from tests.examples import house
from tests.examples.house import EXAMPLES, Example, decided, question
from tests.gateway.house import Gateway, gateway
from tests.messages_api.asked import Asked, Said

pytestmark = [pytest.mark.examples, pytest.mark.timeout(600)]


def asks(door: Gateway, run: Run, **fields: Any) -> dict[str, Any]:
    return question(door.url, run.id, door.token(run), **fields)


def test_every_model_call_is_in_the_ledger_and_kept_ones_cost_nothing(
    helpdesk: Example, tmp_path: Path, redis_server: RedisServer, url: str
) -> None:
    with gateway(tmp_path / "slipway", redis_server.url, house.refunds, database_url=url) as door:
        run = door.run()
        waiting = helpdesk.events(**asks(door, run))[-1][1]
        answer = helpdesk.events(**asks(door, run, resume=decided(waiting, "approve")))[-1]
        assert answer[0] == "run.completed"
        assert len(door.rows()) == len(door.api.requests) == 3
        assert door.spent > 0 and door.held == 0


def test_cap_stops_the_graph_in_the_middle(
    helpdesk: Example, tmp_path: Path, redis_server: RedisServer, url: str
) -> None:
    # In nano-dollars, the first call holds 842,000 and costs 27,900; the second would hold 899,800 more.
    cap = {"budget_run_usd": "0.000880"}
    with gateway(tmp_path / "slipway", redis_server.url, house.refunds, database_url=url, **cap) as door:
        events = helpdesk.events(**asks(door, door.run()))
        assert events[0][0] == "tool.called"  # the first call was paid
        assert events[-1][0] == "run.failed" and events[-1][1]["error"]["code"] == "budget_exceeded"
        assert 0 < door.spent <= 880_000 and door.held == 0


def test_killed_graph_pays_for_no_kept_call_again(
    python_of: Callable[[str], Path], tmp_path: Path, redis_server: RedisServer, url: str
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def slow(asked: Asked) -> Said:
        if asked.results:
            reached.set()
            go_on.wait(30)
        return house.refunds(asked)

    folder, python = EXAMPLES / "langgraph", python_of("langgraph")
    with gateway(tmp_path / "slipway", redis_server.url, slow, database_url=url) as door:
        run = door.run()
        with house.served(folder, python, tmp_path) as helpdesk, ThreadPoolExecutor(1) as pool:
            broken = pool.submit(helpdesk.events, **asks(door, run))
            wait_until(reached.is_set, "the second model call")
            helpdesk.child.kill()
            with pytest.raises(httpx2.HTTPError):
                broken.result(30)
        go_on.set()
        wait_until(lambda: door.held == 0, "the settlement of the call that was under way")
        with house.served(folder, python, tmp_path) as helpdesk:
            events = helpdesk.events(**asks(door, door.again(run)))
        assert [name for name, _ in events] == ["tool.called", "run.waiting"]
        assert [len(asked.results) for asked in door.api.requests].count(0) == 1  # kept, by the checkpoint
