"""Trials of one user's cap under calls at once through all doors: agents, Claude and models of the upstream.

`GATEWAY_TRIALS` says how many, for each number of calls.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.types import NANO
from service.usage.ledger import check
from service.usage.prices import PriceTable
from tests.conftest import RedisServer, wait_until
from tests.gateway import house
from tests.gateway.house import MODEL, Gateway
from tests.gateway.test_cap_trials import money
from tests.gateway.test_keys import somebody_new
from tests.gateway.upstream import COMPLETION, PARTS, streamed
from tests.gateway.upstream import MODEL as OTHER
from tests.llm.wire_server import Exchange, WireServer, whole
from tests.messages_api.asked import Asked, Said, says

TRIALS = int(os.environ.get("GATEWAY_TRIALS", "1"))
CAP = 3_500_000  # nano-dollars, per user and day: some five of the calls fit
USAGE = {"prompt_tokens": 150, "completion_tokens": 200, "total_tokens": 350}
Body = Callable[[str, str], tuple[str, dict[str, Any]]]


def _messages(model: str, text: str) -> tuple[str, dict[str, Any]]:
    return "/v1/messages", {"model": model, "max_tokens": 200, "messages": _turn(text)}


def _chat(model: str, text: str) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"model": model, "max_completion_tokens": 200, "messages": _turn(text)}


def _responses(model: str, text: str) -> tuple[str, dict[str, Any]]:
    return "/v1/responses", {"model": model, "max_output_tokens": 200, "input": text}


def _turn(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


DOORS: tuple[tuple[Body, str], ...] = (
    *((_messages, model) for model in (MODEL, "probe")),
    *((_chat, model) for model in (OTHER, MODEL, "probe")),
    *((_responses, model) for model in (MODEL, "probe")),
)
WAYS = ("whole", "streamed", "left")


class Ward:
    """Both models, which look at the money of the caller at each request."""

    def __init__(self) -> None:
        self.gateway: Gateway | None = None
        self.over: list[tuple[int, int]] = []

    def look(self, user_id: str) -> None:
        assert self.gateway is not None
        spent, held = money(self.gateway, user_id)
        if spent + held > CAP or held <= 0:
            self.over.append((spent, held))

    def __call__(self, asked: Asked) -> Said:
        self.look(asked.prompt)
        return says("word " * 400)  # more than any call's `max_tokens`, so its cost is close to its hold

    def chat(self, exchange: Exchange) -> None:
        self.look(exchange.json["messages"][-1]["content"])
        answer = {**COMPLETION, "usage": USAGE}
        parts = [*PARTS, {**answer, "object": "chat.completion.chunk", "choices": []}]
        (streamed(parts) if exchange.json.get("stream") else whole(answer))(exchange)


@pytest.fixture
def ward(tmp_path: Path, redis_server: RedisServer, url: str) -> Iterator[Ward]:
    script = Ward()
    server = WireServer(script.chat)
    more = {
        "database_url": url,
        "threads": 80,
        "budget_user_day_usd": f"{CAP / NANO:.9f}",
        "limit_runs": "9999/minute",
        "openai_base_url": f"{server.url}/v1",
        "openai_api_key": "sk-upstream",
    }
    with house.gateway(tmp_path, redis_server.url, script, **more) as gateway:
        script.gateway = gateway
        yield script
    server.stop()


def ask(gateway: Gateway, key: str, user_id: str, start: threading.Barrier) -> tuple[str, str, int]:
    """Ask once through some door, when all are ready; return the door and the status."""
    (door, model), way = random.choice(DOORS), random.choice(WAYS)
    path, body = door(model, user_id)
    start.wait(60)
    sent: dict[str, Any] = {"json": {**body, "stream": way != "whole"}, "headers": {"x-api-key": key}}
    with httpx2.stream("POST", gateway.url + path, timeout=300, **sent) as answer:
        for _ in answer.iter_raw():
            if way == "left":
                break
        return f"{path} {model}", way, answer.status_code


def calls(gateway: Gateway, at_once: int) -> Counter[tuple[str, str, int]]:
    user_id, key = somebody_new(gateway)
    start = threading.Barrier(at_once)
    with ThreadPoolExecutor(at_once) as pool:
        asked = [pool.submit(ask, gateway, key, user_id, start) for _ in range(at_once)]
        told = Counter(one.result(300) for one in asked)
    wait_until(lambda: money(gateway, user_id)[1] == 0, "the end of every hold", 30)
    spent, _ = money(gateway, user_id)
    assert 0 < spent <= CAP, told
    return told


@pytest.mark.timeout(90 + 20 * TRIALS)
def test_cap_holds_over_all_doors_at_once(ward: Ward) -> None:
    gateway = ward.gateway
    assert gateway is not None
    told: Counter[tuple[str, str, int]] = Counter()
    for at_once in (8, 40):
        for _ in range(TRIALS):
            told += calls(gateway, at_once)
    statuses = Counter(status for _, _, status in told.elements())
    print(statuses, told)
    assert ward.over == []
    # Streams of the agents begin before their first hold: their refusal is an event.
    assert set(statuses) <= {200, 402, 429} and statuses[402] + statuses[429] > 0, told
    checked = check(gateway.services.infra.db, PriceTable.load())
    assert (checked.faults, checked.held) == ([], 0)
