"""What the answer cache saves, layer by layer, from the doors to the report."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.conftest import wait_until
from tests.web.cache_house import House, house, standing, text

__all__ = ["house", "standing", "text"]


def reported(house: House, text: str) -> Any:
    """The line on one test's own question, whose end user has its name."""
    house.wired.usage.savings.write()
    report: Any = house.client.get("/v1/usage?group_by=end_user,agent,model").json
    [line] = [line for line in report["data"] if line["end_user"] == text[:64]]
    return line


def ask(house: House, text: str, door: str = "invoke", asked: str = "", **more: Any) -> Any:
    body = {"input": asked or text, "end_user": text[:64], **more}
    return house.client.post(f"/v1/agents/probe/{door}", json=body, buffered=True)


def test_savings_of_each_layer_are_what_the_answers_had_cost(house: House, text: str) -> None:
    first = ask(house, text)
    wait_until(lambda: ask(house, text).headers["X-Cache"] == "hit", "the answer")
    before = reported(house, text)
    cost = float(first.headers["X-Cost-USD"])
    assert cost > 0 and before["calls"] == 1 and float(before["cost_usd"]) == cost
    for door in ("invoke", "stream"):
        assert ask(house, text, door).headers["X-Cache"] == "hit"
        assert ask(house, text, door, f" {text} ").headers["X-Cache"] == "near"
    line = reported(house, text)
    hits = line["hits"] - before["hits"]
    assert (hits, line["near_hits"] - before["near_hits"], line["coalesced"]) == (2, 2, before["coalesced"])
    assert float(line["hit_savings_usd"]) - float(before["hit_savings_usd"]) == round(2 * cost, 9)
    assert float(line["near_savings_usd"]) == round(2 * cost, 9)
    assert line["calls"] == 1, "an answer from the cache is no call"
    assert ask(house, text, cache="bypass").headers["X-Cache"] == "bypass"
    assert reported(house, text)["hits"] == line["hits"] and reported(house, text)["calls"] == 2


def test_requests_at_once_save_all_but_one_call(house: House, text: str) -> None:
    house.model.control(first_token_ms=700, token_ms=10)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, house, text, door) for door in ("invoke", "stream") * 4]
        answers = [future.result(30) for future in asked]
    assert sum(answer.headers["X-Cache"] == "coalesced" for answer in answers) == 7
    line = reported(house, text)
    assert (line["calls"], line["hits"], line["near_hits"], line["coalesced"]) == (1, 0, 0, 7)
    assert float(line["coalesced_savings_usd"]) == round(7 * float(line["cost_usd"]), 9) > 0


def test_replayed_hit_saves_nothing_more(house: House, text: str) -> None:
    ask(house, text)
    wait_until(lambda: ask(house, text).headers["X-Cache"] == "hit", "the answer")
    key = {"Idempotency-Key": f"k{abs(hash(text))}"}
    body = {"input": text, "end_user": text[:64]}
    house.client.post("/v1/agents/probe/invoke", json=body, headers=key)
    before = reported(house, text)["hits"]
    again = house.client.post("/v1/agents/probe/invoke", json=body, headers=key)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert reported(house, text)["hits"] == before
