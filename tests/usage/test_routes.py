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
from service.store.schema import holds, ledger
from service.types import Usage
from service.usage.ledger import check
from tests.conftest import Model, RedisServer, Slipway, model_server, slipway_server
from tests.usage.house import TABLE

QUESTION = {"input": "What does the Team plan cost?", "cache": "bypass", "tier": "simple"}


@pytest.fixture(scope="module")
def own_model() -> Iterator[Model]:
    with model_server() as model:
        yield model


@pytest.fixture(scope="module")
def bank(scratch: Path, redis_server: RedisServer, own_model: Model) -> Iterator[Slipway]:
    """A Slipway of this module's own, whose ledger is nobody else's."""
    with slipway_server(scratch / "bank", redis_server.url, own_model.url, MODEL_TIMEOUT="1") as server:
        yield server


@pytest.fixture(scope="module")
def admin(bank: Slipway) -> Iterator[httpx2.Client]:
    with bank.client() as client:
        yield client


@pytest.fixture
def db(bank: Slipway, own_model: Model) -> Iterator[Database]:
    own_model.reset()
    database = Database(f"sqlite:///{bank.env['SLIPWAY_HOME']}/slipway.db")
    yield database
    own_model.reset()
    assert check(database, TABLE).faults == []
    assert database.query(lambda tx: tx.rows(holds.select())) == []
    database.close()


@pytest.fixture
def user(
    admin: httpx2.Client, bank: Slipway, request: pytest.FixtureRequest
) -> Iterator[tuple[str, httpx2.Client]]:
    """Somebody new, who has spent nothing."""
    name = f"u{abs(hash(request.node.nodeid)) % 10**10}"
    body = {"username": name, "password": "long-enough", "role": "user"}
    made = admin.post("/v1/admin/users", json=body).json()
    with bank.client(name, "long-enough") as client:
        yield made["id"], client


def settlements(db: Database, user_id: str) -> list[dict[str, Any]]:
    rows = db.query(
        lambda tx: tx.rows(ledger.select().where(ledger.c.user_id == user_id).order_by(ledger.c.at))
    )
    return [dict(row) for row in rows if row["account"] == "upstream"]


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


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_over_the_cap_is_402_and_leaves_no_run(
    db: Database, own_model: Model, user: tuple[str, httpx2.Client], admin: httpx2.Client, door: str
) -> None:
    user_id, client = user
    put = admin.put(f"/v1/admin/budgets/user:{user_id}", json={"amount_usd": "0.000100", "period": "month"})
    assert put.status_code == 200 and put.json()["left_usd"] == "0.000100"
    refused = client.post(f"/v1/agents/assistant/{door}", json={**QUESTION, "tier": "complex"})
    assert refused.status_code == 402, refused.text
    problem = refused.json()
    assert problem["code"] == "budget_exceeded"
    assert problem["budget"]["scope"] == f"user:{user_id}" and problem["budget"]["period"] == "month"
    assert problem["budget"]["left_usd"] == "0.000100" and problem["budget"]["renews_at"].endswith(
        "01T00:00:00.000Z"
    )
    assert client.get("/v1/runs").json()["data"] == []
    assert own_model.stats()["calls"] == 0


def test_a_shorter_answer_is_said_to_be_one(
    db: Database, user: tuple[str, httpx2.Client], admin: httpx2.Client
) -> None:
    user_id, client = user
    question = {"input": "Write at length. " * 20, "cache": "bypass", "tier": "simple", "max_tokens": 4_000}
    admin.put(f"/v1/admin/budgets/user:{user_id}", json={"amount_usd": "0.000600", "period": "day"})
    answer = client.post("/v1/agents/assistant/invoke", json=question)
    assert answer.status_code == 200, answer.text
    assert 64 <= answer.json()["max_tokens_clamped"] < 4_000
    assert float(answer.json()["usage"]["cost_usd"]) <= 0.0006
    budget = client.get("/v1/budget").json()["data"]
    [mine] = [state for state in budget if state["scope"] == f"user:{user_id}"]
    assert mine["spent_usd"] == answer.json()["usage"]["cost_usd"] and mine["reserved_usd"] == "0.000000"


def test_me_includes_the_budget_of_the_caller(
    db: Database, user: tuple[str, httpx2.Client], admin: httpx2.Client
) -> None:
    user_id, client = user
    admin.put(f"/v1/admin/budgets/user:{user_id}", json={"amount_usd": "2.00", "period": "month"})
    assert client.post("/v1/agents/assistant/invoke", json=QUESTION).status_code == 200
    mine = client.get("/v1/auth/me").json()["budget"]
    assert mine == client.get("/v1/budget").json()
    assert {(cap["scope"], cap["period"]) for cap in mine["data"]} == {
        (f"user:{user_id}", "day"),
        (f"user:{user_id}", "month"),
    }
    assert all(cap["spent_usd"] > "0.000000" for cap in mine["data"])
    assert "service" in [cap["scope"] for cap in admin.get("/v1/auth/me").json()["budget"]["data"]]
    key = client.post("/v1/auth/keys", json={"name": "budget"}).json()
    admin.put(f"/v1/admin/budgets/key:{key['id']}", json={"amount_usd": "1.00", "period": "day"})
    by_key = client.get("/v1/auth/me", headers={"Authorization": f"Bearer {key['key']}"}).json()["budget"]
    assert f"key:{key['id']}" in [cap["scope"] for cap in by_key["data"]]


def test_run_stopped_by_a_cap_keeps_its_finished_steps(
    db: Database, user: tuple[str, httpx2.Client], admin: httpx2.Client
) -> None:
    """The first step fits, the second does not: a failed run, with the first step kept and paid."""
    user_id, client = user
    admin.put(f"/v1/admin/budgets/user:{user_id}", json={"amount_usd": "0.000700", "period": "day"})
    question = {"input": "What does the Team plan cost? " + "Think of everything. " * 60, "cache": "bypass"}
    answer = client.post("/v1/agents/support/invoke", json={**question, "tier": "medium"})
    assert answer.status_code == 402, answer.text
    [run] = client.get("/v1/runs").json()["data"]
    assert run["status"] == "failed" and run["error"]["code"] == "budget_exceeded"
    shown = client.get(f"/v1/runs/{run['run_id']}").json()
    assert [step["name"] for step in shown["step_list"]] == ["classify"]
    [row] = settlements(db, user_id)
    assert row["basis"] == "exact" and run["usage"]["cost_usd"] == shown["step_list"][0]["cost_usd"]


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


def test_caps_are_the_admins(db: Database, user: tuple[str, httpx2.Client], admin: httpx2.Client) -> None:
    client = user[1]
    cap = {"amount_usd": "5.00", "period": "total"}
    assert client.put("/v1/admin/budgets/service", json=cap).status_code == 403
    assert client.get("/v1/admin/budgets").status_code == 403
    nobody = (f"{kind}_{'0' * 26}" for kind in ("user:usr", "key:key", "session:ses"))
    for scope in ("nobody", "user:usr_x", *nobody, "agent:nobody", "service:x"):
        assert admin.put(f"/v1/admin/budgets/{scope}", json=cap).status_code == 404, scope
    for wrong in (
        {},
        {**cap, "amount_usd": "-1"},
        {**cap, "amount_usd": 5},
        {**cap, "amount_usd": "١٢"},
        {**cap, "amount_usd": "9e999999"},
        {**cap, "period": "year"},
    ):
        assert admin.put("/v1/admin/budgets/service", json=wrong).status_code == 422, wrong
    assert admin.put("/v1/admin/budgets/agent:support", json=cap).json()["renews_at"] is None
    lifted = admin.put("/v1/admin/budgets/agent:support", json={**cap, "amount_usd": None}).json()
    assert lifted["amount_usd"] is None and lifted["left_usd"] is None
    first = admin.get("/v1/admin/budgets", params={"limit": 1}).json()
    assert first["data"][0]["id"] == first["next_cursor"]
    rest = admin.get("/v1/admin/budgets", params={"cursor": first["next_cursor"]}).json()
    assert first["data"][0]["id"] not in [state["id"] for state in rest["data"]]


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
