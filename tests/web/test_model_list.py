"""The list of agents and models, in pages for Anthropic's SDK; and names that nobody answers to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.conftest import RedisServer
from tests.gateway import house
from tests.gateway.house import Gateway
from tests.gateway.test_keys import key_of

ANTHROPIC = {"anthropic-version": "2026-10-21"}


@pytest.fixture(scope="module")
def listed(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer
) -> Iterator[tuple[Gateway, str]]:
    with house.gateway(tmp_path_factory.mktemp("listed"), redis_server.url) as made:
        yield made, key_of(made)


def models(listed: tuple[Gateway, str], query: str = "", **headers: str) -> httpx2.Response:
    gateway, key = listed
    return gateway.client.get(f"/v1/models{query}", headers={"x-api-key": key, **headers})


def test_anthropics_sdk_reads_every_page(listed: tuple[Gateway, str]) -> None:
    gateway, key = listed
    client = anthropic.Anthropic(api_key=key, base_url=gateway.url, max_retries=0)
    everything = [one["id"] for one in models(listed, **ANTHROPIC).json()["data"]]
    assert len(everything) > 5
    page = client.models.list(limit=2)
    assert [one.id for one in page.data] == everything[:2] and page.has_more
    assert [one.id for one in page] == everything
    before = client.models.list(limit=2, before_id=everything[4])
    assert [one.id for one in before.data] == everything[2:4] and before.has_more
    assert not client.models.list(limit=2, before_id=everything[2]).has_more
    assert client.models.list(after_id=everything[-1]).data == []
    assert client.models.list(limit=1000).has_more is False


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?limit=٣", "limit"),
        ("?after_id=nobody", "after_id"),
        ("?before_id=probe&after_id=probe", "before_id"),
    ],
)
def test_bad_pages_are_refused_by_name(listed: tuple[Gateway, str], query: str, where: str) -> None:
    for headers in ({}, ANTHROPIC):
        answer = models(listed, query, **headers)
        assert answer.status_code == 400 and where in answer.json()["error"]["message"]


def test_openais_sdk_gets_as_many_as_it_asks_for(listed: tuple[Gateway, str]) -> None:
    gateway, key = listed
    client = openai.OpenAI(api_key=key, base_url=f"{gateway.url}/v1", max_retries=0)
    everything = [one.id for one in client.models.list()]
    assert len(everything) > 5
    assert [one.id for one in client.models.list(extra_query={"limit": 2})] == everything[:2]


@pytest.mark.parametrize("name", ["gpt-5.4-mini", "gpt-nobody-knows"])
def test_model_of_openai_without_an_upstream_says_what_to_set(listed: tuple[Gateway, str], name: str) -> None:
    gateway, key = listed
    body: Any = {"model": name, "messages": [{"role": "user", "content": "Hello"}]}
    answers = [
        gateway.post(key, body, "/v1/chat/completions"),
        gateway.post(key, {"model": name, "input": "Hello"}, "/v1/responses"),
        gateway.post(key, {**body, "max_tokens": 5}),
    ]
    for answer in answers:
        assert answer.status_code == 404 and "OPENAI_API_KEY" in answer.json()["error"]["message"]
    other = gateway.post(key, {**body, "model": "prob"}, "/v1/chat/completions").json()["error"]["message"]
    assert "OPENAI_API_KEY" not in other and "probe" in other


def test_compaction_of_responses_is_not_offered(listed: tuple[Gateway, str]) -> None:
    gateway, key = listed
    for method in ("POST", "GET"):
        answer = gateway.client.request(method, "/v1/responses/compact", headers={"x-api-key": key}, json={})
        assert answer.status_code == 404 and answer.json()["error"]["code"] == "unknown_url"


def test_unknown_field_is_told_in_plain_words(listed: tuple[Gateway, str]) -> None:
    gateway, key = listed
    body = {"model": "probe", "messages": [{"role": "user", "content": "Hello"}], "no_such": 1}
    told = gateway.post(key, body, "/v1/chat/completions").json()["error"]
    assert (told["message"], told["param"]) == ("no_such: There is no such field", "no_such")
