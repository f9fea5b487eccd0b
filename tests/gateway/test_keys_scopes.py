"""Who may ask which models with a key, and which models there are."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import httpx2
import pytest

from tests.conftest import RedisServer
from tests.gateway import house
from tests.gateway.house import HELLO, MODEL, Gateway
from tests.gateway.test_keys import AGENTS, key_of, newest


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Gateway]:
    with house.gateway(tmp_path_factory.mktemp("scopes"), redis_server.url, specs=AGENTS) as made:
        yield made


@pytest.fixture(scope="module")
def key(keys: Gateway) -> str:
    return key_of(keys)


@pytest.mark.parametrize("scopes", [("agents:*",), ("actions:runs:write",), ("models:claude-haiku-4-5",)])
def test_key_without_the_scope_may_not(keys: Gateway, scopes: tuple[str, ...]) -> None:
    restricted = key_of(keys, *scopes)
    for path in ("/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions"):
        answer = keys.post(restricted, HELLO, path)
        assert answer.status_code == 403, path
    asked = {**HELLO, "model": "probe"}
    assert keys.post(restricted, asked).status_code == (403 if scopes[0].startswith("models") else 200)


@pytest.mark.parametrize("scopes", [("models:*",), (f"models:{MODEL}", "agents:none")])
def test_key_with_the_scope_may(keys: Gateway, scopes: tuple[str, ...]) -> None:
    restricted = key_of(keys, *scopes)
    assert keys.post(restricted).status_code == 200
    listed = httpx2.get(f"{keys.url}/v1/models", headers={"x-api-key": restricted}).json()["data"]
    assert MODEL in [one["id"] for one in listed]
    assert ("claude-haiku-4-5" in [one["id"] for one in listed]) == (scopes[0] == "models:*")


def test_models_are_listed_after_agents_and_found(keys: Gateway, key: str) -> None:
    sdk = keys.sdk(key)
    names = [one.id for one in sdk.models.list()]
    assert names[:2] == ["claude-opus-5-5", "probe"] and MODEL in names[2:]
    assert names.count("claude-opus-5-5") == 1
    assert sdk.models.retrieve(MODEL).id == MODEL
    with pytest.raises(anthropic.NotFoundError):
        sdk.models.retrieve("claude-none-1")


def test_native_doors_take_agents_only(keys: Gateway, key: str) -> None:
    answer = httpx2.post(
        f"{keys.url}/v1/agents/{MODEL}/invoke", json={"input": "Hi"}, headers={"x-api-key": key}
    )
    assert answer.status_code == 404 and "is a model, not an agent" in answer.json()["detail"]


def test_dated_name_of_a_model_is_under_its_caps_stops_and_scopes(keys: Gateway, key: str) -> None:
    dated = {**HELLO, "model": f"{MODEL}-20261007"}
    assert keys.post(key, dated).status_code == 200
    assert keys.api.requests[-1].body["model"] == dated["model"] and newest(keys)["agent"] == MODEL
    assert keys.post(key_of(keys, f"models:{MODEL}"), dated).status_code == 200
    assert keys.post(key_of(keys, "models:claude-haiku-4-5"), dated).status_code == 403
    stops, db = keys.services.runs.stops, keys.services.infra.db
    db.transact(lambda tx: stops.stop(tx, MODEL, "a test"))
    try:
        assert keys.post(key, dated).status_code == 529
    finally:
        stops.release(MODEL)
