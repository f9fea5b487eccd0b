"""The official asynchronous SDKs with many streams at once, against Gunicorn: answers, or refusals that they retry."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.clients.conftest import key_of
from tests.conftest import Slipway

pytestmark = pytest.mark.slow  # each answer takes seconds, so that all streams are open at once
DIALECTS = ("anthropic", "openai")
Ask = Callable[[str, Callable[[], None]], Awaitable[str]]  # text of a streamed answer; told once it is open


def asking(dialect: str, server: Slipway, key: str, http: httpx2.AsyncClient, retries: int) -> Ask:
    """What asks one question by the SDK of a dialect."""

    async def by_anthropic(question: str, is_open: Callable[[], None]) -> str:
        messages: Any = [{"role": "user", "content": question}]
        async with theirs.messages.stream(model="assistant", max_tokens=400, messages=messages) as events:
            is_open()
            answer = await events.get_final_message()
        assert answer.stop_reason == "end_turn"
        return "".join(block.text for block in answer.content if block.type == "text")

    async def by_openai(question: str, is_open: Callable[[], None]) -> str:
        messages: Any = [{"role": "user", "content": question}]
        text, reason = "", None
        async for chunk in await other.chat.completions.create(
            model="assistant", messages=messages, stream=True
        ):
            if chunk.choices[0].delta.role:  # the first
                is_open()
            text += chunk.choices[0].delta.content or ""
            reason = chunk.choices[0].finish_reason or reason
        assert reason == "stop"
        return text

    options: Any = {"api_key": key, "max_retries": retries, "http_client": http}
    theirs = anthropic.AsyncAnthropic(base_url=server.url, **options)
    other = openai.AsyncOpenAI(base_url=f"{server.url}/v1", **options)
    return by_anthropic if dialect == "anthropic" else by_openai


async def ask_all(
    dialect: str, server: Slipway, count: int, question: str, retries: int
) -> tuple[list[str], int, Counter[int]]:
    """(answers, most streams open at once, statuses of all tries)."""
    statuses: Counter[int] = Counter()
    now = most = 0

    async def count_status(answer: httpx2.Response) -> None:
        statuses[answer.status_code] += 1
        assert answer.status_code == 200 or int(answer.headers["Retry-After"]) >= 1

    def opened() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)

    async def one(number: int) -> str:
        nonlocal now
        text = await ask(question.format(f"{dialect} {number}"), opened)
        now -= 1
        return text

    limits = httpx2.Limits(max_connections=count, max_keepalive_connections=count)
    hooks: Any = {"response": [count_status]}
    async with httpx2.AsyncClient(trust_env=False, timeout=120, limits=limits, event_hooks=hooks) as http:
        ask = asking(dialect, server, key_of(server), http, retries)
        return await asyncio.gather(*(one(number) for number in range(count))), most, statuses


@pytest.mark.parametrize("dialect", DIALECTS)
def test_two_hundred_streams_are_open_at_once(crowded: Slipway, dialect: str) -> None:
    question = "[offline tokens=30 token_ms=200] Stream {}"
    texts, most, statuses = asyncio.run(ask_all(dialect, crowded, 200, question, retries=0))
    assert all(texts) and statuses == {200: 200}
    assert most > 150  # the others had ended, or not begun, at that moment


@pytest.mark.parametrize("dialect", DIALECTS)
def test_beyond_the_bounds_each_is_answered_after_retries(narrow: Slipway, dialect: str) -> None:
    """More than one user may run (429), or than one worker takes (529, 503): the SDK asks again as it is told."""
    question = "[offline tokens=5 token_ms=50] Crowd {}"
    texts, most, statuses = asyncio.run(ask_all(dialect, narrow, 30, question, retries=60))
    assert all(texts) and most <= 14
    assert statuses.pop(200) == 30 and statuses and set(statuses) <= {429, 503, 529}
