"""Bodies and paths at the gateway: what is priced is what the model gets, and refusals are in its dialect."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pytest
import sqlalchemy as sa

from service.store.schema import holds, runs
from service.types import RunStatus
from tests.conftest import RedisServer
from tests.gateway import house
from tests.gateway.house import HELLO, MODEL, Gateway
from tests.messages_api.asked import Asked, Said
from tests.tables import ON_SQLITE

ASKED: list[Any] = [{"role": "user", "content": "Hello"}]


def test_name_that_comes_twice_bounds_the_call_as_the_model_reads_it(gateway: Gateway) -> None:
    """Parsers differ in which of two values they take: the model must get the one that was held for."""
    body = (
        b'{"max_tokens": 64000, "model": "%b", "messages": [{"role": "user", "content": "Hi"}], '
        b'"max_tokens": 5}'
    )
    headers = {"x-api-key": gateway.token(gateway.run()), "Content-Type": "application/json"}
    sent = httpx2.post(
        gateway.url + "/v1/messages", content=body % MODEL.encode(), headers=headers, timeout=30
    )
    assert sent.status_code == 200
    assert gateway.api.bodies[-1].count(b"max_tokens") == 1
    assert gateway.api.requests[-1].body["max_tokens"] == 5


def test_field_that_is_not_known_counts_as_a_part_of_the_prompt(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    amounts: list[int] = []

    def looks(asked: Asked) -> Said:
        amounts.append(sum(row["amount_nano"] for row in made.rows(holds)))
        return house.says_hello(asked)

    with house.gateway(tmp_path, redis_server.url, looks) as made:
        for body in (HELLO, {**HELLO, "output_format": {"schema": {"description": "x" * 20_000}}}):
            made.post(made.token(made.run()), body)
    assert amounts[1] > 10 * amounts[0] > 0


@ON_SQLITE
@pytest.mark.parametrize(
    "content",
    [
        [{"type": "document"}],
        [{"type": "document", "source": "here"}],
        [{"type": []}],
        [{"type": "tool_result", "content": 5}],
        [{"type": "tool_result", "content": ["text"]}],
        [{"no": "type"}],
    ],
)
def test_blocks_that_make_no_sense_are_the_models_to_judge(gateway: Gateway, content: Any) -> None:
    body = {**HELLO, "messages": [{"role": "user", "content": content}]}
    answer = gateway.post(gateway.token(gateway.run()), body)
    assert answer.status_code != 500 and gateway.held == 0


def test_numbers_that_no_float_holds_reach_the_model_as_written(gateway: Gateway) -> None:
    body = (
        b'{"temperature": 1, "big": 1e999, "max_tokens": 5, "model": "%b", '
        b'"messages": [{"role": "user", "content": "Hi"}]}'
    )
    headers = {"x-api-key": gateway.token(gateway.run()), "Content-Type": "application/json"}
    sent = httpx2.post(
        gateway.url + "/v1/messages", content=body % MODEL.encode(), headers=headers, timeout=30
    )
    assert sent.status_code == 200 and b'"big":1e999' in gateway.api.bodies[-1]


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/v1/messages/batches", 404, "not_found_error"),
        ("/v1/messages/", 404, "not_found_error"),
        ("/v1/messages/count_tokens/x", 404, "not_found_error"),
    ],
)
def test_paths_that_are_not_offered_answer_in_the_dialect(
    gateway: Gateway, path: str, status: int, kind: str
) -> None:
    answer = gateway.post(gateway.token(gateway.run()), path=path)
    told = answer.json()
    assert (answer.status_code, told["type"], told["error"]["type"]) == (status, "error", kind)
    assert answer.headers["request-id"] == told["request_id"]
    assert gateway.post("slp_x", path="/v1/messagesx").headers["Content-Type"] == "application/problem+json"


def test_token_of_a_run_that_waits_for_a_person_is_401(gateway: Gateway) -> None:
    run = gateway.run()
    token = gateway.token(run)
    values = {"status": RunStatus.WAITING_APPROVAL}
    db = gateway.services.infra.db
    db.transact(lambda tx: tx.execute(sa.update(runs).where(runs.c.id == run.id).values(**values)))
    answer = gateway.post(token)
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")


def test_counting_is_limited_by_the_rate_of_its_user(tmp_path: Path, redis_server: RedisServer) -> None:
    with house.gateway(tmp_path, redis_server.url, limit_writes="2/hour") as gateway:
        token, path = gateway.token(gateway.run()), "/v1/messages/count_tokens"
        body = {"model": MODEL, "messages": ASKED}
        answers = [gateway.post(token, body, path) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].json()["error"]["type"] == "rate_limit_error" and answers[2].headers["Retry-After"]
        assert gateway.post(token).status_code == 200


def test_counting_passes_on_what_the_prompt_is_made_of(gateway: Gateway) -> None:
    tool = {"name": "add", "input_schema": {"type": "object"}}
    body = {"model": MODEL, "messages": ASKED, "tools": [tool], "tool_choice": {"type": "any"}}
    assert gateway.post(gateway.token(gateway.run()), body, "/v1/messages/count_tokens").status_code == 200
    assert gateway.api.counted[-1] == body


def test_async_client_streams_and_is_told_of_a_refusal(gateway: Gateway) -> None:
    async def ask(token: str) -> str:
        async with (
            anthropic.AsyncAnthropic(api_key=token, base_url=gateway.url, max_retries=0) as client,
            client.messages.stream(model=MODEL, max_tokens=50, messages=ASKED) as stream,
        ):
            return "".join([text async for text in stream.text_stream])

    assert asyncio.run(ask(gateway.token(gateway.run()))) == "Answer 5."
    with pytest.raises(anthropic.AuthenticationError) as raised:
        asyncio.run(ask("slr_" + "0" * 48))
    assert raised.value.request_id
