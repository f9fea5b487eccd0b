"""Hundred concurrent requests with one `Idempotency-Key`: one run, one model call, equal answers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx2

from tests.chaos.houses import House


def test_hundred_requests_with_one_key_start_one_run(house: House) -> None:
    house.model.control(first_token_ms=400)
    headers = {"Idempotency-Key": f"hundred-{house.name}"}
    body = {"input": "Say it once.", "cache": "bypass"}
    with house.server.client() as client:
        client.headers.update(headers)

        def ask(_: int) -> httpx2.Response:
            return client.post("/v1/agents/assistant/invoke", json=body)

        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(ask, range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert house.model.stats()["calls"] == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 99


def test_hundred_retries_with_one_key_start_one_more_run(house: House) -> None:
    house.model.control(fault="garbage", times=1, first_token_ms=400)
    headers = {"Idempotency-Key": f"again-{house.name}"}
    body = {"input": "Say it once more.", "cache": "bypass"}
    with house.server.client() as client:
        client.headers.update(headers)

        def ask(_: int) -> httpx2.Response:
            return client.post("/v1/agents/assistant/invoke", json=body)

        assert ask(0).json()["code"] == "model_error"
        time.sleep(1.1)  # the pause after which the key is free; no answer can say when it is over
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(ask, range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert house.model.stats()["calls"] == 2
