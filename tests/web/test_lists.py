"""Lists, whatever their items hold: bounded by size, to be read page by page to the end, over both databases."""

from __future__ import annotations

import time
from typing import Any

import pytest

from service.audit.record import MAX_DETAILS
from service.ids import new_id
from service.types import DEFAULT_WORKSPACE, now_ms
from tests.rules.test_routes import routes
from tests.tables import ON_SQLITE
from tests.usage.conftest import postgres_url, url
from tests.web.lists_house import House, house

__all__ = ["house", "postgres_url", "url"]
LARGE = "ä" * 200_000  # 400 KB as JSON
MANY = 12  # of them are more than one answer has room for, and more than may be read at once
SUBJECT = f"user:usr_{'1' * 26}"
RUN, SESSION = f"run_{'1' * 26}", f"ses_{'1' * 26}"


def run_row(house: House, run_id: str, **more: Any) -> dict[str, Any]:
    asked = {
        "agent": "assistant",
        "messages": [{"role": "user", "content": LARGE}],
        "metadata": f'{{"a": "{LARGE}"}}',
    }
    result = {"run_id": run_id, "output": LARGE, "sources": [{"title": LARGE, "uri": "", "quote": ""}]}
    row = {"id": run_id, "user_id": house.user_id, "agent": "assistant", "agent_version": "1", "door": "task"}
    times = {"created_at": now_ms(), "finished_at": now_ms() + 5, "input": "ä" * 200, "steps": 1}
    about = {
        "request_id": "r",
        "status": "succeeded",
        "cache": "miss",
        "model": "m",
        "stop_reason": "end_turn",
    }
    return {**row, **about, **times, "request": asked, "result": result, **more}


def fill_runs(house: House) -> str:
    house.add("runs", *(run_row(house, new_id("run")) for _ in range(MANY)))
    return "/v1/runs"


def fill_events(house: House) -> str:
    house.add("runs", run_row(house, RUN, last_seq=3 * MANY + 1))
    steps = [
        {
            "run_id": RUN,
            "n": n,
            "kind": "model",
            "name": "answer",
            "attempt": 1,
            "reply": {"text": LARGE},
            "events": [[3 * n + seq, "text.delta", {"text": LARGE[:70_000]}] for seq in (1, 2, 3)],
            "first_seq": 3 * n + 1,
            "last_seq": 3 * n + 3,
            "started_at": 1,
            "finished_at": 2,
        }
        for n in range(MANY)
    ]
    house.add("steps", *steps)
    return f"/v1/runs/{RUN}/events"


def session_row(house: House, session_id: str) -> dict[str, Any]:
    row = {"id": session_id, "user_id": house.user_id, "agent": "assistant", "title": "ä" * 256}
    times = {"created_at": 1, "updated_at": 1, "expires_at": now_ms() + 100_000, "summary_upto": 0}
    return {**row, **times, "metadata": {"a": LARGE}, "summary": LARGE}


def fill_sessions(house: House) -> str:
    house.add("sessions", *(session_row(house, new_id("ses")) for _ in range(MANY)))
    return "/v1/sessions"


def fill_schedules(house: House) -> str:
    row = {
        "user_id": house.user_id,
        "agent": "a" * 64,
        "input": LARGE,
        "cron": "0" * 120 + " * * * *",
        "missed": "all",
    }
    times = {"timezone": "UTC", "enabled": True, "next_at": 1, "created_at": 1, "updated_at": 1}
    house.add("schedules", *({**row, **times, "id": new_id("sch")} for _ in range(MANY)))
    return "/v1/schedules"


def fill_notes(house: House) -> str:
    row = {"user_id": house.user_id, "holder": "", "text": LARGE, "agent": "a" * 64}
    row |= {"untrusted": ["context"], "created_at": 1, "updated_at": 1}
    house.add("memory_notes", *({**row, "digest": f"d{n}", "key": f"{n}{'a' * 60}"} for n in range(MANY)))
    return "/v1/memory"


def fill_documents(house: House) -> str:
    plain = {"workspace_id": DEFAULT_WORKSPACE, "agent": "support", "title": "ä" * 200, "kind": "text"}
    plain |= {"category": "", "trusted": False, "digest": "d", "size": len(LARGE), "text": LARGE, "hosts": []}
    plain |= {"passages": 1, "tokens": 1, "rules": 1, "build": 1, "created_at": 1, "updated_at": 1}
    names = (f"{n:03d}{'a' * 190}" for n in range(MANY))
    house.add("knowledge_documents", *({**plain, "id": new_id("doc"), "name": name} for name in names))
    return "/v1/admin/knowledge/support"


def fill_messages(house: House) -> str:
    house.add("sessions", {**session_row(house, SESSION), "metadata": '{"a":1}'})
    said = {"session_id": SESSION, "run_id": RUN, "role": "user", "content": LARGE, "created_at": 1}
    house.add("messages", *({**said, "seq": n + 1, "tokens": len(LARGE) // 4 + 4} for n in range(MANY)))
    return f"/v1/sessions/{SESSION}"


def fill_approvals(house: House) -> str:
    house.add("runs", run_row(house, RUN))
    plain = {
        "run_id": RUN,
        "user_id": house.user_id,
        "agent": "assistant",
        "name": "send",
        "reason": "policy",
    }
    row = {**plain, "arguments": {"text": LARGE}, "status": "pending", "created_at": 1}
    house.add("approvals", *({**row, "id": new_id("apr"), "call_id": f"c{n}"} for n in range(MANY)))
    return "/v1/approvals"


def fill_keys(house: House) -> str:
    plain = {"user_id": house.user_id, "name": "ä" * 128, "prefix": "slp_", "created_at": 1}
    scopes = [f"agents:{'a' * 63}"] * 50
    house.add(
        "api_keys",
        *({**plain, "id": new_id("key"), "scopes": scopes, "digest": f"d{n}"} for n in range(MANY)),
    )
    return "/v1/auth/keys"


def fill_keys_of_a_user(house: House) -> str:
    fill_keys(house)
    return f"/v1/admin/users/{house.user_id}/keys"


def fill_workspaces(house: House) -> str:
    plain = {"disabled": False, "created_at": 1}
    rows = ({**plain, "id": new_id("wsp"), "name": f"{n:02d}{'a' * 60}"} for n in range(MANY - 1))
    house.add("workspaces", *rows)
    return "/v1/admin/workspaces"


def fill_audit(house: House) -> str:
    plain = {
        "workspace_id": DEFAULT_WORKSPACE,
        "at": 1,
        "action": "user.role",
        "actor": "cli",
        "result": "ok",
    }
    plain |= {"subject": SUBJECT, "details": {"large": "ä" * (MAX_DETAILS // 2 - 10)}}
    house.add("audit", *({**plain, "id": new_id("aud")} for _ in range(MANY)))
    return "/v1/admin/audit"


def fill_users(house: House) -> str:
    plain = {"password_hash": "x", "role": "user", "disabled": False, "created_at": 1}
    house.add(
        "users",
        *({**plain, "id": new_id("usr"), "username": f"{n}{'a' * 120}"} for n in range(MANY - 1)),
    )
    return "/v1/admin/users"


def fill_budgets(house: House) -> str:
    plain = {"period": "day", "amount_nano": 1, "updated_at": 1}
    house.add("caps", *({**plain, "scope": f"user:{new_id('usr')}"} for _ in range(MANY - 1)))
    return "/v1/admin/budgets"


def fill_usage(house: House) -> str:
    call = {"kind": "settle", "account": "upstream", "amount_nano": 1, "at": 1, "model": "m" * 128}
    call |= {"user_id": house.user_id, "called_at": int(time.time() * 1000) - 1_000}
    house.add("ledger", *({**call, "entry_id": f"e{n}", "agent": f"a{n:04d}"} for n in range(1_010)))
    return "/v1/usage"


# (how it is filled, how many items it has then, where they are, and what else is asked)
LISTS: dict[str, tuple[Any, int, str, dict[str, Any]]] = {
    "GET /v1/runs": (fill_runs, MANY, "data", {"limit": 100}),
    "GET /v1/runs/<run_id>/events": (fill_events, 3 * MANY + 1, "data", {}),
    "GET /v1/sessions": (fill_sessions, MANY, "data", {"limit": 100}),
    "GET /v1/schedules": (fill_schedules, MANY, "data", {"limit": 5}),
    "GET /v1/memory": (fill_notes, MANY, "data", {"limit": 5}),
    "GET /v1/admin/knowledge/<agent>": (fill_documents, MANY, "data", {"limit": 5}),
    "GET /v1/sessions/<session_id>": (fill_messages, MANY, "messages", {"limit": 100}),
    "GET /v1/approvals": (fill_approvals, MANY, "data", {"limit": 100}),
    "GET /v1/auth/keys": (fill_keys, MANY, "data", {"limit": 5}),
    "GET /v1/admin/users": (fill_users, MANY, "data", {"limit": 5}),
    "GET /v1/admin/users/<user_id>/keys": (fill_keys_of_a_user, MANY, "data", {"limit": 5}),
    "GET /v1/admin/workspaces": (fill_workspaces, MANY, "data", {"limit": 5}),
    "GET /v1/admin/audit": (fill_audit, MANY, "data", {"limit": 5, "subject": SUBJECT}),
    "GET /v1/admin/budgets": (fill_budgets, MANY, "data", {"limit": 5}),
    "GET /v1/usage": (fill_usage, 1_010, "data", {"group_by": "agent,model,user"}),
    "GET /v1/agents": (lambda house: "/v1/agents", 0, "data", {"limit": 1}),
}
# A handful of rows by their nature.
FEW = {
    "GET /v1/budget",
    "GET /v1/admin/agents/<agent>/versions",
    "POST /v1/admin/agents/<agent>/versions",
}


def test_every_list_is_tested_here(house: House) -> None:
    lists = {
        name
        for name, view in routes(house.app)
        if any("next_cursor" in model.model_fields for model in view.__api__.returns.values() if model)
    }
    assert lists == {*LISTS, *FEW}


@pytest.mark.parametrize("route", LISTS)
def test_a_list_is_small_and_leads_to_its_end(house: House, route: str) -> None:
    fill, count, part, query = LISTS[route]
    path = fill(house)
    house.client.environ_base["HTTP_ACCEPT"] = "application/json"
    found = house.items(path, part, **query)
    count = count or len(house.app.extensions["slipway"].agents.agents)
    keys = [str(item) for item in found]
    assert len(found) == len(set(keys)) == count


@ON_SQLITE
@pytest.mark.parametrize("route", LISTS)
def test_a_parameter_that_no_list_has_is_refused(house: House, route: str) -> None:
    """A filter that is misspelt would show everything, as if it were what was asked for."""
    path = LISTS[route][0](house)
    house.client.environ_base["HTTP_ACCEPT"] = "application/json"
    answer = house.get(path, limit=1, lmit=1)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid")
    told = {"pointer": "/lmit", "detail": "There is no such parameter; did you mean 'limit'?"}
    assert answer.json["errors"] == [told]


def test_large_columns_stay_out_of_lists(house: House) -> None:
    for path in (fill_runs(house), fill_sessions(house)):
        (body,) = house.pages(path, limit=100)
        for item in body["data"]:
            left_out = {"output", "structured", "sources", "tools", "metadata", "summary", "messages"}
            assert not left_out & set(item)
            assert len(item.get("input", "")) <= 200


def test_a_row_too_large_for_any_page_is_cut_and_says_so(house: House) -> None:
    house.add("sessions", {**session_row(house, SESSION), "metadata": None})
    said = {"session_id": SESSION, "run_id": RUN, "role": "user", "created_at": 1}
    for seq in (1, 2, 3):
        house.add("messages", {**said, "seq": seq, "content": 4 * LARGE, "tokens": len(LARGE) + 4})
    found = house.items(f"/v1/sessions/{SESSION}", "messages")
    assert [item["seq"] for item in found] == [3, 2, 1]
    for item in found:
        assert item["truncated"] == ["content"] and LARGE.startswith(item["content"]) and item["content"]
