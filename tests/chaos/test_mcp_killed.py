"""`kill -9` of a worker in the middle of an MCP call: a read goes on by itself, for other calls a person is asked."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
import yaml

from tests.conftest import Model, RedisServer, Slipway, slipway_server, wait_until
from tests.guardian import children_of
from tests.jobs.house import TaskWorker
from tests.mcp.raw import Raw
from tests.mcp.test_child import runs

AGENT = """\
description: Calls tools of a server
pattern: react
tier: {default: simple, ask: false}
tools: [raw.slow, raw.slow_pay]
limits: {steps: 6, seconds: 300}
"""


class House(NamedTuple):
    server: Slipway
    tasks: TaskWorker
    raw: Raw

    def kill(self, door: str) -> list[int]:
        """Kill every process of the kind that executes the run; return their children."""
        killed = self.server.workers() if door == "stream" else self.tasks.pool()
        children = [child for pid in killed for child in children_of(pid)]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        return children


@pytest.fixture(params=["http", "stdio"])
def mcp_house(
    request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer, model: Model
) -> Iterator[House]:
    raw = Raw(request.param, tmp_path / "raw")
    (tmp_path / "mcp.yaml").write_text(yaml.safe_dump({"servers": {"raw": raw.spec(seconds=120)}}))
    agent = tmp_path / "agents" / "caller"
    agent.mkdir(parents=True)
    (agent / "agent.yaml").write_text(AGENT)
    (agent / "prompt.md").write_text("You call tools.")
    settings = {
        "AGENTS_DIR": str(tmp_path / "agents"),
        "MCP_SERVERS": str(tmp_path / "mcp.yaml"),
        "WEB_CONCURRENCY": "1",
        "TASK_CONCURRENCY": "2",
    }
    with ExitStack() as stack:
        stack.enter_context(raw.running())
        server = stack.enter_context(slipway_server(tmp_path, redis_server.url, model.url, **settings))
        tasks = stack.enter_context(TaskWorker(server.env, tmp_path / "tasks.log").running())
        yield House(server, tasks, raw)


def begin(house: House, client: httpx2.Client, door: str, tool: str) -> str:
    """Start a run that calls a tool, and wait for the call; return the run's id."""
    question = {"input": f'Call the raw__{tool} tool with "hi".'}
    if door == "tasks":
        queued = client.post("/v1/agents/caller/tasks", json=question)
        assert queued.status_code == 202, queued.text
        run_id: str = queued.json()["run_id"]
    else:
        with client.stream("POST", "/v1/agents/caller/stream", json=question) as answer:
            line = next(line for line in answer.iter_lines() if line.startswith("id: "))
            run_id = line.removeprefix("id: ").partition(":")[0]
    wait_until(lambda: tool in house.raw.calls(), "the call")
    return run_id


def result(client: httpx2.Client, run_id: str) -> dict[str, Any]:
    """Wait until the run ends, or waits for a person."""

    def read() -> dict[str, Any] | None:
        run: dict[str, Any] = client.get(f"/v1/runs/{run_id}").json()
        return run if run["status"] in ("succeeded", "failed", "waiting_approval") else None

    return dict(wait_until(read, "the end", timeout=120))


@pytest.mark.parametrize("door", ["stream", "tasks"])
def test_a_read_goes_on_and_another_call_asks_a_person(mcp_house: House, door: str) -> None:
    raw = mcp_house.raw
    with closing(mcp_house.server.client()) as client:
        read = begin(mcp_house, client, door, "slow")
        paid = begin(mcp_house, client, door, "slow_pay")
        servers = mcp_house.kill(door)
        assert bool(servers) == (raw.kind == "stdio")
        (raw.folder / "go").touch()
        ended, waits = result(client, read), result(client, paid)
        assert ended["status"] == "succeeded" and "hi" in ended["output"], ended
        assert waits["status"] == "waiting_approval", waits
        [approval] = [
            one for one in client.get("/v1/approvals?status=pending").json()["data"] if one["run_id"] == paid
        ]
        assert (approval["name"], approval["reason"]) == ("raw.slow_pay", "unknown")
        assert raw.calls().count("slow") >= 2 and raw.calls().count("slow_pay") == 1
        decided = client.post(f"/v1/approvals/{approval['id']}", json={"decision": "deny"})
        assert decided.status_code == 200, json.dumps(decided.json())
        assert wait_until(lambda: result(client, paid)["status"] == "succeeded", "the end")
        assert raw.calls().count("slow_pay") == 1
    wait_until(lambda: not any(map(runs, servers)), "the end of servers of what was killed")
