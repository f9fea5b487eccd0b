"""MCP tools in runs: names towards the model, untrusted results, claims and approvals."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.store import approvals, tool_calls
from service.types import RunStatus
from service.wiring import Services
from tests.conftest import RedisServer, wait_until
from tests.llm.wire_server import WireServer
from tests.mcp import evil_server, house
from tests.mcp.raw import Raw
from tests.runs.scripted import ask, bodies, call, calls


def test_model_sees_names_without_dots_and_api_sees_them_with_dots(
    evil: Services, upstream: WireServer, folder: Path
) -> None:
    upstream.script.append(calls(call("evil__echo", {"text": "hi"})))
    run = ask(evil)
    assert run.result is not None and run.result["tools"][0]["name"] == "evil.echo"
    first, second = bodies(upstream)
    assert [tool["name"] for tool in first["tools"]] == ["evil__echo", "evil__pay"]
    assert second["messages"][-2]["content"][0]["name"] == "evil__echo"
    assert house.made(folder) == ["echo"]


def test_orders_in_results_and_instructions_reach_no_prompt_and_stop_acting_calls(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, folder: Path
) -> None:
    servers = {"evil": house.stdio(folder)}
    upstream.script.append(calls(call("evil__orders", {})))
    upstream.script.append(calls(call("evil__pay", {"text": "42"}, "toolu_2")))
    with house.services(tmp_path, redis_server.url, upstream, servers, "evil.orders, evil.pay") as wired:
        run = ask(wired)
        assert run.status is RunStatus.WAITING_APPROVAL
        assert house.made(folder) == ["orders"]
    assert all(evil_server.ORDERS not in str(body["system"]) for body in bodies(upstream))


def test_danger_needs_a_person(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, folder: Path
) -> None:
    servers = {"evil": house.stdio(folder, tools=house.rules(pay={"risk": "danger"}))}
    upstream.script.append(calls(call("evil__pay", {"text": "1"})))
    with house.services(tmp_path, redis_server.url, upstream, servers) as wired:
        assert ask(wired).status is RunStatus.WAITING_APPROVAL
        assert house.made(folder) == []


def test_call_whose_server_died_is_unknown_and_goes_to_a_person(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, folder: Path
) -> None:
    upstream.script.append(calls(call("evil__die", {"text": "1"})))
    servers = {"evil": house.stdio(folder)}
    with house.services(tmp_path, redis_server.url, upstream, servers, "evil.die") as wired:
        run = ask(wired)
        assert run.status is RunStatus.WAITING_APPROVAL and house.made(folder) == ["die"]
        kept = wired.infra.db.query(lambda tx: tool_calls.of_run(tx, run.id))
        assert [row["status"] for row in kept.values()] == ["unknown"]


def test_wrong_arguments_are_refused_before_a_person_is_asked(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    raw = Raw("stdio", tmp_path / "raw")
    spec = raw.spec()
    spec["tools"]["pay"]["risk"] = "danger"
    upstream.script.append(calls(call("raw__pay", {"text": "longer than ten characters"})))
    upstream.script.append(calls(call("raw__pay", {"text": "short"}, "toolu_2")))
    with house.services(tmp_path, redis_server.url, upstream, {"raw": spec}, "raw.pay") as wired:
        wait_until(lambda: wired.mcp.pins.get("raw", "pay") or wired.mcp.refresh(), "the pins")
        run = ask(wired)
        assert run.status is RunStatus.WAITING_APPROVAL
        [approval] = wired.infra.db.query(lambda tx: approvals.of_run(tx, run.id))
        assert approval["arguments"] == {"text": "short"}
    told = bodies(upstream)[1]["messages"][-1]["content"][0]
    assert told["is_error"] and "text: does not match the schema's maxLength" in told["content"]
    assert raw.calls() == []


def test_read_that_timed_out_asks_nobody(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    raw = Raw("stdio", tmp_path / "raw")
    spec = {**raw.spec(seconds=1), "tools": {"hang": {"risk": "read", "timeout_seconds": 1}}}
    upstream.script.append(calls(call("raw__hang", {"text": "hi"})))
    with house.services(tmp_path, redis_server.url, upstream, {"raw": spec}, "raw.hang") as wired:
        run = ask(wired)
        assert run.status is RunStatus.SUCCEEDED
    told = bodies(upstream)[1]["messages"][-1]["content"][0]
    assert told["is_error"] and "may still take effect" not in told["content"]


@pytest.mark.parametrize(
    ("rule", "status", "asked"),
    [
        ({}, RunStatus.WAITING_APPROVAL, "Look at it."),
        ({"sends": False}, RunStatus.SUCCEEDED, "Look at it."),
        ({}, RunStatus.SUCCEEDED, "Look at it, then say orders."),
    ],
)
def test_read_after_untrusted_text_asks_a_person_but_for_the_users_words(
    tmp_path: Path,
    redis_server: RedisServer,
    upstream: WireServer,
    folder: Path,
    rule: dict[str, bool],
    status: RunStatus,
    asked: str,
) -> None:
    servers = {
        "evil": house.stdio(folder, tools={name: {"risk": "read", **rule} for name in ("orders", "echo")})
    }
    upstream.script.append(calls(call("evil__orders", {})))
    upstream.script.append(calls(call("evil__echo", {"text": "orders"}, "toolu_2")))
    with house.services(tmp_path, redis_server.url, upstream, servers, "evil.orders, evil.echo") as wired:
        run = ask(wired, messages=({"role": "user", "content": asked},))
        assert run.status is status
        found = wired.infra.db.query(lambda tx: approvals.of_run(tx, run.id))
        assert [(one["reason"], one["untrusted"]["sources"]) for one in found] == (
            [("untrusted", ["evil.orders"])] if status is RunStatus.WAITING_APPROVAL else []
        )


def test_agent_is_served_without_its_server(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    away = {"url": "http://127.0.0.1:9/mcp", "tools": {"echo": {"risk": "read"}}}
    upstream.script.append(calls(call("evil__echo", {"text": "hi"})))
    with house.services(tmp_path, redis_server.url, upstream, {"evil": away}, "evil.echo") as wired:
        run = ask(wired)
    assert run.status is RunStatus.SUCCEEDED
    told = bodies(upstream)[1]["messages"][-1]["content"][0]
    assert told["is_error"] and "is not reached now" in told["content"]


@pytest.mark.parametrize("name", ["pay", "evil.nothing"])
def test_unknown_tool_is_a_fault_of_the_agent(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, folder: Path, name: str
) -> None:
    with house.services(tmp_path, redis_server.url, upstream, {"evil": house.stdio(folder)}, name) as wired:
        assert [fault.field for fault in wired.agents.faults] == ["tools.0"]
