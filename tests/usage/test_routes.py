"""The routes over money, and calls of every kind, through a real Slipway and the offline model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
from click.testing import Result
from jsonschema import Draft202012Validator

from config import load
from service.app import create_app
from service.store.database import Database
from service.store.schema import ledger
from service.types import Usage
from tests.conftest import Model, Slipway
from tests.usage.bank import QUESTION, admin, bank, db, own_model, settlements, user
from tests.usage.house import TABLE

__all__ = ["admin", "bank", "db", "own_model", "user"]


def upstream_cost(model: Model) -> int:
    """The provider's own count of what it did, in nano-dollars."""
    total = 0
    for call in model.stats()["last_calls"]:
        if used := call["usage"]:
            price = TABLE.price(call["model"], date(2026, 11, 21))
            total += price.cost(
                Usage(
                    used["input_tokens"],
                    used["output_tokens"],
                    used["cache_read_input_tokens"],
                    used["cache_creation_input_tokens"],
                )
            )
    return total


@pytest.mark.parametrize("door", ["invoke", "stream"])
@pytest.mark.parametrize("agent", ["assistant", "support", "analyst"])
def test_calls_are_booked_with_the_usage_of_the_provider(
    db: Database, own_model: Model, user: tuple[str, httpx2.Client], agent: str, door: str
) -> None:
    user_id, client = user
    question = {"input": "What is 12 * 34, and what does the Team plan cost?", "cache": "bypass"}
    answer = client.post(f"/v1/agents/{agent}/{door}", json=question)
    assert answer.status_code == 200, answer.text
    booked = settlements(db, user_id)
    assert booked and {row["basis"] for row in booked} == {"exact"}
    assert sum(row["amount_nano"] for row in booked) == upstream_cost(own_model)
    [line] = client.get("/v1/usage", params={"group_by": ""}).json()["data"]
    assert line["calls"] == len(booked)
    if door == "invoke":
        assert line["cost_usd"] == answer.json()["usage"]["cost_usd"] == answer.headers["X-Cost-USD"]


@pytest.mark.parametrize(
    ("fault", "bases"),
    [
        ({"fault": "529", "times": 1}, ["exact"]),
        ({"fault": "429", "times": 1, "retry_after": 0}, ["exact"]),
        ({"fault": "drop_first", "times": 1}, ["worst", "exact"]),  # over a kept connection, or a new one
        ({"fault": "hang", "times": 1}, ["worst", "exact"]),
        ({"fault": "400", "times": 1}, ["nothing"]),
        ({"fault": "garbage", "times": 1}, ["worst"]),
    ],
)
def test_failed_calls_are_settled_by_their_outcome(
    db: Database,
    own_model: Model,
    user: tuple[str, httpx2.Client],
    fault: dict[str, Any],
    bases: list[str],
) -> None:
    user_id, client = user
    own_model.control(**fault)
    client.post("/v1/agents/assistant/invoke", json=QUESTION)
    booked = settlements(db, user_id)
    assert [row["basis"] for row in booked] == bases
    assert sum(row["amount_nano"] for row in booked) >= upstream_cost(own_model)


@pytest.mark.parametrize("fault", ["drop", "no_stop", "error_event"])
def test_interrupted_stream_costs_its_prompt_and_output(
    db: Database, own_model: Model, user: tuple[str, httpx2.Client], fault: str
) -> None:
    user_id, client = user
    own_model.control(fault=fault, times=1)
    with client.stream("POST", "/v1/agents/assistant/stream", json=QUESTION) as answer:
        text = answer.read().decode()
    assert "run.failed" in text
    [row] = settlements(db, user_id)
    assert row["basis"] == "estimate" and row["input_tokens"] > 0
    assert row["amount_nano"] >= upstream_cost(own_model) > 0
    last = orjson.loads(text.strip().rsplit("data: ", 1)[1])
    assert last["usage"]["input_tokens"] == row["input_tokens"]


def test_usage_by_groups_as_json_and_csv(
    db: Database, user: tuple[str, httpx2.Client], admin: httpx2.Client
) -> None:
    user_id, client = user
    for agent in ("assistant", "support"):
        assert client.post(f"/v1/agents/{agent}/invoke", json=QUESTION).status_code == 200
    got = client.get("/v1/usage", params={"group_by": "day,agent,model,user"}).json()
    assert {line["agent"] for line in got["data"]} == {"assistant", "support"}
    assert {line["user"] for line in got["data"]} == {user_id}
    assert got["total"]["calls"] == sum(line["calls"] for line in got["data"]) == 3
    sheet = client.get("/v1/usage", params={"group_by": "agent"}, headers={"Accept": "text/csv"})
    assert sheet.headers["content-type"].startswith("text/csv") and sheet.headers["vary"] == "Accept"
    lines = sheet.text.splitlines()
    assert lines[0].startswith("agent,calls,input_tokens") and len(lines) == 3
    everybody = admin.get("/v1/usage", params={"group_by": "user", "from": "2026-11-01"}).json()
    assert len(everybody["data"]) > 1
    assert client.get("/v1/usage", params={"from": "2026-01-01", "to": "2026-01-02"}).json()["data"] == []


@pytest.mark.parametrize(
    "query",
    [
        "group_by=colour",
        "group_by=day,day",
        "from=yesterday",
        "from=2026-11-02&to=2026-11-01",
        "from=2020-01-01",
        "from=1969-12-31&to=1970-01-01",
        "group_by=day&group_by=user",
        "limit=5&limit=7",
        "from=٢٠٢٦-١١-٠١",
        "from=2026-11-01١00:00:00",
        "limit=١٢",
        "cursor=１２",
        "cursor=²",
        "cursor=1000",
    ],
)
def test_usage_refuses_unknown_parameters(db: Database, admin: httpx2.Client, query: str) -> None:
    assert admin.get(f"/v1/usage?{query}").status_code == 422


def test_answers_are_as_the_description_says(db: Database, admin: httpx2.Client) -> None:
    document = admin.get("/openapi.json").json()
    for path in ("/v1/usage", "/v1/budget", "/v1/admin/budgets"):
        schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        Draft202012Validator({**schema, "components": document["components"]}).validate(
            admin.get(path).json()
        )


@pytest.fixture
def flask(bank: Slipway) -> Iterator[Callable[..., Result]]:
    """Runs `flask …` against the same database, in this process."""
    app = create_app(load(bank.env))
    yield lambda *arguments: app.test_cli_runner().invoke(args=list(arguments))
    app.extensions["slipway"].close()


def test_the_commands(
    db: Database, flask: Callable[..., Result], user: tuple[str, httpx2.Client], tmp_path: Path
) -> None:
    user_id, client = user
    assert client.post("/v1/agents/assistant/invoke", json=QUESTION).status_code == 200
    checked = flask("ledger", "check")
    assert checked.exit_code == 0 and "all right" in checked.output
    found = flask("prices", "check")
    assert found.exit_code == 0, found.output
    assert "ok    claude-haiku-5-5 at claude-haiku-5-5@2026-10-07" in found.output
    assert flask("budgets", "set", "service", "many").exit_code == 1
    assert flask("budgets", "set", "services", "5").exit_code == 1
    assert flask("budgets", "set", "agent:nobody", "5").exit_code == 1
    done = flask("budgets", "set", f"user:{user_id}", "3.50", "--period", "month")
    assert done.exit_code == 0 and "3.500000" in done.output
    assert f"user:{user_id}" in flask("budgets", "list").output
    export = tmp_path / "export.csv"
    export.write_text("date,model,input_tokens,output_tokens,cost\n2026-11-21,claude-haiku-5-5,7,8,0.5\n")
    told = flask("ledger", "reconcile", str(export))
    assert told.exit_code == 0 and "claude-haiku-5-5" in told.output and "0.500000" in told.output
    damage = ledger.update().where(ledger.c.user_id == user_id, ledger.c.account == "upstream")
    db.transact(lambda tx: tx.execute(damage.values(output_tokens=ledger.c.output_tokens + 1)))
    broken = flask("ledger", "check")
    assert broken.exit_code == 1 and "WRONG ledger hld_" in broken.output
    db.transact(lambda tx: tx.execute(damage.values(output_tokens=ledger.c.output_tokens - 1)))
