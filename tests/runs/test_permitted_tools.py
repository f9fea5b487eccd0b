"""Tools that a run has by the role of its user and the scopes of its key, and the bounds of their arguments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.store import schema
from service.types import Caller, Run
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer
from tests.runs import inside, scripted
from tests.runs.scripted import bodies, call, calls, message, says

SPEC = (
    scripted.REACT
    + """policies:
  refund: {roles: [operator], max_amount: {order: "100.00"}}
"""
)
BOTH = ["echo", "odd", "refund"]


@pytest.fixture
def bounded(tmp_path: Path, redis_server: RedisServer, upstream: WireServer) -> Iterator[Services]:
    with scripted.services(tmp_path, redis_server.url, upstream, SPEC) as services:
        yield services


def ask(wired: Services, caller: Caller) -> Run:
    return wired.runs.start.invoke(caller, inside.request("Do it.", cache="bypass"), None, "req").run


def offered(upstream: WireServer) -> list[str]:
    return sorted(tool["name"] for tool in bodies(upstream)[-1]["tools"])


def become(wired: Services, role: str) -> None:
    wired.infra.db.transact(lambda tx: tx.execute(sa.update(schema.users).values(role=role)))


def test_tool_of_another_role_is_neither_offered_nor_called(bounded: Services, upstream: WireServer) -> None:
    upstream.script = [calls(call("refund", {"order": "1"})), message(says("No."))]
    run = ask(bounded, inside.ADA)
    assert [entry["ok"] for entry in run.result["tools"]] == [False]  # type: ignore[index]
    assert offered(upstream) == ["echo", "odd"]
    told = bodies(upstream)[-1]["messages"][-1]["content"][0]["content"]
    assert told == "There is no tool named refund."


def test_tool_of_the_users_present_role_is_offered_and_called(
    bounded: Services, upstream: WireServer
) -> None:
    become(bounded, "operator")
    upstream.script = [calls(call("refund", {"order": "1"})), message(says("Done."))]
    run = ask(bounded, inside.ADA)
    assert [entry["ok"] for entry in run.result["tools"]] == [True]  # type: ignore[index]
    assert offered(upstream) == BOTH


def test_call_beyond_its_bound_is_not_made_and_the_model_learns_why(
    bounded: Services, upstream: WireServer
) -> None:
    become(bounded, "operator")
    upstream.script = [calls(call("refund", {"order": "100.01"})), message(says("No."))]
    run = ask(bounded, inside.ADA)
    assert [entry["ok"] for entry in run.result["tools"]] == [False]  # type: ignore[index]
    told = bodies(upstream)[-1]["messages"][-1]["content"][0]["content"]
    assert told.endswith("order: only amounts up to 100.00 are allowed")
    assert bounded.infra.db.query(lambda tx: tx.rows(sa.select(schema.tool_calls))) == []


@pytest.mark.parametrize(
    ("scopes", "tools"),
    [
        (("tools:read",), ["echo", "odd"]),
        (("tools:read", "tools:write"), BOTH),
        (("tools:*",), BOTH),
        (("agents:*",), BOTH),
        (("tools:danger",), []),
    ],
)
def test_key_has_the_tools_of_its_scopes(
    acting: Services, upstream: WireServer, scopes: tuple[str, ...], tools: list[str]
) -> None:
    """A resumed run too: its scopes are kept with its request."""
    run = ask(acting, inside.ADA._replace(key_id="key_1", scopes=scopes))
    assert sorted(tool["name"] for tool in bodies(upstream)[-1].get("tools", [])) == tools
    kept = acting.runs.queries.get(run.id).request.tool_scopes
    assert kept == ([*scopes] if scopes[0].startswith("tools:") else None)


def test_key_for_some_agents_has_no_tools_of_operators(bounded: Services, upstream: WireServer) -> None:
    become(bounded, "operator")
    key = {"id": "key_1", "user_id": inside.ADA.user_id, "scopes": ["agents:*"], "created_at": 0}
    columns = dict.fromkeys(("name", "digest", "prefix"), "")
    bounded.infra.db.transact(
        lambda tx: tx.execute(
            sa.insert(schema.api_keys), {**tx.sealed(schema.api_keys, columns, "usr_ada"), **key}
        )
    )
    ask(bounded, inside.ADA._replace(key_id="key_1", scopes=("agents:*",)))
    assert offered(upstream) == ["echo", "odd"]
