"""Estimates: the ceiling bounds what runs cost, whatever the model does; caps and the caller's own runs are told."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import Invalid, NotFound, PriceUnknown
from service.runs.replies import MAX_PARTS
from service.store import schema
from service.types import NANO, Caller, RunRequest
from service.usage.caps import nano_of
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import (
    MESSAGE,
    Exchange,
    Handler,
    WireServer,
    close,
    error,
    start,
    text_events,
    whole,
)
from tests.llm.wire_server import stream as streamed
from tests.runs import inside, newsroom
from tests.runs.scripted import Upstream, call, holds

RUNS = int(os.environ.get("ESTIMATE_RUNS", "60"))
SEED = int(os.environ.get("SEED", "22"))
FREE = "tier: {default: simple, ask: true}\n"
SCHEMA = "output_schema: {type: object, properties: {a: {type: string}}, required: [a], additionalProperties: false}\n"
AGENTS = {
    "single": f"description: x\npattern: single\n{FREE}max_tokens: 300\n",
    "formed": f"description: x\npattern: single\n{FREE}{SCHEMA}",
    "react": f"description: x\npattern: react\n{FREE}tools: [echo, odd]\ncontext_tokens: 6000\nlimits: {{steps: 4}}\n",
    "reflection": f"description: x\npattern: reflection\n{FREE}rounds: 2\n",
    **newsroom.AGENTS,
}


@pytest.fixture
def model() -> Iterator[WireServer]:
    server = Upstream(whole(MESSAGE))
    server.otherwise = Anything(random.Random(SEED))
    yield server
    server.stop()


@pytest.fixture
def wired(tmp_path: Path, redis_server: RedisServer, model: WireServer, url: str) -> Iterator[Services]:
    options = {"database_url": url, "model_retries": 1, "session_history_tokens": 500}
    with newsroom.services(tmp_path, redis_server.url, model.url, AGENTS, **options) as services:
        yield services


class Anything:
    """Handler that answers, calls tools, pauses, fails or breaks off, and says that it used up to the most it can."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def __call__(self, exchange: Exchange) -> None:
        self._handler(exchange.json)(exchange)

    def _handler(self, body: dict[str, Any]) -> Handler:
        chance = self.chance.random()
        if chance < 0.06:
            return self.chance.choice([error(529, "overloaded_error"), close, error(500, "api_error")])
        if body.get("stream"):
            return self._stream(body)
        content = [{"type": "text", "text": self._text(body)}]
        tools = [tool["name"] for tool in body.get("tools", ())]
        calls = [self._call(n) for n in range(self.chance.randint(1, 3))] if tools and chance < 0.8 else []
        answer = {"content": content + calls, "stop_reason": "tool_use" if calls else self._end()}
        return whole({**MESSAGE, **answer, "usage": self._usage(body)})

    def _end(self) -> str:
        return self.chance.choice(["end_turn", "end_turn", "pause_turn"])

    def _call(self, number: int) -> dict[str, Any]:
        if self.chance.random() < 0.3:
            return call("odd", {"kind": "huge"}, f"toolu_{self.chance.random()}_{number}")
        return call(
            "echo", {"text": "word " * self.chance.randint(0, 900)}, f"toolu_{self.chance.random()}_{number}"
        )

    def _text(self, body: dict[str, Any]) -> str:
        if "output_config" in body and self.chance.random() < 0.8:
            tasks = [{"agent": "worker", "task": "Work."}] * self.chance.randint(1, 4)
            critique = {"good": False, "points": ["p" * 500]}
            return json.dumps(self.chance.choice([{"a": "b"}, {"tasks": tasks}, critique]))
        return self.chance.choice(["Good day. ", "é" * 3_000, "word " * 500])

    def _usage(self, body: dict[str, Any]) -> dict[str, int]:
        """Return what the call may have used: as many tokens as its prompt has bytes, and all that it may write."""
        sent = len(json.dumps([body.get("system"), body["messages"], body.get("tools")], ensure_ascii=False))
        share = self.chance.choice([0.1, 0.3, 1.0, 5.0])
        return {
            "input_tokens": int(sent * share),
            "output_tokens": body["max_tokens"] + self.chance.choice([0, 16]),
        }

    def _stream(self, body: dict[str, Any]) -> Handler:
        usage = {**self._usage(body), "output_tokens": 1}
        events = [start(usage), *text_events(*[self._text(body)] * self.chance.randint(1, 3))]
        delta = {"stop_reason": self._end(), "stop_sequence": None}
        last = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": body["max_tokens"]}}
        if self.chance.random() < 0.1:
            return streamed(events, close)
        return streamed([*events, last, {"type": "message_stop"}])


def estimate(wired: Services, agent: str = "single", text: str = "Do it.", **fields: Any) -> dict[str, Any]:
    return wired.runs.estimates.of(inside.ADA, inside.request(text, agent=agent, **fields))


def anything(chance: random.Random, session: str | None) -> RunRequest:
    """Return a question to any of the agents, with any limits."""
    agent = chance.choice(["single", "formed", "react", "reflection", "probe"])
    fields: dict[str, Any] = {"max_tokens": chance.choice([None, 50, 2_000]), "cache": "bypass"}
    fields["tier"] = chance.choice(["auto", "simple", "complex"])
    if agent == "react":
        fields |= {"max_steps": chance.choice([None, 2]), "session_id": chance.choice([None, session])}
    text = chance.choice(
        ["Do it.", "def f(): return 1\n" * 200, "What is 12345678901234567890? " * 20, "ﷺ" * 500]
    )
    return inside.request(text, agent=agent, **fields)


@pytest.mark.timeout(120 + RUNS)
def test_no_run_costs_more_than_its_ceiling(wired: Services) -> None:
    row = wired.sessions.new(inside.ADA, "react", "", None)
    wired.infra.db.transact(lambda tx: wired.sessions.create(tx, row))
    chance, costs = random.Random(SEED + 1), []
    for number in range(RUNS):
        asked = anything(chance, row["id"])
        told = wired.runs.estimates.of(inside.ADA, asked)
        if number % 3:
            run = inside_run(wired, asked)
        else:
            started, events = wired.runs.start.stream(inside.ADA, asked, None, "req")
            for _ in events:
                pass
            if started.place is not None:
                started.place.give()
            run = wired.runs.queries.get(started.run.id)
        ceiling = nano_of(told["ceiling_usd"])
        assert run.cost_nano <= ceiling, (asked, told, run.cost_nano)
        costs.append(run.cost_nano / ceiling)
    assert max(costs) > 0.001 and holds(wired) == 0


def inside_run(wired: Services, asked: RunRequest) -> Any:
    return wired.runs.start.invoke(inside.ADA, asked, None, "req").run


@pytest.mark.parametrize("agent", ["single", "react"])
def test_answers_that_the_model_pauses_stay_under_the_ceiling(
    wired: Services, model: WireServer, agent: str
) -> None:
    def pause(exchange: Exchange) -> None:
        body = exchange.json
        sent = len(json.dumps([body.get("system"), body["messages"], body.get("tools")], ensure_ascii=False))
        usage = {"input_tokens": sent, "output_tokens": body["max_tokens"]}
        text = {"type": "text", "text": "word word " * (body["max_tokens"] // 2)}
        whole({**MESSAGE, "content": [text], "stop_reason": "pause_turn", "usage": usage})(exchange)

    model.otherwise = pause
    asked = inside.request("Do it.", agent=agent, tier="complex", max_tokens=8_000, max_steps=1)
    told = nano_of(wired.runs.estimates.of(inside.ADA, asked)["ceiling_usd"])
    run = inside_run(wired, asked)
    assert len(model.requests) == MAX_PARTS
    assert told / 20 < run.cost_nano <= told


def test_estimate_stores_and_holds_nothing(wired: Services, model: WireServer) -> None:
    told = estimate(wired)
    assert told["like_it"] == {"median_usd": None, "p95_usd": None, "runs": 0}
    assert (holds(wired), model.requests) == (0, [])
    assert wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.runs))) == []
    [route, answer] = told["steps"]
    assert (route["name"], answer["name"], answer["calls"]) == ("route", "first_step", 1)
    assert sum(map(nano, told["steps"])) >= nano_of(told["ceiling_usd"]) > nano_of(answer["call_usd"]) > 0


def nano(step: dict[str, Any]) -> int:
    return nano_of(step["ceiling_usd"])


def test_limits_of_the_request_lower_the_ceiling(wired: Services) -> None:
    def ceiling(agent: str, **fields: Any) -> int:
        return nano_of(estimate(wired, agent, **fields)["ceiling_usd"])

    assert ceiling("react", max_steps=1) < ceiling("react", max_steps=2) < ceiling("react")
    assert ceiling("single", max_tokens=50) < ceiling("single") < ceiling("single", text="word " * 5_000)
    assert ceiling("single", tier="simple") < ceiling("single")
    assert ceiling("probe") > nano_of("0.10")  # of its sub-agents
    with pytest.raises(Invalid):
        ceiling("react", max_steps=9)


def test_what_is_left_is_told_to_those_who_may_see_it(wired: Services) -> None:
    for scope in ("service", "agent:single", "user:usr_ada"):
        wired.usage.budgets.put(scope, "day", NANO)
    asked = inside.request("Do it.", agent="single")
    operator = Caller("usr_ada", "ada", "operator")
    assert wired.runs.estimates.of(operator, asked)["left"] == {
        "service/day": "1.000000",
        "user:usr_ada/day": "1.000000",
        "agent:single/day": "1.000000",
    }
    assert estimate(wired)["left"] == {"user:usr_ada/day": "1.000000"}  # not what others spend
    elsewhere = Caller("usr_ada", "ada", "operator", workspace_id=f"wsp_{'1' * 26}")
    assert set(wired.runs.estimates.of(elsewhere, asked)["left"]) == {"user:usr_ada/day"}
    of_key = Caller("usr_ada", "ada", "user", ("agents:single",), f"key_{'1' * 26}")
    assert wired.runs.estimates.of(of_key, asked)["left"] == {}


def test_runs_like_it_are_those_of_the_user_and_agent(wired: Services, model: WireServer) -> None:
    model.otherwise = whole(MESSAGE)
    costs = sorted(
        inside_run(wired, inside.request("Do it.", agent="single", tier="simple", cache="bypass")).cost_nano
        for _ in range(3)
    )
    told = estimate(wired)["like_it"]
    assert told["runs"] == 3 and nano_of(told["median_usd"]) // 1_000 == -(-costs[1] // 1_000)
    assert estimate(wired, "formed")["like_it"]["runs"] == 0


def test_estimate_refuses_what_a_run_would_be_refused_for(
    wired: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound):
        estimate(wired, session_id=f"ses_{'1' * 26}")
    monkeypatch.setattr(wired.usage.prices, "_rows", {})
    with pytest.raises(PriceUnknown):
        estimate(wired)
