"""Every door over every bundled agent: the answer of `invoke`, the same usage, and the same rows of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import anthropic
import httpx2
import openai
import pytest
import redis

from service.store.database import Database
from service.store.schema import ledger
from tests.conftest import ROOT, RedisServer, Slipway

BUNDLED = sorted(folder.parent.name for folder in (ROOT / "agents").glob("*/agent.yaml"))
COMPARED = (
    "kind",
    "step",
    "agent",
    "model",
    "price_id",
    "basis",
    "input_tokens",
    "output_tokens",
    "amount_nano",
)


class Told(NamedTuple):
    """Answer as one door gives it: its run, its last text, why it stopped."""

    run_id: str
    text: str
    reason: str | None


class House(NamedTuple):
    """One service, as clients of each kind see it."""

    client: httpx2.Client
    anthropic: anthropic.Anthropic
    openai: openai.OpenAI
    db: Database
    kept: redis.Redis


@pytest.fixture(scope="module")
def house(slipway: Slipway, redis_server: RedisServer) -> Iterator[House]:
    with (
        slipway.client() as client,
        httpx2.Client(trust_env=False, timeout=60) as http,
        redis.Redis.from_url(redis_server.url) as kept,
    ):
        options: Any = {
            "api_key": client.headers["Authorization"].removeprefix("Bearer "),
            "http_client": http,
        }
        theirs = anthropic.Anthropic(base_url=slipway.url, max_retries=0, **options)
        other = openai.OpenAI(base_url=f"{slipway.url}/v1", max_retries=0, **options)
        db = Database(f"sqlite:///{slipway.env['SLIPWAY_HOME']}/slipway.db")
        yield House(client, theirs, other, db, kept)
        db.close()


def by_stream(house: House, agent: str, messages: Any) -> Told:
    body = {"messages": messages, "cache": "bypass"}
    with house.client.stream("POST", f"/v1/agents/{agent}/stream", json=body) as answer:
        ids = [line for line in answer.iter_lines() if line.startswith("id: ")]
    run_id = ids[0].removeprefix("id: ").partition(":")[0]
    run = house.client.get(f"/v1/runs/{run_id}").json()
    return Told(run_id, run["output"], run["stop_reason"])


def by_chat(house: House, agent: str, messages: Any) -> Told:
    answer = house.openai.chat.completions.create(model=agent, messages=messages)
    (choice,) = answer.choices
    return Told(
        f"run_{answer.id.removeprefix('chatcmpl-')}", choice.message.content or "", choice.finish_reason
    )


def by_streamed_chat(house: House, agent: str, messages: Any) -> Told:
    text, reasons, answer_id = "", [], ""
    for chunk in house.openai.chat.completions.create(model=agent, messages=messages, stream=True):
        answer_id = chunk.id
        text += chunk.choices[0].delta.content or ""
        reasons.append(chunk.choices[0].finish_reason)
    assert reasons[:-1] == [None] * (len(reasons) - 1)
    return Told(f"run_{answer_id.removeprefix('chatcmpl-')}", text, reasons[-1])


def by_messages(house: House, agent: str, messages: Any) -> Told:
    return _of_message(house.anthropic.messages.create(model=agent, max_tokens=4_000, messages=messages))


def by_streamed_messages(house: House, agent: str, messages: Any) -> Told:
    with house.anthropic.messages.stream(model=agent, max_tokens=4_000, messages=messages) as events:
        return _of_message(events.get_final_message())


def _of_message(answer: Any) -> Told:
    assert {block.type for block in answer.content} == {"text"}
    return Told(f"run_{answer.id.removeprefix('msg_')}", answer.content[-1].text, answer.stop_reason)


def by_responses(house: House, agent: str, messages: Any) -> Told:
    return _of_response(house.openai.responses.create(model=agent, input=messages))


def by_streamed_responses(house: House, agent: str, messages: Any) -> Told:
    with house.openai.responses.stream(model=agent, input=messages) as events:
        return _of_response(events.get_final_response())


def _of_response(answer: Any) -> Told:
    return Told(f"run_{answer.id.removeprefix('resp_')}", answer.output_text, answer.status)


DOORS: dict[str, Callable[[House, str, Any], Told]] = {
    "stream": by_stream,
    "chat/invoke": by_chat,
    "chat/stream": by_streamed_chat,
    "messages/invoke": by_messages,
    "messages/stream": by_streamed_messages,
    "responses/invoke": by_responses,
    "responses/stream": by_streamed_responses,
}


REASONS = {"chat": "stop", "responses": "completed"}  # of the others: end_turn


def rows_of(db: Database, run_id: str) -> list[tuple[Any, ...]]:
    """What the ledger has of a run's model calls, but for ids and times."""
    columns = [ledger.c[name] for name in COMPARED]
    rows = db.query(
        lambda tx: tx.rows(
            ledger.select()
            .with_only_columns(*columns)
            .where(ledger.c.run_id == run_id, ledger.c.account == "upstream")
        )
    )
    return sorted(tuple(row[name] for name in COMPARED) for row in rows)


@pytest.mark.parametrize("agent", BUNDLED)
def test_every_door_gives_the_answer_of_invoke(house: House, agent: str) -> None:
    question = (house.client.get(f"/v1/agents/{agent}").json()["examples"] or ["What is 17 * 23?"])[0]
    told = house.client.post(f"/v1/agents/{agent}/invoke", json={"input": question, "cache": "bypass"}).json()
    rows = rows_of(house.db, told["run_id"])
    assert told["status"] == "succeeded" and rows
    for door, asks in DOORS.items():
        house.kept.flushall()  # the other dialects cannot ask for an answer that is not of the cache
        answer = asks(house, agent, [{"role": "user", "content": question}])
        run = house.client.get(f"/v1/runs/{answer.run_id}").json()
        assert (run["status"], run["door"]) == ("succeeded", door)
        assert run["output"] == told["output"] and answer.text.endswith(told["output"]), door
        assert answer.reason == REASONS.get(door.partition("/")[0], "end_turn"), door
        assert run["usage"] == told["usage"], door
        assert rows_of(house.db, answer.run_id) == rows, door
