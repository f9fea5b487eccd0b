"""Traces that leave their process: remote agents, task workers, MCP servers, waits for people, webhooks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.observe import tracing
from service.observe.tracing import Span, TraceContext
from service.wiring import Services
from tests.agent_server import house as pieces
from tests.agent_server.room import room
from tests.conftest import ROOT, Model, RedisServer, slipway_server, wait_until
from tests.jobs.house import House, ended
from tests.jobs.house import Receiver as Webhooks
from tests.llm.wire_server import WireServer
from tests.mcp import house as mcp_house
from tests.mcp.conftest import evil, folder, upstream
from tests.mcp.house import use
from tests.mcp.test_http import Evil, served
from tests.mcp_servers.house import Desk
from tests.observe.conftest import traced_by
from tests.observe.otlp import Receiver, Sent, receiver, tree

__all__ = ["evil", "folder", "served", "upstream"]
INVOKE, GATEWAY = "POST /v1/agents/{agent}/invoke", "POST /v1/messages"
TASK = "POST /v1/agents/{agent}/tasks"
CHAT = ("chat claude-haiku-5-5", [])
MAIL = "Reply to the mail about the team offsite: Thursday suits me."


def names_under(pair: Any) -> set[str]:
    """Return all names of a tree."""
    name, below = pair
    return {name}.union(*(names_under(one) for one in below))


@pytest.mark.parametrize("alone", [{}, {"OTEL_SERVICE_NAME": "piece"}])
def test_newsroom_with_remote_agents_is_one_tree(
    tmp_path: Path, redis_server: RedisServer, alone: dict[str, str]
) -> None:
    """Also where the remote agents make no spans: the calls that they ask for are in the tree all the same."""
    folders = [ROOT / "agents" / name for name in ("research", "writer")]
    with receiver() as got:
        own = traced_by(got, **alone) if alone else {}
        with (
            pieces.served(tmp_path / "pieces.log", folders, **own) as piece,
            room(
                tmp_path / "room", redis_server, f"sqlite:///{tmp_path}/db", piece, **traced_by(got)
            ) as found,
        ):
            run = found.ask()
            assert run["status"] == "succeeded", run

            def whole() -> list[Sent]:
                spans = got.of_run(run["run_id"])
                done = [span for span in spans if span.name in (INVOKE, "invoke_agent newsroom")]
                chats = [span for span in spans if span.name.startswith("chat")]
                told = len(done) == 2 and len(chats) == found.calls().total()
                return spans if told and len(tree(spans)) == 1 else []  # a parent may come after its children

            spans = wait_until(whole, "the trace", 30)
            (root,) = tree(spans)
    assert root[0] == INVOKE and root[1][0][0] == "invoke_agent newsroom"
    remote = [pair for pair in root[1][0][1] if pair[0] == "invoke_agent research"]
    assert len(remote) == 2
    for _, steps in remote:
        ((step, below),) = steps
        assert step.startswith("step ")
        if alone:
            ((name, steps),) = below
            assert name == "invoke_agent research" and ("step plan", [(GATEWAY, [CHAT])]) in steps
            assert ("step search", [("execute_tool search_knowledge", [])]) in steps
        else:
            assert (GATEWAY, [CHAT]) in below
    services = {span.resource["service.name"] for span in spans}
    assert services == ({"slipway", "piece"} if alone else {"slipway"})


@pytest.fixture(scope="module")
def got() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture(scope="module")
def office(scratch: Path, redis_server: RedisServer, model: Model, got: Receiver) -> Iterator[House]:
    """A Slipway with a task worker, mail and calendar, and a webhook receiver."""
    with closing(Webhooks()) as webhooks, Desk(scratch / "desk").start() as desk:
        settings = {"WEBHOOK_ALLOW_PRIVATE": "1", "WEB_CONCURRENCY": "1", "THREADS": "12", **desk.env}
        with slipway_server(
            scratch / "office", redis_server.url, model.url, **traced_by(got, **settings)
        ) as server:
            house = House(server, redis_server, model, webhooks)
            with house.worker("office").running():
                yield house


def test_task_that_waits_for_a_person_goes_on_in_its_trace(office: House, got: Receiver) -> None:
    with closing(office.server.client()) as client:
        run_id = office.queue(client, MAIL, "concierge", callback_url=office.receiver.url)
        waiting = lambda: client.get(f"/v1/runs/{run_id}").json()["status"] == "waiting_approval"  # noqa: E731
        wait_until(waiting, "the question", 60)
        (asked,) = client.get("/v1/approvals?status=pending").json()["data"]
        decided = client.post(f"/v1/approvals/{asked['id']}", json={"decision": "approve"})
        assert decided.status_code == 200, decided.text
        assert ended(client, run_id)["status"] == "succeeded"

    def whole() -> Any:
        spans = got.of_run(run_id)
        webhooks = [span for span in spans if span.name == "POST webhook"]
        return spans if len(webhooks) == 2 and any(span.name == TASK for span in spans) else None

    spans: list[Sent] = wait_until(whole, "the trace", 60)
    (root,) = tree(spans)
    assert root[0] == TASK
    attempts = [span for span in spans if span.name == "invoke_agent concierge"]
    ends = [span.about["slipway.run.status"] for span in attempts]  # of two processes, as they came in
    assert ends.count("succeeded") == 1 and "waits_for_approval" in ends, ends
    assert not any(span.failed for span in attempts)
    assert {"execute_tool mail.send", "execute_tool mail.list"} <= names_under(root)
    sent = {delivery.headers["traceparent"] for delivery in office.receiver.of(run_id)}
    assert {header.split("-")[1] for header in sent} == {root_trace(spans)}


def root_trace(spans: list[Sent]) -> str:
    (trace_id,) = {span.trace_id for span in spans}
    return trace_id


def test_mcp_server_gets_the_place_of_the_call(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, served: Evil
) -> None:
    place = TraceContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, False)
    with mcp_house.services(tmp_path, redis_server.url, upstream, {"evil": served.spec}) as wired:
        assert _told(wired) == {""}
        with tracing.Within(Span(place, tracing.OFF)):
            assert _told(wired) == {place.traceparent()}


def test_mcp_server_over_stdio_gets_the_place_of_the_call(evil: Services) -> None:
    place = TraceContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True)
    with tracing.Within(Span(place, tracing.OFF)):
        assert _told(evil) == {place.traceparent(), ""}


def _told(wired: Services) -> set[str]:
    """Return what a server was told in `_meta` and, over HTTP, in a header."""
    told = json.loads(use(wired, "evil.secret").content)
    return {told["meta"], told["trace"]}
