"""`limits.model_seconds`: an agent that waits less long for the model than the service does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.types import RunStatus
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer, silent, start, stream, text_events
from tests.runs import inside

AGENTS = {
    "probe": f"{inside.SINGLE}tier: {{ask: no}}\nlimits: {{model_seconds: 1, seconds: 25}}\n",
    "patient": f"{inside.SINGLE}tier: {{ask: no}}\nlimits: {{model_seconds: 600, seconds: 25}}\n",
}


@pytest.fixture
def hurried(tmp_path: Path, redis_server: RedisServer, upstream: WireServer) -> Iterator[Services]:
    """The service itself waits for 2 s, and tries no second time."""
    settings = {"model_timeout": 2.0, "model_retries": 0, "breaker_failures": 1}
    with inside.services(tmp_path, redis_server.url, upstream.url, AGENTS, **settings) as wired:
        yield wired


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_a_silent_model_is_left_when_the_agent_says(
    hurried: Services, upstream: WireServer, door: str
) -> None:
    upstream.script = [silent if door == "invoke" else stream([start(), *text_events("one")], silent)]
    if door == "invoke":
        run = inside.ask(hurried)
    else:
        started, told = hurried.runs.stream(inside.ADA, inside.request("Well?"), None, "req")
        for _ in told:
            pass
        run = hurried.watch.get(started.run.id)
    assert run.error is not None and (run.status, run.error["code"]) == (RunStatus.FAILED, "model_timeout")
    assert upstream.hung_up.wait(5)
    # Its haste says nothing of the model's health: others are not kept from asking it.
    assert inside.ask(hurried, agent="patient", cache="bypass").status == RunStatus.SUCCEEDED


def test_the_service_s_own_time_out_counts_where_it_is_shorter(
    hurried: Services, upstream: WireServer
) -> None:
    upstream.script = [silent]
    run = inside.ask(hurried, agent="patient")
    assert run.error is not None and run.error["code"] == "model_timeout"
