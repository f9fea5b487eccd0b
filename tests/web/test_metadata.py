"""`metadata` comes back exactly as it was sent, whatever way it takes, over both databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Model, RedisServer, Slipway, slipway_server
from tests.nginx.pair import database

JSON = {"Content-Type": "application/json"}
EXACT = '{"z":123456789012345678901234567890,"a":1.10,"m":[1e400,-0,1E5],"o":{"b":0.30000000000000000001,"a":"é"}}'


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def house(
    request: pytest.FixtureRequest, scratch: Path, redis_server: RedisServer, model: Model
) -> Iterator[Slipway]:
    folder = scratch / f"metadata-{request.param}"
    folder.mkdir()
    model.reset()
    with (
        database(request.param, folder) as url,
        slipway_server(folder, redis_server.url, model.url, DATABASE_URL=url, THREADS="8") as server,
    ):
        yield server


@pytest.fixture
def caller(house: Slipway) -> Iterator[httpx2.Client]:
    with closing(house.client()) as signed_in:
        signed_in.event_hooks = {"response": []}  # which would parse 1e400
        yield signed_in


def told(answer: httpx2.Response) -> str:
    """The metadata in an answer, letter by letter."""
    assert answer.status_code in (200, 201), answer.text
    start = answer.text.rindex('"metadata":') + len('"metadata":')
    _, end = json.JSONDecoder().raw_decode(answer.text, start)
    return answer.text[start:end]


def name_in(answer: httpx2.Response, field: str) -> str:
    """An id in an answer or its stream."""
    return answer.text.partition(f'"{field}":"')[2].partition('"')[0]


def ask(caller: httpx2.Client, door: str, **headers: str) -> httpx2.Response:
    body = f'{{"input":"Hello {door}","cache":"bypass","metadata":{EXACT}}}'
    return caller.post(f"/v1/agents/assistant/{door}", content=body, headers={**JSON, **headers})


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_run_echoes_metadata(caller: httpx2.Client, door: str) -> None:
    key = {"Idempotency-Key": f"metadata-{door}"}
    answer = ask(caller, door, **key)
    again = ask(caller, door, **key)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert told(answer) == told(again) == EXACT
    run_id = name_in(answer, "run_id")
    assert told(caller.get(f"/v1/runs/{run_id}")) == EXACT
    assert told(caller.get(f"/v1/runs/{run_id}/events")) == EXACT
    listed = caller.get(f"/v1/runs/{run_id}/events", headers={"Accept": "application/json"})
    assert told(listed) == EXACT


def test_task_echoes_metadata(caller: httpx2.Client) -> None:
    run_id = ask(caller, "tasks").json()["run_id"]
    assert told(caller.get(f"/v1/runs/{run_id}")) == EXACT


def test_other_digits_under_the_same_key_are_another_body(caller: httpx2.Client) -> None:
    def post(number: str) -> httpx2.Response:
        body = f'{{"input":"Hello","metadata":{{"order":{number}}}}}'
        headers = {**JSON, "Idempotency-Key": "digits"}
        return caller.post("/v1/agents/assistant/invoke", content=body, headers=headers)

    assert post("100000000000000000000000000001").status_code == 200
    assert post("100000000000000000000000000002").json()["code"] == "idempotency_mismatch"


def test_session_echoes_metadata(caller: httpx2.Client) -> None:
    body = f'{{"agent":"assistant","metadata":{EXACT}}}'
    headers = {**JSON, "Idempotency-Key": "metadata-session"}
    made = caller.post("/v1/sessions", content=body, headers=headers)
    again = caller.post("/v1/sessions", content=body, headers=headers)
    assert told(made) == told(again) == EXACT
    path = f"/v1/sessions/{name_in(made, 'id')}"
    assert told(caller.get(path)) == EXACT
    changed = caller.patch(path, content='{"metadata":{"price":2.50}}', headers=JSON)
    assert told(changed) == told(caller.get(path)) == '{"price":2.50}'


@pytest.mark.parametrize(
    "metadata",
    [
        '"{}"',
        "[]",
        "5",
        json.dumps({"a": "x" * 16 * 1024}),
        json.dumps({str(n): n for n in range(65)}),
        '{"a":' * 9 + "1" + "}" * 9,
    ],
)
def test_metadata_other_than_a_small_object_is_refused(caller: httpx2.Client, metadata: str) -> None:
    for path, field in (("/v1/agents/assistant/invoke", "input"), ("/v1/sessions", "agent")):
        body = f'{{"{field}":"assistant","metadata":{metadata}}}'
        answer = caller.post(path, content=body, headers=JSON)
        assert answer.status_code == 422, answer.text
        assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/metadata"]


def test_as_much_as_there_may_be(caller: httpx2.Client) -> None:
    deep: Any = 1
    for _ in range(7):
        deep = {"a": deep}
    most = {"deep": deep, **{str(n): n for n in range(62)}, "text": ""}
    most["text"] = "x" * (16 * 1024 - len(json.dumps(most, separators=(",", ":"))))
    answer = caller.post("/v1/agents/assistant/invoke", json={"input": "Hello", "metadata": most})
    assert answer.json()["metadata"] == most


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "01", "1.", "+1"])
def test_nonfinite_number_is_invalid_json(caller: httpx2.Client, number: str) -> None:
    for field in ("metadata", "context"):
        body = f'{{"input":"Hello","{field}":{{"a":{number}}}}}'
        answer = caller.post("/v1/agents/assistant/invoke", content=body, headers=JSON)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")


def test_context_may_hold_any_number(caller: httpx2.Client) -> None:
    body = f'{{"input":"Hello","context":{EXACT},"cache":"bypass"}}'
    assert caller.post("/v1/agents/assistant/invoke", content=body, headers=JSON).status_code == 200
